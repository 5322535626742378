"""`sluice forget` and `sluice export` over the local stack."""

import json
import time
from base64 import b64encode
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

import msgpack
import pytest
from redis import Redis

from doubles.treasure_data import Action, Fault, Kind
from ops import screen
from shared.envelope import RejectedEvent, decode
from shared.person_hash import hashed_column
from tests.support.delivery import HASH_KEY, RESOURCES, WRITE_KEY_SECRET, envelope, row
from tests.support.faulty_stack import FaultyStack
from tests.support.sluice import Sluice, until
from worker.rows import compress

pytestmark = pytest.mark.xdist_group("ops")


def send(sluice: Sluice, table: str, **emails: str) -> None:
    """Have the stack accept an event of app for each id, with an email address."""
    sluice.post("app", [{"table": table, "event_id": one, "email": email} for one, email in emails.items()])


def states(sluice: Sluice, table: str) -> dict[str, int]:
    """Return the table's line in the books, without zeros."""
    tables = sluice.json("status --local --all")["balance"]["tables"]
    line: dict[str, Any] = next((one for one in tables if one["table"] == table), {"adds_up": True})
    assert line["adds_up"]
    return {name: number for name, number in line.items() if type(number) is int and number}


def lines_of(text: str) -> list[dict[str, Any]]:
    """Return JSON lines."""
    return [json.loads(line) for line in text.splitlines()]


def test_persons_are_forgotten_everywhere_and_nobody_else(sluice: Sluice, tmp_path: Path) -> None:
    """The books count the rows on a line of their own; each receipt says what was deleted of its person, also of many in a file."""
    persons = {name: f"{name}@example.com" for name in ("p", "q", "m", "n")}
    sluice.td("faults", {"kind": "status", "action": "import", "table": "forget_dead", "status": 415})
    send(sluice, "forget_dead", **{f"d{name}": email for name, email in persons.items()})
    send(sluice, "forget_sent", **{f"s{name}": email for name, email in persons.items()}, sm2=persons["m"])
    until(lambda: len(sluice.rows("field_app", "forget_sent")) == 5)
    until(lambda: states(sluice, "forget_dead").get("dead") == 4)
    sluice.heal()
    shown = sluice.run("export email=p@example.com --account app --local")
    forgotten = sluice.run("forget email=p@example.com --account app --local", answer="y\n")

    assert {("S3", "dp"), ("S3", "sp"), ("Treasure Data", "sp")} == {
        (one["where"], one["row"]["event_id"]) for one in lines_of(shown.stdout)
    }
    assert 0 == forgotten.exit_code, forgotten.output + forgotten.stderr
    assert "In field_app, all rows with the value go, also of an account that had" in forgotten.stderr
    assert ["sm", "sm2", "sn", "sq"] == sluice.rows("field_app", "forget_sent")
    assert {"received": 4, "dead": 3, "forgotten": 1} == states(sluice, "forget_dead")
    assert "deleted    1 row in Treasure Data, field_app.forget_sent" in forgotten.stdout
    assert "deleted    1 row in S3, dead" in forgotten.stdout
    assert "waits      1 row in S3 until the search at" in forgotten.stdout  # the delivered one
    assert "p@example.com" not in forgotten.stdout.split("\n", 1)[1]

    (receipt,) = [one for one in sluice.json("forget --list --local") if one["id"] in forgotten.stdout]
    assert {"dead": 1} == receipt["forgotten"]
    assert receipt["cleared"]
    assert "p@example.com" not in json.dumps(receipt)

    named = tmp_path / "persons"
    named.write_text("Email =m@example.com\n# two\nemail=n@example.com\n", encoding="utf-8-sig")
    (held,) = sluice.json(f"forget --from {named} --account app --local --dry-run")
    assert (2, 3) == (held["rows"]["dead"], held["treasure_data"][0]["rows"])
    assert {"received": 4, "dead": 3, "forgotten": 1} == states(sluice, "forget_dead")
    receipts = sluice.json(f"forget --from {named} --account app --local --yes")
    assert [(1, {"field_app.forget_sent": 2}), (1, {"field_app.forget_sent": 1})] == [
        (one["forgotten"]["dead"], one["treasure_data"]) for one in receipts
    ]
    assert ["sq"] == sluice.rows("field_app", "forget_sent")
    assert {"received": 4, "dead": 1, "forgotten": 3} == states(sluice, "forget_dead")
    exported = lines_of(sluice.run("export email=q@example.com --account app --local").stdout)
    assert ["dq"] == [one["row"]["event_id"] for one in exported if one.get("table") == "forget_dead"]
    since, now = (screen.utc(int(time.time()) - ago) for ago in (600, 0))
    forced = f"replay --force --from {since} --to {now} --account app --table forget_sent --local --yes"
    assert 0 == sluice.json(forced)["rows"]["passed_over"]  # nothing was sent before under this tag


def test_a_rejected_event_is_exported_whatever_its_sender_wrote(sluice: Sluice) -> None:
    """Half of a character cannot be printed, and a number may have thousands of digits."""
    made, digits = sluice.stack.resources, "9" * 5000
    original = f'{{"email": "half@example.com", "note": "\\ud83d", "n": {digits}}}'.encode()
    name, body = "rejected/app/views!too_deep/half.gz", compress(msgpack.packb([0, original, ""]))
    made.client("s3").put_object(Bucket=made.data_bucket, Key=name, Body=body)
    shown = sluice.run("export email=half@example.com --account app --local")

    (line,) = lines_of(shown.stdout)
    assert ("\ufffd", digits) == (line["event"]["note"], line["event"]["n"])


@pytest.mark.parametrize(
    ("command", "is_lost", "said"),
    [
        ("forget", False, "there is no account shpo"),
        ("export", False, "there is no account shpo"),
        ("forget --dry-run", True, "The account shpo cannot be looked up now"),
    ],
)
def test_a_mistyped_account_is_an_error(sluice: Sluice, command: str, is_lost: bool, said: str) -> None:
    """Otherwise a receipt would say that the person is forgotten. While Redis does not know, nor does the command."""
    noted = len(sluice.json("forget --list --local"))
    if is_lost:
        with Redis.from_url(sluice.stack.addresses.redis) as redis:
            redis.flushdb()
    result = sluice.run(f"{command} email=a@example.com --account shpo --local", answer="y\n")
    sluice.restore()

    assert (1, True) == (result.exit_code, said in result.stderr), result.output
    assert noted == len(sluice.json("forget --list --local"))


@pytest.mark.parametrize(
    ("command", "fault", "code", "said"),
    [
        ("forget --dry-run", {"action": "list"}, 3, "does not say how many rows it has. It may be down"),
        ("forget --yes", {"action": "list"}, 3, "may still have rows: run the same command again"),
        ("export", {"action": "list"}, 3, "does not list the tables of field_app. It may be down"),
        ("export", {"action": "import", "table": "nowhere"}, 0, "A mistyped column finds nothing, too"),
    ],
)
def test_a_search_says_what_it_could_not_find(
    sluice: Sluice, command: str, fault: dict[str, str], code: int, said: str
) -> None:
    """Otherwise nothing seems to be held of the person."""
    sluice.td("faults", {"kind": "status", "status": 503} | fault)
    result = sluice.run(f"{command} emial=a@example.com --account app --local")
    sluice.heal()

    assert (code, True) == (result.exit_code, said in result.stdout + result.stderr), result.output


def test_rows_that_are_counted_and_not_shown_are_reported(sluice: Sluice) -> None:
    """Nobody knows how the query ended, and an export has fewer lines than there are rows."""
    sluice.post("app", [{"table": "export_counted", "event_id": "x1", "plate": "7"}])
    until(lambda: ["x1"] == sluice.rows("field_app", "export_counted"))
    sluice.td("faults", {"kind": "slow", "action": "query", "seconds": 0, "count": 3})  # those of a count
    sluice.td("faults", {"kind": "status", "action": "query", "status": 500})
    result = sluice.run("export plate=7 --account app --local")
    sluice.heal()

    said = "The rows of field_app.export_counted cannot be shown here now. In Treasure Data: field_app: SEL"
    assert (3, True) == (result.exit_code, said in result.stderr)


def test_events_in_the_overflow_queue_are_found_as_they_are_kept() -> None:
    """That is hashed, if a plan hashes the column, and under the sender's names, if they were rejected. Messages that are hidden are reported."""
    stack = FaultyStack()
    stack.outputs["WriteKeySecret"] = WRITE_KEY_SECRET
    stack.made.map(shop="shop_db")
    hashed = hashed_column("p@example.com", HASH_KEY.encode())
    rows = [row("plain", email="p@example.com"), row("hashed", email=hashed), row("other", email="q")]
    original = b'{"event_id": "rejected", "Email": "p@example.com", "EMAIL": 1}'
    rejected = RejectedEvent(1, "invalid_table", "", original)
    data = decode(envelope("shop", {"views": rows}))._replace(rejected=(rejected,)).encode()
    message = {"QueueUrl": RESOURCES.queue_url, "MessageBody": b64encode(data).decode()}
    stack.sqs.send_message(**message)
    whole = stack.run("export email=p@example.com --account shop")
    stack.made.clock.sleep(6)  # until SQS shows the message again
    stack.sqs.send_message(**message, DelaySeconds=60)
    shown = stack.run("export email=p@example.com --account shop")
    stack.made.clock.sleep(6)
    held = stack.json("forget email=p@example.com --account shop --dry-run")

    assert (0, 3) == (whole.exit_code, shown.exit_code)
    assert ["plain", "hashed", "rejected"] == [one["row"]["event_id"] for one in lines_of(shown.stdout)]
    assert "SQS does not show all messages of the overflow queue now" in shown.stderr
    assert [(3, 1)] == [(one["queued"], one["unseen"]) for one in held]


@pytest.mark.parametrize(
    ("damaged", "said"),
    [('{"demo": "', "has no signing secret"), ('{"demo": "a"}', "has lost its member .forget")],
)
def test_a_damaged_secret_stays_as_it_is(sluice: Sluice, damaged: str, said: str) -> None:
    """With nothing but the key of hashes in it, the ingest would refuse every write key. With another such key, nobody is recognised."""
    sluice.json("forget email=lost@example.com --account app --local --yes")
    made = sluice.stack.resources
    client, name = made.client("secretsmanager"), made.write_key_secret
    whole = client.get_secret_value(SecretId=name)["SecretString"]
    client.put_secret_value(SecretId=name, SecretString=damaged)
    result = sluice.run("export email=lost@example.com --account app --local")
    left = client.get_secret_value(SecretId=name)["SecretString"]
    client.put_secret_value(SecretId=name, SecretString=whole)

    assert (1, True) == (result.exit_code, said in result.stderr)
    assert damaged == left


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("name=山田\n".encode("shift-jis"), "cannot be read as UTF-8"),
        (b"user_id=bob\nuser_id= alice\n", "line 2 of"),
        (b"user_id=alice \r\n", "line 1 of"),
        (b"user_id=alice\ruser_id=bob\r", "line 1 of"),
    ],
)
def test_a_file_that_may_name_others_fails(sluice: Sluice, tmp_path: Path, content: bytes, said: str) -> None:
    """Nobody would be found under names that were read wrongly, and a value's own white space counts."""
    named = tmp_path / "persons"
    named.write_bytes(content)
    result = sluice.run(f"forget --from {named} --account app --local --yes")

    assert (1, True) == (result.exit_code, said in result.stderr)


def test_a_file_names_whom_the_command_line_would(sluice: Sluice, tmp_path: Path) -> None:
    """White space around a name does not count, short names do, and a value may have separators of lines."""
    value = "a\u2028b=\x0c\x85c"
    event = {"table": "forget_named", "event_id": "n1", "td_client_id": "named", "note": value}
    sluice.post("app", [event])
    until(lambda: sluice.rows("field_app", "forget_named") == ["n1"])
    named = tmp_path / "persons"
    named.write_bytes(f" Visitor =named\r\n # one\n\nnote={value}\n".encode())
    held = sluice.json(f"forget --from {named} --account app --local --dry-run")

    assert [1, 1] == [found["rows"] for one in held for found in one["treasure_data"]]


def test_new_events_of_a_person_are_refused_until_that_is_lifted(sluice: Sluice) -> None:
    """The receipt names the request; the ingest's tests show what it refuses."""
    asked = "forget email=refused@example.com --account app --refuse --local"
    asks = sluice.run(asked, answer="n\n")
    (receipt,) = sluice.json(f"{asked} --yes")
    listed = sluice.run("forget --list --local").stdout
    lifted = sluice.run(f"forget --lift {receipt['id']} --local")
    wrong = sluice.run("forget --lift 0815 --local")
    unset = sluice.run("forget email= --account app --local --yes")  # rows in which it is empty are of many

    assert "for ever, and refuse new events?" in asks.stderr
    assert receipt["refuses"]
    assert f"refused    new events, until `sluice forget --local --lift {receipt['id']}`" in listed
    assert "accepts events of these persons again" in lifted.stdout
    receipts = sluice.json("forget --list --local")
    assert [False] == [one["refuses"] for one in receipts if one["id"] == receipt["id"]]
    assert (1, True) == (wrong.exit_code, "No request is named 0815." in wrong.stderr)
    assert (1, True) == (unset.exit_code, "no value for email" in unset.stderr)


def test_what_the_key_may_not_delete_is_printed(sluice: Sluice) -> None:
    """With the statement, and who can run it. The receipt says that it is to do, without the value."""
    send(sluice, "forget_forbidden", f1="f1@example.com")
    until(lambda: sluice.rows("field_app", "forget_forbidden") == ["f1"])
    sluice.td("faults", {"kind": "status", "action": "query", "status": 403})
    result = sluice.run("forget email=f1@example.com --account app --local --yes")
    sluice.heal()

    assert (3, ["f1"]) == (result.exit_code, sluice.rows("field_app", "forget_forbidden"))
    assert "an administrator, or a user with full access to the database" in result.stderr
    statement = """DELETE FROM "forget_forbidden" WHERE CAST("email" AS VARCHAR) IN ('f1@example.com')"""
    assert f"field_app: {statement}" in result.stderr
    assert "to do      Treasure Data may still have rows: run the same command again" in result.stdout
    assert "f1@example.com" not in result.stdout


def test_a_receipt_keeps_what_was_deleted_before_a_count_failed(sluice: Sluice) -> None:
    """The next run finds nothing more, and knows how many there were."""
    phones = {"c1": "1", "c2": "1", "else": "2"}
    sluice.post("app", [{"table": "forget_counted", "event_id": i, "phone": n} for i, n in phones.items()])
    until(lambda: [*phones] == sluice.rows("field_app", "forget_counted"))
    counts_and_deletes = 3 + 3 + 2  # requests: a count has three
    sluice.td("faults", {"kind": "slow", "action": "query", "seconds": 0, "count": counts_and_deletes})
    sluice.td("faults", {"kind": "status", "action": "query", "status": 403})
    (first,) = sluice.json("forget phone=1 --account app --local --yes")
    sluice.heal()
    (second,) = sluice.json("forget phone=1 --account app --local --yes")

    assert ["else"] == sluice.rows("field_app", "forget_counted")
    assert (0, {"field_app.forget_counted": 2}) == (first["cleared"], first["remaining"])
    assert second["cleared"]
    assert ({"field_app.forget_counted": 2}, {}) == (second["treasure_data"], second["remaining"])


@pytest.mark.parametrize(
    ("change", "code", "deleted", "remaining"),
    [
        ("drop", 0, {}, {}),
        ("rename", 0, {"shop_db.moved": 1}, {}),
        ("hide the column", 3, {}, {"shop_db.views": 1}),
        ("list", 3, {}, {"shop_db.views": 1}),
    ],
)
def test_a_receipt_says_nothing_of_rows_in_a_table_that_is_gone(
    change: str, code: int, deleted: dict[str, int], remaining: dict[str, int]
) -> None:
    """Nobody says that they were deleted. If an answer only lacks the table or its column, it may have them still."""
    stack = FaultyStack()
    made, asked = stack.made.map(shop="shop_db"), "forget email=p@example.com --account shop --yes"
    stack.outputs["WriteKeySecret"] = WRITE_KEY_SECRET
    made.deliver_each(envelope("shop", {"views": [row("p", email="p@example.com"), row("a", email="a")]}))
    made.td.settings = replace(made.td.settings, refuses_delete=True)
    made.clock.sleep(1200)  # queries see the rows
    first = stack.run(asked)
    delay = inf if change == "hide the column" else 0.0
    made.td.settings = replace(made.td.settings, refuses_delete=False, schema_delay=delay)
    if change == "list":
        wrong = Fault(kind=Kind.STATUS, action=Action.LIST, status=200, body='{"tables": []}')
        made.td.faults.add(wrong)
    log = made.td._log
    if change in ("drop", "rename"):
        number = log._counts["shop_db"].pop("views")
        moved = [replace(one, table="moved") for one in log.imports()] if change == "rename" else []
        log._counts["shop_db"] |= {"moved": number} if moved else {}
        log._imports[:] = moved
    second = stack.run(asked)
    (receipt,) = stack.json("forget --list")

    assert (3, code) == (first.exit_code, second.exit_code)
    assert (deleted, remaining) == (receipt["treasure_data"], receipt["remaining"])
    assert ("remains " in second.stdout, bool(receipt["cleared"])) == (False, not code)


def test_where_accounts_share_a_database_rows_stay_unless_it_is_named(sluice: Sluice) -> None:
    """No column of a row names its account. A database in which no table has the column may be mistyped."""
    for account, fax in (("shop", "7"), ("outlet", "7"), ("outlet", "8")):
        sluice.post(account, [{"table": "forget_shared", "event_id": account + fax, "fax": fax}])
    until(lambda: len(sluice.rows("shop", "forget_shared")) == 3)
    asked = "fax=7 --account shop --local"
    shown = sluice.run(f"export {asked}")
    kept = sluice.run(f"forget {asked} --yes")
    assert (3, 3) == (kept.exit_code, len(sluice.rows("shop", "forget_shared")))
    wrong = sluice.run(f"forget {asked} --database shpo")
    named = sluice.run("forget fax=7 --account news --local --yes --database shop")  # which it had once

    assert (3, ["shop7"]) == (shown.exit_code, [one["row"]["event_id"] for one in lines_of(shown.stdout)])
    assert "Other accounts may have rows in shop.forget_shared. All with the value: shop: " in shown.stderr
    assert "repeat the command with --database shop" in kept.stderr
    assert "remains    2 rows in Treasure Data, shop.forget_shared, perhaps of other accounts" in kept.stdout
    assert (1, True) == (wrong.exit_code, "the database shpo has such a column" in wrong.stderr)
    assert (0, ["outlet8"]) == (named.exit_code, sluice.rows("shop", "forget_shared"))


def test_what_no_query_has_counted_is_to_do_after_the_last_search() -> None:
    """Treasure Data may have had rows for longer than S3."""
    stack = FaultyStack()
    asked = {"do": "note", "account": "shop", "column": "email", "values": ["a"]}
    stack.made.invoke_sender({"forget": asked})
    stack.made.clock.sleep(40 * 86_400)
    stack.made.invoke_sender({"sweep": True})
    listed = stack.run("forget --list")

    assert "done       the last search" in listed.stdout
    assert (3, True) == (listed.exit_code, "run the same command again" in listed.stdout)
