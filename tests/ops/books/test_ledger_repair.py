"""A ledger that was restored from a backup: nothing moves until it was compared with the bucket; then every row arrives once."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import msgpack
import pytest

from doubles.aws_errors import client_error
from doubles.treasure_data.fault import Action, Fault, Kind
from local.functions import WORKER
from ops.books.ledger_repair import LedgerRepair, is_restored
from shared.envelope import decode, marker
from shared.errors import HeldError, LedgerUnavailableError
from tests.support.delivery import (
    BUCKET,
    KEYS,
    TABLE,
    Delivery,
    KilledError,
    envelope,
    kill,
    lose_answer,
    once,
    row,
)
from tests.worker.test_rejected import AT, delivered, event, rejecting
from worker.bucket import Bucket
from worker.ledger import WRITTEN_IN
from worker.record import START
from worker.replacement import decoded
from worker.restored import CHECK_SECONDS
from worker.states import Decision, State

Step = Callable[[Delivery], object]


def put(*ids: str, account: str = "shop", claim: int = 0, request_id: str = "") -> Step:
    """Return a step that receives an envelope with these rows, and has the worker take it."""

    def step(made: Delivery) -> None:
        now = int(made.clock.now())
        rows = {"views": [row(one, now) for one in ids]}
        named = request_id or ids[0]
        made.put(envelope(account, rows, request_id=named, claim=claim, received_at=now * 1000))
        made.deliver(-1)

    return step


def interrupt(made: Delivery, act: Callable[[], object], call: str = "put_item") -> None:
    """Have a function killed between the put of a span's object and the call that appends the span."""
    made.dynamodb.before[call] = once(kill, lambda request: "g" in request.get("Item", "g"))
    with pytest.raises(KilledError):
        act()
    made.start()


def killed(made: Delivery) -> None:
    """Have a worker killed between the put of the object and the append; another one takes the record."""
    interrupt(made, lambda: put("g")(made))
    made.clock.sleep(60)
    made.deliver(-1)


def outage(made: Delivery) -> None:
    """Have rows wait while Treasure Data is away; they are delivered much later."""
    made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.IMPORT, status=503))
    put("c", "d")(made)
    made.td.faults.clear()
    made.clock.sleep(5000)
    made.start().send()


def unknown_at_first(made: Delivery) -> None:
    """Receive a row of an account that is added only later, when an operator has its dead rows sent."""
    put("e", account="late")(made)
    made.map(late="shop_db")
    made.clock.sleep(5000)
    made.start().send(State.DEAD)


def edit(made: Delivery, later: int = 1) -> None:
    """Have an operator edit the last dead chunk: its rows are so many seconds later."""
    span = max((one for one in made.spans() if State.DEAD in one.states()), key=lambda one: one.planned_at)
    *_, key = [key for key, entry in span.all_leaves() if entry.state is State.DEAD]
    rows = [one | {"time": one["time"] + later} for one in decoded(made.objects.payload(span, key))]
    made.sender_wiring.replacements.edit(span.place, key, b"".join(map(msgpack.packb, rows)))


def edited(made: Delivery) -> None:
    """Have an operator edit a dead row: the new one has a chain whose name follows from the chunk's."""
    made.map(edited="shop_db")
    made.fail(415)
    put("l", account="edited")(made)
    made.td.faults.clear()
    made.clock.sleep(5000)
    edit(made.start())
    made.send()


def passed_over(made: Delivery) -> None:
    """Have the event source pass a record over, which is recovered later: it is in a gap."""
    passed = envelope("shop", {"views": [row("h")]}, request_id="h")
    made.put(passed, marker(0).encode(), marker(0).encode())
    made.deliver(-2)  # a span without an object, before the one that the gap's name comes from
    put("i")(made)
    made.run(made.event(-4, -3) | {"replay": True})


HISTORY: dict[str, Step] = {
    "delivered": put("a", "b"),
    "waited": outage,
    "dead": unknown_at_first,
    "edited": edited,
    "claimed": put("f", claim=1, request_id="f"),
    "killed": killed,
    "gap": passed_over,
    "copy": put("f", claim=1, request_id="f"),
    "again": put("j", claim=1_700_000_000_000, request_id="j"),
    "more": put("k"),
}
IDS = sorted("abcdefghijkl")


def settle(made: Delivery) -> None:
    """Run the sender until nothing waits, as time passes; the worker takes its markers."""
    for _ in range(12):
        made.clock.sleep(900)
        made.invoke_sender({})
        made.deliver(-2)


def restored(backup: str) -> Delivery:
    """Return a delivery with a history, its ledger restored as it was at the end of a step, in the sandboxes that served before."""
    made, items = Delivery().map(shop="shop_db"), []
    for name, step in HISTORY.items():
        step(made)
        made.clock.sleep(10)
        if name == backup:
            items = list(made.dynamodb.items(TABLE))
    settle(made)
    made.clock.sleep(CHECK_SECONDS)
    made.dynamodb.restore(TABLE, items)
    return made


def repairs(made: Delivery) -> LedgerRepair:
    """Return what compares and repairs the ledger."""
    bucket = Bucket(made.s3, BUCKET)
    return LedgerRepair(made.ledger, made.objects, bucket, memory_seconds=made.memory, clock=made.clock)


def test_a_restored_ledger_holds_the_worker_and_the_sender() -> None:
    """Even instances that served before notice it, store and send nothing, and raise an alarm. A ledger that was lost is no new one."""
    made = restored("delivered")
    spans, imports = len(made.spans()), len(made.ids("shop_db", "views"))
    put("new")(made)
    said = made.invoke_sender({})
    lost = restored("nothing")
    lost.start()
    put("new")(lost)

    assert {"error": "held", "message": HeldError.RESTORED_LEDGER} == said
    assert (spans, imports) == (len(made.spans()), len(made.ids("shop_db", "views")))
    assert 2 == made.telemetry.counts["LedgerRestored"]
    assert is_restored(made.ledger, made.objects)
    assert [] == lost.spans()


def test_a_new_stack_begins_with_an_empty_ledger() -> None:
    """Its items say which table they were written in. An instance that knows it goes on for a while if DynamoDB does not say; a new one waits."""
    made = Delivery().map(shop="shop_db")
    put("a")(made)
    assert (["a"], False) == (made.ids("shop_db", "views"), is_restored(made.ledger, made.objects))
    assert made.ledger.noted(WRITTEN_IN)
    made.clock.sleep(CHECK_SECONDS)
    made.dynamodb.before["describe_table"] = lambda _: lose_answer()
    put("b")(made)
    assert ["a", "b"] == made.ids("shop_db", "views")
    made.clock.sleep(2 * CHECK_SECONDS)
    put("c")(made)
    made.start()
    put("d")(made)
    assert ["a", "b"] == made.ids("shop_db", "views")


def test_a_gap_stays_one_although_no_object_shows_what_followed_it() -> None:
    """Like the end of a closed shard's chain. A repair that follows an interrupted one no longer looks at the objects of old hours."""
    made = Delivery().map(shop="shop_db")
    put("a")(made)
    items = list(made.dynamodb.items(TABLE))
    for one in "bcd":
        made.put(envelope("shop", {"views": [row(one)]}, request_id=one))
    batch = made.event(-3)["Records"]
    made.split()
    made.ledger.close(chain := made.spans()[0].chain)
    for some in ({"Records": batch[:1]}, {"Records": batch[1:2]}):
        made.run(some)
    made.clock.sleep(3 * 3600)
    made.put(envelope("shop", {"views": [row("e")]}, received_at=int(made.clock.now()) * 1000))
    made.deliver_all([name for name in made.by_shard() if name != chain.shard])
    made.clock.sleep(CHECK_SECONDS)
    made.dynamodb.restore(TABLE, items)
    made.dynamodb.before["put_item"] = once(kill, lambda request: request["Item"]["pk"]["S"] == chain.name)
    with pytest.raises(KilledError):
        repairs(made).repair()
    repairs(made).repair()
    made.start().run({"Records": batch})
    settle(made)

    assert ["a", "b", "c", "d", "e"] == sorted(made.ids("shop_db", "views"))
    assert 2 == sum(span.chain.gaps != () for span in made.spans())


@pytest.mark.parametrize("kills", [0, 1])
@pytest.mark.parametrize("status", [0, 503])
@pytest.mark.parametrize(
    ("stream", "steps"),
    [
        ("a-b_c", "run a | run -, run _, run c, replay b"),  # no object shows where the gap begins
        ("a-b", "run a | run -, close, run b"),
        ("abcde", "run a | kill b, run cde"),  # passed over
        ("abcde", "run a | kill b, run ce, run d"),
        ("abcdef", "run a | kill b, kill bc, run cde, run f"),
        ("abc", "run a | hour, kill b, run bc"),  # the next object has a later hour
        ("ab-c", "run a | run b, run -, late run c"),  # the instance does not know the latest spans
        ("abB", "run a | run b, late run B"),  # nor that there is another copy
        ("abB", "run a, run b | late run B"),
        ("abdcB", "run a | kill bd, run c, run B"),  # the claim is taken over
        ("ab-c", "run a | kill b-, run c, replay -, replay b"),  # a gap in a gap whose span has no object
        ("abcd-", "run a | kill bcd, run b, run -, replay c"),  # the gap shows where a span ended
        ("abcd", "run a | kill bcd, run bd, replay c"),  # and what it lacks
        ("a-b_c", "run a | run -_, run c, replay b"),  # that may have no object
        ("abcdef", "run a | run f, kill replay de, replay bcd"),
    ],
)
def test_what_no_other_object_denies_counts(stream: str, steps: str, status: int, kills: int) -> None:
    """Workers are killed between put and append, or know only the first span; records are passed over, and replayed. The backup is made at `|`.

    Of two envelopes with the same letter, the second is a copy, received later; `-` and `_` are markers. A span of at most two of these has no object.
    """
    made = Delivery().map(shop="shop_db")
    for one in stream:
        claim, at = stream.lower().count(one.lower()) - 1, 1_700_000_000 + one.isupper()
        data = envelope("shop", {"views": [row(one.lower(), at)]}, request_id=one.lower(), claim=claim)
        made.put(data if one.isalpha() else marker(0).encode())
    records = dict(zip(stream, made.event()["Records"], strict=True))
    late = made.worker
    if status:
        made.fail(status)

    def act(some: str) -> None:
        for *how, what in map(str.split, some.split(", ")):
            batch = {"Records": [records[one] for one in what if one in records]}
            batch |= {"replay": True} if "replay" in how else {}
            if what == "hour":
                made.clock.sleep(3530 - made.clock.now() % 3600)  # and 60
            elif what == "close":
                made.ledger.close(made.spans()[0].chain)
            elif "kill" in how:
                call = "transact_write_items" if "replay" in how else "put_item"
                interrupt(made, partial(made.run, batch), call)
            else:
                (late if "late" in how else made.worker).run(batch, made.deadline())
            made.clock.sleep(60)
            made.worker = made.wiring_of(WORKER).worker

    before, after = steps.split(" | ")
    act(before)
    since_backup(made, lambda: [act(after), made.td.faults.clear()], kills=kills)

    ids = sorted({one for one in stream if one.islower()})
    leaves = [(span, *leaf) for span in made.spans() for leaf in span.all_leaves()]
    counted = sum(span.rows(key) for span, key, entry in leaves if entry.state is not State.COPY)
    assert (ids, len(ids)) == (sorted(made.ids("shop_db", "views")), counted)


def test_a_span_stays_in_whose_place_another_one_is_taken_up() -> None:
    """A killed worker had planned what was passed over before it. The place names the span's new rows."""
    made = Delivery().map(shop="shop_db")
    put("a")(made)

    def pass_over() -> None:
        interrupt(made, lambda: put("b")(made))
        made.fail(415, count=1)
        made.clock.sleep(60)
        put("c")(made)
        made.clock.sleep(60)
        edit(made)

    since_backup(made, pass_over)

    assert ["a", "b", "c"] == sorted(made.ids("shop_db", "views"))


def test_a_backup_may_lack_the_first_span_of_a_chain_which_has_no_object() -> None:
    """Without one, a replay would find the whole chain in no span."""
    made = Delivery().map(shop="shop_db")
    made.deliver_each(marker(0).encode())
    put("a")(made)
    since_backup(made, lambda: put("b")(made), lacks=START)

    assert ["a", "b"] == made.ids("shop_db", "views")


def test_a_backup_may_lack_a_span_between_others_and_the_note_of_their_chain() -> None:
    """Its items may be seconds apart: what the chain really had is taken up, once S3 answers, and the last spans' claims are made again."""
    made = Delivery().map(shop="shop_db")
    put("a")(made)
    made.put(*(envelope("shop", {"views": [row(one)]}, claim=1, request_id=one) for one in "bc"))
    interrupt(made, lambda: made.deliver(-2))
    made.deliver(-2, -1)
    made.deliver(-1)
    [_, lacked, last] = made.spans()
    items = made.dynamodb.items(TABLE)
    made.dynamodb.restore(TABLE, [one for one in items if one["sk"]["S"] in ("000", last.after)])
    made.s3.before["get_object"] = lambda _: lose_answer()
    repairs(made).repair()
    made.s3.before.clear()
    assert 2 == repairs(made).unknown()
    counts = repairs(made).repair()
    put("c", claim=1, request_id="c")(made.start())
    made.run(made.event() | {"replay": True})
    settle(made)

    assert (1, 1) == (counts["spans"], counts["aside"])
    assert [lacked.after] == [one.after for one in made.spans()][1:2]
    assert ["a", "b", "c"] == made.ids("shop_db", "views")


def test_a_restored_ledger_is_noticed_although_the_clock_was_set_back() -> None:
    """The clock of a function may have been wrong by an hour."""
    made = Delivery()
    made.wiring.guard.check()
    made.ledger.note(WRITTEN_IN, "another")
    made.clock.time -= 3600

    with pytest.raises(HeldError):
        made.wiring.guard.check()


def missing(request: dict[str, Any]) -> None:
    """Answer that there is no such table, or object."""
    code = "NoSuchKey" if "Bucket" in request else "ResourceNotFoundException"
    raise client_error(code, "Get", "Requested resource not found")


@pytest.mark.parametrize(
    ("first", "then", "seconds"),
    [
        ({"describe_table": lambda _: lose_answer()}, {}, 5),
        ({"get_item": lambda _: lose_answer()}, {}, 5),
        ({"describe_table": missing, "get_item": missing}, {}, 0),
        ({}, {"get_item": lambda _: lose_answer()}, CHECK_SECONDS),
    ],
)
def test_a_restored_ledger_is_noticed_although_dynamodb_is_away_at_first(
    first: dict[str, Any], then: dict[str, Any], seconds: float
) -> None:
    """While it is being restored, there is no table, or nothing says which one it is."""
    made = Delivery()
    made.wiring.guard.check()
    items = list(made.dynamodb.items(TABLE))
    made.clock.sleep(CHECK_SECONDS)
    made.dynamodb.before |= first
    with suppress(LedgerUnavailableError):
        made.wiring.guard.check()
    made.dynamodb.before = {}
    made.dynamodb.restore(TABLE, items)
    made.clock.sleep(seconds)
    made.dynamodb.before |= then
    with pytest.raises(LedgerUnavailableError if then else HeldError):
        made.wiring.guard.check()


@pytest.mark.parametrize("backup", ["nothing", *HISTORY])
def test_after_a_repair_each_row_is_in_treasure_data_once(backup: str) -> None:
    """Whenever the backup was made, and although the whole stream is replayed: nothing is lost, nothing is sent twice."""
    made = restored(backup)
    assert IDS == sorted(made.ids("shop_db", "views"))
    put("new")(made)

    repairs(made).repair()
    made.deliver(-1)
    made.run(made.event() | {"replay": True})
    settle(made)
    made.send(State.DEAD)

    assert sorted([*IDS, "new"]) == sorted(made.ids("shop_db", "views"))
    assert {} == made.chunks(State.WAITING, State.AGAIN, State.DEAD)
    assert ["edited/views/0"] == [*made.chunks(State.REPLACED)]


@pytest.mark.parametrize("rows", [5, 1000])
@pytest.mark.parametrize("dead", [{"0", "2"}, {"2"}], ids=["first and third", "third"])
@pytest.mark.parametrize("kind", ["unknown", "again", "being sent"])
def test_a_chunk_that_was_delivered_in_parts_waits(rows: int, dead: set[str], kind: str) -> None:
    """The ledger knows nothing of it, or that it was put again or is being sent. Some rows are in Treasure Data: an operator decides."""
    made = Delivery().map(shop="shop_db")
    put("first")(made)
    items = list(made.dynamodb.items(TABLE))
    made.td.settings = replace(made.td.settings, rejects=lambda row: row["event_id"] in dead)
    being_sent: list[dict[str, Any]] = []
    made.dynamodb.before["update_item"] = once(lambda: being_sent.extend(made.dynamodb.items(TABLE)))
    put(*map(str, range(rows)), claim=int(made.clock.now() * 1000) if kind == "again" else 0)(made)
    if kind == "again":
        items = list(made.dynamodb.items(TABLE))
        settle(made)
    elif kind == "being sent":
        items = being_sent
    made.clock.sleep(200)
    made.send()
    delivered = made.ids("shop_db", "views")
    assert rows + 1 - len(dead) == len(delivered)
    made.dynamodb.restore(TABLE, items)
    made.start()
    repairs(made).repair()
    settle(made)

    assert delivered == made.ids("shop_db", "views")
    assert {("waiting", "ledger_restored", rows)} == set(made.chunks(State.WAITING).values())


@pytest.mark.parametrize(("is_taken_over", "is_hidden"), [(False, False), (True, False), (False, True)])
def test_the_claims_of_the_last_spans_are_made_again(is_taken_over: bool, is_hidden: bool) -> None:
    """A backup's items need not be of one moment: it may have a span without its claims, or with the claims that its append took over. An object that S3 lists is not gone."""
    made = Delivery().map(shop="shop_db")
    made.put(*[envelope("shop", {"views": [row("a")]}, request_id="r", claim=1)] * 2)
    interrupt(made, lambda: made.deliver(-2, -1))
    items = [item for item in made.dynamodb.items(TABLE) if is_taken_over]
    made.deliver(-1)
    items += [item for item in made.dynamodb.items(TABLE) if not item["pk"]["S"].startswith("put#")]
    made.dynamodb.restore(TABLE, items)
    made.start()
    made.s3.before = {"get_object": missing} if is_hidden else {}
    (first := repairs(made)).repair()
    assert 2 * is_hidden == len(first.unreadable)
    made.s3.before.clear()
    repairs(made).repair()
    made.run(made.event() | {"replay": True})

    assert ["a"] == made.ids("shop_db", "views")


@pytest.mark.parametrize("status", [429, 500, 415])
@pytest.mark.parametrize("backup", range(3))
def test_rows_that_were_sent_to_their_account_s_new_database_are_found(status: int, backup: int) -> None:
    """They waited, were in doubt or dead, and the ledger names the database that they were planned for."""
    made = Delivery().map(shop="old_db")
    made.td.create("old_db", "views")

    def plan() -> None:
        made.fail(status)
        put("a")(made)
        made.td.faults.clear()
        made.clock.sleep(5000)

    steps = [plan, lambda: made.map(shop="shop_db"), lambda: made.start().send(State.WAITING, State.DEAD)]
    for step in steps[:backup]:
        step()
    since_backup(made, lambda: [step() for step in steps[backup:]])
    made.send(State.DEAD)

    assert (["a"], [], {}) == (made.ids("shop_db", "views"), made.ids("old_db", "views"), made.chunks())


@pytest.mark.parametrize("is_forgotten", [False, True])
def test_rows_that_were_sent_count_for_the_database_in_which_they_are(is_forgotten: bool) -> None:
    """They had none when they were planned, because it had failed. Since the backup they were sent, or forgetting put others in their place."""
    made = Delivery().map(shop="shop_db")
    made.fail(503)
    put("a")(made)
    put("b", "c")(made)
    made.td.faults.clear()
    send = [lambda: made.clock.sleep(7200), lambda: made.start().send(), lambda: made.clock.sleep(7200)]
    steps = [lambda: [step() for step in send], lambda: forget(made, "event_id", "c")]
    if is_forgotten:
        steps.pop(0)()
    since_backup(made, steps[0])

    assert ["a", "b", "c"][: 3 - is_forgotten] == sorted(made.ids("shop_db", "views"))
    assert {"shop_db"} == {span.database(key) for span in made.spans() for key in span.chunks}


def test_a_comparison_counts_what_the_ledger_does_not_know_until_a_repair_ends() -> None:
    """It changes nothing. A repair that was interrupted keeps what it has taken up, and lets the stack go only at its end."""
    made = restored("delivered")
    found = repairs(made).unknown()
    assert (11, 1) == (found, len([one for one in made.spans() if one.chunks]))
    made.dynamodb.before["put_item"] = once(kill, lambda request: "edit#" in request["Item"]["pk"]["S"])
    with pytest.raises(KilledError):
        repairs(made).repair()
    assert is_restored(made.ledger, made.objects)
    repairs(made).repair()
    assert (0, False) == (repairs(made).unknown(), is_restored(made.ledger, made.objects))
    settle(made)

    assert IDS == sorted(made.ids("shop_db", "views"))


def damage(made: Delivery, name: str, at: int) -> bytes:
    """Change a byte of an object; return what it held."""
    changed = bytearray(body := bytes(made.s3.objects(BUCKET)[name].body))
    changed[at] ^= 1
    made.s3.put_object(Bucket=BUCKET, Key=name, Body=bytes(changed))
    return body


@pytest.mark.parametrize("is_restored_too", [False, True])
def test_unreadable_objects_hold_the_stack_until_each_is_restored_or_moved(is_restored_too: bool) -> None:
    """All are named at once. What Treasure Data had of them stays there, and everything else arrives once."""
    made = restored("delivered")
    names = [made.span_objects()[n] for n in (1, 5, -1)]
    bodies = [damage(made, name, -1) for name in names]
    repair = repairs(made)
    repair.repair()
    assert (set(names), True) == (set(repair.unreadable), is_restored(made.ledger, made.objects))
    for name, body in zip(names, bodies, strict=True):
        made.s3.delete_object(Bucket=BUCKET, Key=name)
        if is_restored_too:
            made.s3.put_object(Bucket=BUCKET, Key=name, Body=body)
    repairs(made).repair()
    settle(made)
    made.send(State.DEAD)

    assert (11 if is_restored_too else 8) == sum(span.object is not None for span in made.spans())
    assert not is_restored(made.ledger, made.objects)
    assert IDS == sorted(made.ids("shop_db", "views"))
    assert {} == made.chunks(State.WAITING, State.AGAIN, State.DEAD)


def test_a_span_with_damaged_rows_is_taken_up_and_only_these_wait() -> None:
    """Its index can be read."""
    made = restored("nothing")
    body = damage(made, name := made.span_objects()[0], 20)
    repairs(made).repair()
    settle(made)
    assert {"shop/views/0": ("waiting", "ledger_restored", 2)} == made.chunks(State.WAITING)
    made.s3.put_object(Bucket=BUCKET, Key=name, Body=body)
    made.start()
    settle(made)

    assert {} == made.chunks(State.WAITING)
    assert IDS == sorted(made.ids("shop_db", "views"))


def since_backup(made: Delivery, act: Callable[[], object], lacks: str = "", kills: int = 0) -> None:
    """Restore what the ledger has before something happens, long after that, repair it, replay the stream, and settle it."""
    items = [one for one in made.dynamodb.items(TABLE) if one["sk"]["S"] != lacks]
    act()
    made.clock.sleep(5000)
    made.dynamodb.restore(TABLE, items)
    for _ in range(kills):
        made.dynamodb.after["put_item"] = once(kill, lambda request: "g" in request["Item"])
        with suppress(KilledError):
            repairs(made).repair()
        made.dynamodb.after.clear()
    repairs(made).repair()
    made.clock.time -= 15  # the sender's clock, by which no doubt may seem young again
    made.start().invoke_sender({})
    made.run(made.event() | {"replay": True})
    settle(made)


def delivered_and_dead(made: Delivery) -> None:
    """Have a span with a rejected event delivered, and sent again by a forced replay; of its two tables, the second one's rows are dead then."""
    rows = {"views": [row("a")], "carts": [row("b", email="p"), row("c", email="q")]}
    made.map(shop="shop_db")
    made.put(decode(envelope("shop", rows, request_id="r"))._replace(rejected=(event(),)).encode())
    made.deliver()
    [span] = made.spans()
    made.fail(415, table="carts")
    made.invoke_sender({"force": {"tag": "t", "places": [[span.chain.name, span.after]]}})
    made.send()
    made.td.faults.clear()


def test_what_was_swept_since_the_backup_is_neither_dead_nor_lost() -> None:
    """Rows that have left their object were final, also of a span that the backup lacks. What is left is found in its new object."""
    made = Delivery(archive_days=2)
    delivered_and_dead(made)

    def sweep() -> None:
        put("d")(made)
        for _ in range(4):
            made.clock.sleep(86_400)
            made.invoke_sender({"sweep": True})

    since_backup(made, sweep)
    dead = made.chunks(State.WAITING, State.DEAD)
    made.send(State.DEAD)

    assert {"shop/carts/0": ("dead", "http_415", 2)} == dead
    assert {} == made.chunks(State.WAITING, State.DEAD)
    assert {"shop/views!too_deep/0": ("rejected", "", 1)} == made.chunks(State.REJECTED)
    assert ["a", "a", "d"] == made.ids("shop_db", "views")


def forget(made: Delivery, column: str, value: str) -> None:
    """Forget a person of the account `shop`."""
    made.invoke_sender({"forget": {"do": "note", "account": "shop", "column": column, "values": [value]}})
    made.invoke_sender({"forget": {"do": "forget", "prefix": "spans/", "after": ""}})


@pytest.mark.parametrize("is_swept", [False, True])
@pytest.mark.parametrize("is_known", [False, True])
def test_what_forgetting_left_of_a_chunk_is_sent_after_a_repair(is_known: bool, is_swept: bool) -> None:
    """It is in a new object, in a chunk that the backup does not know; the old one is deleted. The person's rows stay forgotten."""
    made = Delivery(archive_days=2).map(shop="shop_db")

    def refuse() -> None:
        made.fail(415)
        made.put(envelope("shop", {"views": [row("a", email="p"), row("b", email="q")]}))
        made.deliver()
        made.td.faults.clear()

    def sweep() -> None:
        made.send(State.DEAD)
        for _ in range(4):
            made.clock.sleep(86_400)
            made.invoke_sender({"sweep": True})

    if is_known:
        refuse()
    steps = [refuse, lambda: forget(made, "email", "p"), sweep][is_known : 2 + is_swept]
    since_backup(made, lambda: [step() for step in steps])

    assert ["b"] == made.ids("shop_db", "views")
    assert {"shop/views/3": ("forgotten", "", 1)} == made.chunks()


def test_rows_in_doubt_of_an_account_that_is_gone_die_and_can_be_dropped() -> None:
    """They have no database to ask for them, and never had one in the backup."""
    made = Delivery()
    put("a", account="gone")(made)
    made.redis.flushall()
    put("b", account="gone")(made.start())
    made.redis.hset(KEYS.sentinel, mapping={"at": "now", "count": "0"})
    since_backup(made, lambda: None)
    found = sorted(made.chunks().values())
    dropped = made.send(State.DEAD, decision=Decision.DROP).dropped

    assert ([("dead", "unknown_account", 1)] * 2, 2) == (found, dropped)


def test_an_edited_half_counts_once_after_a_repair() -> None:
    """The ledger knows neither its chunk nor that this was split. The other half is found in Treasure Data."""
    made = Delivery().map(shop="shop_db")

    def edit_half() -> None:
        made.td.settings = replace(made.td.settings, rejects=lambda one: one["event_id"] == "b")
        put("a", "b")(made)
        made.clock.sleep(60)
        made.send()
        made.td.settings = replace(made.td.settings, rejects=lambda _: False)
        edit(made)
        made.send()

    since_backup(made, edit_half)

    assert {"shop/views/0.1": ("replaced", "", 1)} == made.chunks()
    assert ["a", "b"] == made.ids("shop_db", "views")


def refused(*ids: str) -> Delivery:
    """Return a delivery of a chunk that Treasure Data has refused."""
    made = Delivery().map(shop="shop_db")
    made.fail(415)
    put(*ids)(made)
    made.td.faults.clear()
    return made


@pytest.mark.parametrize("is_known", [False, True])
def test_of_an_edit_of_a_chunk_and_one_of_its_half_one_counts_after_a_repair(is_known: bool) -> None:
    """The first never took effect, but only a ledger that knows of the half says so: else it counts for all of the chunk."""
    made = refused("a", "b")

    def halve() -> None:
        interrupt(made, lambda: edit(made, later=0), "transact_write_items")
        made.td.settings = replace(made.td.settings, rejects=lambda _: True)
        made.clock.sleep(60)
        made.send(State.DEAD)
        made.send()
        made.td.settings = replace(made.td.settings, rejects=lambda _: False)

    steps = [halve, lambda: edit(made, later=0)]
    if is_known:
        steps.pop(0)()
    since_backup(made, lambda: [step() for step in steps])
    made.send(State.DEAD)

    assert ["a", "b"] == sorted(made.ids("shop_db", "views"))


def test_an_edit_that_never_took_effect_is_left_aside_if_the_old_rows_were_sent() -> None:
    """Its object was put, and the function killed; the ledger that was restored knows what was sent instead."""
    made = refused("a")
    interrupt(made, lambda: edit(made), "transact_write_items")
    made.send(State.DEAD)
    since_backup(made, lambda: None)

    assert (["a"], {}) == (made.ids("shop_db", "views"), made.chunks())


def test_a_repair_of_rejected_events_that_never_took_effect_is_left_aside_if_they_were_dropped() -> None:
    """No span object has them, so whether it has lost them says nothing."""
    made = delivered(rejecting(event(), rows=1))
    [span] = made.spans()
    [key] = [key for key in span.chunks if key.group.is_rejected]
    repair, event_again = made.sender_wiring.replacements.repair, (AT, '{"table":"views"}')
    interrupt(made, lambda: repair(span.place, key, [event_again]), "transact_write_items")
    made.send(State.REJECTED, decision=Decision.DROP)
    since_backup(made, lambda: None)

    assert (["e0"], {key.name: ("dropped", "", 1)}) == (made.ids("shop_db", "views"), made.chunks())


def test_edited_rows_of_a_forced_replay_count_apart_before_and_after_a_repair() -> None:
    """Their object says of which rows they are and when these were received. Rows that are edited again are replaced, too."""
    made = Delivery()
    delivered_and_dead(made)
    received = {span.received_at for span in made.spans()}

    def originals() -> list[bool]:
        return [span.chain.is_of_stream for span in made.spans() if not span.is_forced]

    def edit_twice() -> None:
        made.fail(415, table="carts")
        for _ in range(2):
            made.clock.sleep(60)
            edit(made)
            made.send()
        made.td.faults.clear()
        assert (4, [True]) == (len(made.spans()), originals())

    since_backup(made, edit_twice)

    assert [True] == originals()
    assert (4, 2) == (len(made.spans()), sum(State.REPLACED in span.states() for span in made.spans()))
    assert received == {span.received_at for span in made.spans()}


def test_dead_rows_of_a_swept_object_are_taken_up_before_what_followed_them() -> None:
    """The sweep gave it a later hour than that of its successor, of which it needs all. The ledger was lost."""
    made = Delivery(archive_days=2).map(shop="shop_db")
    made.fail(415, table="carts")
    made.put(envelope("shop", {"views": [row("a")], "carts": [row("b")]}, request_id="a"))
    made.deliver()
    made.put(envelope("shop", {"carts": [row("c")]}, request_id="c"))
    made.deliver(-1)
    made.td.faults.clear()
    made.clock.sleep(3 * 86_400)
    made.invoke_sender({"sweep": True})
    made.clock.sleep(2 * 86_400)
    made.invoke_sender({"sweep": True})
    made.dynamodb.restore(TABLE, [])
    repairs(made).repair()
    made.start()
    settle(made)
    made.send(State.DEAD)

    assert (["a"], ["b", "c"]) == (made.ids("shop_db", "views"), sorted(made.ids("shop_db", "carts")))
