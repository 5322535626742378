"""What commands ask before they change something, and that they change exactly what they have shown."""

import json
from copy import replace
from pathlib import Path
from typing import Any

import pytest

from doubles.treasure_data import Action, Fault, Kind
from ops.failure import Failure
from ops.sending import OUTCOMES, balanced, send
from shared.envelope import RejectedEvent, decode
from tests.ops.deploy.test_rights import waiting
from tests.support.commands import all_commands
from tests.support.delivery import KEYS, Delivery, envelope, row
from tests.support.faulty_stack import FaultyStack
from tests.support.sluice import Sluice, until
from worker.states import Entry, State

ASKING = {
    "accounts apply": "accounts apply {file} --prune",
    "dead drop": "dead drop --account nobody_asked",
    "forget": "forget email=f1@example.com --account shop",
    "redrive": "redrive --send",
    "replay": "replay --force --from 2026-01-01 --to 2026-01-02",
}
"""Commands with --json that ask on the local stack, each with a line that does. The others have tests of their own."""
ELSEWHERE = {"certify", "doctor", "deploy", "remove", "setup"}


def put(made: Delivery, *event_ids: str) -> None:
    """Have the worker take up rows, each as a span of its own."""
    for event_id in event_ids:
        made.put(envelope("shop", {"views": [row(event_id)]}, request_id=event_id))
        made.deliver(len(made.records()) - 1)


def test_every_command_that_asks_is_tested() -> None:
    """A new one needs its line."""
    options = {path: {one.name for one in command.params} for path, command in all_commands()}
    asking = {path for path, names in options.items() if {"yes", "as_json"} <= names}

    assert asking == ASKING.keys() | ELSEWHERE


@pytest.mark.xdist_group("ops")
@pytest.mark.parametrize("command", ASKING)
def test_json_never_means_yes(sluice: Sluice, tmp_path: Path, command: str) -> None:
    """Without an answer nothing is done, and the question is on standard error."""
    file = tmp_path / "accounts.yaml"
    file.write_text("shop: {database: elsewhere}")
    if command == "dead drop":
        sluice.produce("nobody_asked", "rows", "a")
        until(lambda: sluice.json("dead list --local --account nobody_asked") != [])
    with waiting(sluice):
        result = sluice.run(f"{ASKING[command].format(file=file)} --local --json")

    assert 1 == result.exit_code, result.stderr
    assert "[y/N]" in result.stderr
    assert "" == result.stdout.strip()
    assert "shop" == sluice.json("accounts show shop --local")["database"]
    assert "dead drop" != command or sluice.json("dead list --local --account nobody_asked")


@pytest.mark.parametrize(
    ("line", "state"),
    [
        ("dead drop --all", State.DROPPED),
        ("dead drop --account shop --reason http_422", State.DROPPED),
        ("redrive --kind dead", State.DEAD),
    ],
)
def test_what_arrives_meanwhile_is_left_alone(line: str, state: State) -> None:
    """Exactly the rows that were shown are dropped or sent, although others come into the same state before."""
    stack = FaultyStack()
    made = stack.made
    made.map(shop="shop_db")
    made.td.create("shop_db", "views")
    made.td.settings = replace(made.td.settings, rejects=lambda _: True)
    put(made, "a", "b")
    more = iter(["c", "d", "e"])

    def invoke(output: str, event: Any) -> Any:
        put(made, next(more))
        return FaultyStack.invoke(stack, output, event)

    stack.break_(invoke=invoke)
    before = made.dynamodb.calls.count("update_item")

    assert 2 == stack.json(f"{line} --yes")["selected"]
    assert made.dynamodb.calls.count("update_item") > before
    found = [(entry.state, entry.generation) for span in made.spans() for _, entry in span.all_leaves()]
    touched = (State.DROPPED, 0) if state is State.DROPPED else (State.DEAD, 1)
    assert [touched, touched, (State.DEAD, 0)] == found


@pytest.mark.parametrize("line", ["accounts apply {file}", "keys revoke shop k1", "accounts disable shop"])
def test_what_another_operator_changes_meanwhile_stays(tmp_path: Path, line: str) -> None:
    """The command was about the accounts as it has shown them, so it does nothing, and says to try again."""
    file, stack = tmp_path / "accounts.yaml", FaultyStack()
    file.write_text("news: {database: news_db}")
    stack.made.map(shop="shop_db")

    def invoke(output: str, event: Any) -> Any:
        if event["do"] in ("apply", "change"):
            stack.made.map(shop="right_db")
        return FaultyStack.invoke(stack, output, event)

    stack.break_(invoke=invoke)
    result = stack.run(f"{line.format(file=file)} --yes")

    said = "Error: Others have changed the accounts meanwhile. Try again\n"
    assert (1, said) == (result.exit_code, result.stderr)
    assert "right_db" == stack.made.redis.hget(KEYS.of("shop"), "database")


@pytest.mark.parametrize("line", ["dead drop", "redrive --kind dead"])
def test_each_option_narrows_the_selection(line: str) -> None:
    """Otherwise rows that nobody has named would be given up, or sent."""
    stack = FaultyStack()
    stack.made.put(envelope("stray", {"views": [row("a")]}))
    stack.made.put(envelope("nobody", {"carts": [row("b"), row("c")]}, request_id="b"))
    stack.made.deliver()
    options = ["account nobody", "table views", "reason http_422", "since 2999-01-01"]

    assert [2, 1, 0, 0] == [stack.json(f"{line} --dry-run --{one}")["selected"] for one in options]


def test_rows_that_wait_and_rejected_events_can_be_dropped() -> None:
    """Nobody may need them any more. Those of other states stay, and those that Treasure Data may have."""
    stack = FaultyStack()
    made = stack.made
    made.map(shop="shop_db", app="app_db")
    made.td.create("shop_db", "views")
    made.td.create("app_db", "views")
    made.fail(429, database="shop_db")
    rejected = RejectedEvent(0, "too_deep", "views", b"{}")
    sent = decode(envelope("shop", {"views": [row("a")]}))
    made.put(sent._replace(rejected=(rejected,)).encode())
    made.deliver()
    made.put(envelope("nobody", {"views": [row("b")]}, request_id="b"))
    made.deliver(-1)
    bad, good = "shop/views!too_deep/0", "shop/views/0"
    states = {bad: State.REJECTED, good: State.WAITING, "nobody/views/0": State.DEAD}
    assert 1 == stack.json("redrive --dry-run")["selected"]
    for kind, dropped in (("--rejected", bad), ("--waiting", good)):
        states[dropped] = State.DROPPED

        assert 1 == stack.json(f"dead drop --all {kind} --yes")["dropped"]
        assert states == {key.name: entry.state for span in made.spans() for key, entry in span.all_leaves()}
    made.fail(503, database="app_db")
    made.put(envelope("app", {"views": [row("c")]}, request_id="c"))
    made.deliver(-1)
    doubtful = stack.run("dead drop --all --waiting --yes")
    assert (3, True) == (doubtful.exit_code, "Treasure Data may have what is kept" in doubtful.stdout)


def test_dead_rows_are_shown_dropped_and_sent_again() -> None:
    """A drop asks first, and a dry run says that it is one. Once the account is mapped, a redrive delivers the others."""
    stack = FaultyStack()
    made = stack.made
    made.put(envelope("stray", {"stray_rows": [row("a")]}))
    made.put(envelope("nobody", {"dropped_rows": [row("b"), row("c")]}, request_id="b"))
    made.deliver()
    dead = "redrive --kind dead"
    shown, before = stack.run("status"), made.dynamodb.calls.count("update_item")
    dry = [f"{line} --dry-run" for line in ("dead drop --all", dead)]
    assert all("Dry run: nothing was changed." in stack.run(line).stdout for line in dry)
    assert all({"dry_run": True, "selected": 3}.items() <= stack.json(line).items() for line in dry)
    assert before == made.dynamodb.calls.count("update_item")
    kept, dropped = (stack.run("dead drop --account nobody", answer) for answer in "ny")
    again = stack.run(dead)
    in_json = stack.run(f"{dead} --json")
    assert (3, 1) == (in_json.exit_code, json.loads(in_json.stdout)["kept"])
    assert "There are no matching rows.\n" == stack.run("redrive").output  # dead ones are not meant
    made.map(stray="stray_db")
    made.clock.sleep(120)
    made.start()
    done = stack.json(f"{dead} --reason unknown_account --since 1h --account stray")

    assert shown.stdout.startswith("ATTENTION: 3 rows are dead (unknown_account).")
    assert ["stray", "unknown_account", "1"] in [line.split() for line in shown.stdout.splitlines()]
    assert "This gives up 2 rows" in kept.stderr
    assert "0 rows delivered, 0 kept, 0 newly dead, 2 dropped." == dropped.stdout.splitlines()[-1]
    assert "0 rows delivered, 1 kept, 0 newly dead." == again.stdout.splitlines()[-2]
    assert [3, 1, 0, 3] == [one.exit_code for one in (shown, kept, dropped, again)]
    nothing = dict.fromkeys(("kept", "dead", "dropped", "copies", "untried"), 0)
    assert {"selected": 1, "delivered": 1, "complete": True, **nothing} == done
    assert ["a"] == made.ids("stray_db", "stray_rows")
    settled = stack.run("status --all")
    assert (0, "HEALTHY: nothing is waiting.") == (settled.exit_code, settled.stdout.splitlines()[0])
    assert "dead  dropped  adds up" in settled.stdout
    tables = {one["table"]: one for one in stack.json("status --all")["balance"]["tables"]}
    assert {"dropped": 2, "adds_up": True}.items() <= tables["dropped_rows"].items()


def test_each_selected_row_counts_once() -> None:
    """Rows that somebody else settled in the meantime count as untried."""
    outcome = {"delivered": 2, "kept": 1, "dead": 0, "dropped": 0, "copies": 1, "complete": True}

    assert outcome | {"selected": 6, "untried": 2} == balanced(6, outcome)
    assert outcome | {"selected": 4, "untried": 0} == balanced(3, outcome)


def test_the_sender_runs_until_everything_is_tried_or_nothing_changes() -> None:
    """Each run selects again what the last one kept, so only the last count of kept rows matters. A refusal does not undo what was done."""
    nothing = dict.fromkeys(OUTCOMES, 0) | {"complete": False}
    runs = iter(nothing | one for one in ({"delivered": 2, "kept": 3}, {"dead": 1, "kept": 2}, {"kept": 2}))
    stack, told = FaultyStack(), list[int]()
    stack.break_(invoke=lambda *_: next(runs))

    assert nothing | {"delivered": 2, "dead": 1, "kept": 2} == send(stack, {"chunks": [[]]}, told.append)
    assert [2, 2, 2] == told
    runs = iter([nothing | {"dropped": 2}, {"error": "held", "message": "why"}])
    with pytest.raises(Failure, match="the sender does nothing now: why; `sluice doctor"):
        send(stack, {"chunks": [[]]}, told.append)


def test_dead_rows_in_doubt_can_be_sent_without_asking() -> None:
    """If the key may not query, and rows in doubt are kept for an operator, nothing else ends their doubt."""
    stack = FaultyStack()
    made = stack.made
    made.unaskable_doubt = "keep"
    made.map(shop="shop_db")
    put(made.start(), "a")
    [span] = made.spans()
    [key] = span.chunks
    in_doubt = Entry(State.DEAD, since=span.planned_at, reason="http_415")
    made.ledger.update(span.with_entries({key: in_doubt}))
    made.td.lose("shop_db", "views", 0, 4e9)
    made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.QUERY, status=403))
    made.clock.sleep(5000)

    line = "redrive --kind dead --yes"
    assert (1, 1) == (stack.json(line)["kept"], stack.json(f"{line} --send")["delivered"])
    assert ["a"] == made.ids("shop_db", "views")
