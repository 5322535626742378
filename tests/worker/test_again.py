"""Envelopes that were put again: they count if no first copy does, which is known once every shard has passed."""

from collections.abc import Callable, Iterator
from copy import replace
from queue import Queue
from threading import Thread
from typing import Any
from unittest.mock import Mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.accounts import Account
from shared.envelope import marker
from tests.support import delivery as support
from tests.support.delivery import BUCKET, SHARD, STREAM, Delivery, envelope, lose_answer, once, row
from worker.again import TOGETHER_SECONDS, Times
from worker.chain import ChainId
from worker.claims import LATE_SECONDS
from worker.ledger import Ledger
from worker.passing import CLOCK_SECONDS, MARGIN_SECONDS
from worker.span import ChunkKey, Span, milliseconds
from worker.states import USUAL_AGAIN_SECONDS, Decision, Entry, Event, State

AT = 1_700_000_000
PASSED = LATE_SECONDS + MARGIN_SECONDS
AGAIN = ChunkKey.parse("shop:k1/views~q/0")


def first(name: str = "q", claim: int = 0, at: float = AT) -> bytes:
    """Return a first copy of an envelope that was received at a time."""
    tables, at_ms = {"views": [row(name)]}, round(at * 1000)
    return envelope("shop", tables, request_id=name, claim=claim, received_at=at_ms)


def again(name: str = "q", at: float = AT) -> bytes:
    """Return the copy that the drainer put."""
    return first(name, round(at * 1000), at)


def delivery(*data: bytes, shards: int = 1) -> Delivery:
    """Return a delivery of some records."""
    made = support.shops()
    if shards > 1:
        made.kinesis.delete_stream(StreamName=STREAM)
        made.kinesis.create_stream(StreamName=STREAM, ShardCount=shards)
    put(made, *data)
    return made


def put(made: Delivery, *data: bytes) -> None:
    """Put records and deliver everything."""
    made.put(*data)
    assert made.deliver_all() == []


def wait(made: Delivery, seconds: float = PASSED + 1, rounds: int = 1) -> None:
    """Let time pass; the sender puts markers, which are delivered, and decides."""
    made.clock.sleep(seconds)
    for _ in range(rounds):
        made.send()
        made.deliver_all()
    made.send()


def test_rows_that_were_put_again_wait_until_every_shard_has_passed() -> None:
    """A first copy could still come without a claim. They never hold the stream. A span of markers has no index, and no copy."""
    made = delivery(marker(0).encode())
    put(made, again())
    assert {"shop:k1/views~q/0": ("again", "", 1)} == made.chunks()
    wait(made, PASSED)
    assert {"shop:k1/views~q/0": ("again", "", 1)} == made.chunks()
    wait(made, 1)

    assert ["q"] == made.ids("shop_db", "views")


def test_envelopes_that_are_decided_together_wait_for_the_last() -> None:
    """A first copy of it could still come without a claim."""
    made = delivery(again("a"))
    made.clock.sleep(TOGETHER_SECONDS)
    put(made, again("b", made.clock.now()))
    wait(made, PASSED + 1 - TOGETHER_SECONDS)
    assert [] == made.ids("shop_db", "views")
    wait(made, TOGETHER_SECONDS)

    assert ["a", "b"] == sorted(made.ids("shop_db", "views"))


@pytest.mark.parametrize(("ahead", "queued"), [(CLOCK_SECONDS + MARGIN_SECONDS, 3600), (3600, 1)])
def test_a_first_copy_may_arrive_before_its_receipt(ahead: int, queued: int) -> None:
    """The ingest's clock may be ahead, and arrival times run back a little. The queue's clock says when the first put had ended."""
    made = delivery(first(at=AT + ahead))
    put(made, again("other"), first("q", (AT + queued) * 1000, AT + ahead), first("q", 1, AT + ahead))
    times = Times((AT + ahead) * 1000, (AT + queued) * 1000)
    assert times == made.sender_wiring.again.times(made.spans()[-1], "q")
    wait(made, ahead + PASSED + 1)

    assert ["q", "other"] == made.ids("shop_db", "views")
    assert {("copy", "", 1)} == set(made.chunks().values())


def test_rows_of_a_disabled_account_are_a_copy_too() -> None:
    """An operator who enables the account and sends what is dead sends each row once."""
    made = delivery()
    made.map(shop=Account("shop_db", "disabled"))
    put(made, first(), again(), again("alone"))
    wait(made)
    assert "copy" == made.chunks()["shop:k1/views~q/0"][0]
    made.map(shop="shop_db")
    made.start().send(State.DEAD)

    assert ["alone", "q"] == sorted(made.ids("shop_db", "views"))


class Counted(Ledger):
    """Counts the spans that are read from the ends of chains back."""

    read = 0

    def latest(self, *args: Any) -> Iterator[Span]:
        """Yield a chain's spans, the latest first."""
        for span in super().latest(*args):
            Counted.read += 1
            yield span


def hourly(made: Delivery, hours: int) -> None:
    """Deliver an envelope each hour."""
    for n in range(hours):
        made.clock.sleep(3600)
        made.deliver_each(first(f"h{n}", at=made.clock.now()))


def test_a_first_copy_of_long_ago_is_found_without_a_look_at_all_spans_since() -> None:
    """A shard may get a million spans meanwhile. Envelopes received days apart are decided one after the other."""
    made = support.shops(replaced={Ledger: Counted})
    hourly(made, 50)
    old = made.clock.now()
    made.deliver_each(first(at=old))
    hourly(made, 300)
    made.put(again(at=old), again("new", made.clock.now()))
    assert made.deliver(-2) is None
    made.clock.sleep(PASSED + 1)
    made.deliver_each(first("later"))
    Counted.read = 0
    made.s3.calls.clear()
    while "again" in {state for state, *_ in made.chunks().values()}:
        made.clock.sleep(60)
        made.send()

    assert {"shop:k1/views~q/0": ("copy", "", 1)} == made.chunks()
    assert "new" in made.ids("shop_db", "views")
    assert Counted.read < 20
    assert made.s3.calls.count("get_object") < 20


def busy(*names: str) -> Delivery:
    """Return a delivery with many spans, then envelopes that were put again, each in a span of its own; the shard has passed."""
    made = delivery()
    made.deliver_each(*(first("a" if n == 3 else f"other{n}") for n in range(80)))
    made.deliver_each(*map(again, names))
    made.clock.sleep(PASSED + 1)
    made.deliver_each(first("later"))
    made.start()
    made.s3.calls.clear()
    return made


def test_copies_of_all_envelopes_are_looked_for_at_once() -> None:
    """After a minute without Kinesis, thousands of spans have some, and each would read the indexes of a quarter of an hour."""
    made = busy(*"abcdefghij")
    assert (9, 1) == ((report := made.send()).delivered, report.copies)
    assert made.s3.calls.count("get_object") < 120


def test_many_envelopes_are_looked_for_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A later run looks for the others: tens of thousands do not fit into memory."""
    made = busy(*"abcde")
    monkeypatch.setattr("worker.inquiry._MOST_NOTED", 2)

    reports = [made.send() for _ in range(3)]
    assert [(3, False), (1, False), (0, True)] == [(one.kept, one.complete) for one in reports]


@pytest.mark.parametrize(
    ("service", "call", "chains", "seconds"), [("s3", "get_object", 0, 30), ("dynamodb", "query", 60, 45)]
)
def test_a_look_without_time_goes_on_later(service: str, call: str, chains: int, seconds: float) -> None:
    """Ten busy shards have more indexes of a quarter of an hour, and a stream that is resharded daily more chains, than a run can read."""
    made = busy("a", "b")
    for n in range(chains):
        made.ledger.note_chain(ChainId(STREAM, str(n), SHARD))
    getattr(made, service).before[call] = lambda _: made.clock.sleep(1)
    runs = 0
    while "again" in {state for state, *_ in made.chunks().values()}:
        deadline = made.deadline().within(seconds)
        made.sender_wiring.sender.run(deadline)
        assert made.clock.now() < deadline.at + 20
        runs += 1

    assert 2 <= runs <= 5
    assert {"shop:k1/views~a/0": ("copy", "", 1)} == made.chunks()
    assert ["a", "b"] == sorted(one for one in made.ids("shop_db", "views") if len(one) == 1)


def test_a_look_for_another_envelope_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was looked at may have a copy of it. One for the same envelope does not read that again."""
    monkeypatch.setattr("worker.span_object._MOST_INDEXES", 1)
    made, at = busy("b"), Times(AT * 1000, AT * 1000)
    made.s3.before["get_object"] = lambda _: made.clock.sleep(1)
    for name, event in (("b", Event.NO_COPY), ("other79", Event.COPY_COUNTS)):
        made.s3.calls.clear()
        assert {} == made.sender_wiring.again.decide({"b": at}, made.deadline().within(30))[0]
        assert {name: event} == made.sender_wiring.again.decide({name: at}, made.deadline())[0]
        assert (made.s3.calls.count("get_object") < 100) == (name == "b")


def test_beside_a_look_another_decides_nothing() -> None:
    """It does not wait for the other one, which may take all of a run's time."""
    made, answers = busy("a", "b"), Queue[Any]()
    decide = made.sender_wiring.again.decide

    def decide_beside() -> None:
        thread = Thread(
            target=lambda: answers.put(decide({"b": Times(AT * 1000, AT * 1000)}, made.deadline())),
            daemon=True,
        )
        thread.start()
        thread.join(60)

    made.s3.before["get_object"] = once(decide_beside)
    events, _ = decide({"a": Times(AT * 1000, AT * 1000)}, made.deadline())

    assert (({}, "others are looked for"), {"a": Event.COPY_COUNTS}) == (answers.get(timeout=60), events)


def test_a_copy_on_another_shard_counts() -> None:
    """All shards must have passed, not only the one that the key leads to."""
    made = delivery(shards=4)
    put(made, again())
    for n in range(8):
        if made.kinesis.put_record(StreamName=STREAM, Data=first(), PartitionKey=str(n))["ShardId"] != SHARD:
            break
    made.clock.sleep(PASSED + 1)
    made.send()
    made.deliver_all({SHARD})
    made.send()
    assert "again" == made.chunks()["shop:k1/views~q/0"][0]
    made.deliver_all()
    wait(made)

    assert {"shop:k1/views~q/0": ("copy", "", 1)} == made.chunks()
    assert ["q"] == made.ids("shop_db", "views")


def test_a_copy_on_a_shard_that_is_no_longer_listed_counts() -> None:
    """Its chain was noted when its first span was appended."""
    made = delivery(first())
    made.split()
    made.clock.sleep(3 * 86_400)
    assert [] != made.put(again())
    listed = {shard["ShardId"] for shard in made.kinesis.client.list_shards(StreamName=STREAM)["Shards"]}
    assert SHARD not in listed
    made.deliver_all()
    wait(made)

    assert {"shop:k1/views~q/0": ("copy", "", 1)} == made.chunks()
    assert ["q"] == made.ids("shop_db", "views")


def without_index() -> Delivery:
    """Return a delivery of rows that were put again, dead because the index that would show their first copy has been deleted."""
    made = delivery(first())
    [span] = made.spans()
    made.ledger.update(replace(span, object=None))
    put(made, again())
    wait(made)
    assert {"shop:k1/views~q/0": ("dead", "index_gone", 1)} == made.chunks()
    return made


@pytest.mark.parametrize(
    ("fate", "state"), [("gone", "dead"), ("moved", "copy"), ("damaged", "again"), ("waiting", "again")]
)
def test_an_object_that_is_gone_was_deleted_or_moved(fate: str, state: str) -> None:
    """Nobody waits for it for ever. Under its new name, the next run reads it. One that cannot be read now, or that has waiting rows, may show a copy."""
    made = delivery()
    if fate == "waiting":
        made.fail(429)
    put(made, first())
    [span], [name] = made.spans(), made.span_objects()
    data = made.s3.objects(BUCKET)[name].body
    made.clock.sleep(10)
    put(made, again())
    made.start()
    if fate == "moved":
        encoded = made.objects.without(span, lambda _: True, made.clock.now() + 3600)
        moved = replace(span, object=encoded.ref)
        made.objects.put(moved, encoded.data)
        made.s3.before["get_object"] = lambda call: call["Key"] == name and made.ledger.update(moved)
    made.s3.client.delete_object(Bucket=BUCKET, Key=name)
    if fate == "damaged":
        made.s3.client.put_object(Bucket=BUCKET, Key=name, Body=b"x" * len(data))
    wait(made)
    wait(made)
    assert (state, "index_gone" * (fate == "gone"), 1) == made.chunks()["shop:k1/views~q/0"]

    made.s3.client.put_object(Bucket=BUCKET, Key=name, Body=data)
    made.td.faults.clear()
    wait(made)
    assert ("dead" if fate == "gone" else "copy") == made.chunks()["shop:k1/views~q/0"][0]
    assert ["q"] == made.ids("shop_db", "views")


def test_an_index_that_is_proved_deleted_leaves_a_doubt() -> None:
    """The rows die, and nobody drops, edits or sends them but by name, after asking Treasure Data."""
    made = without_index()

    assert 0 == made.send(State.DEAD, decision=Decision.DROP).dropped
    assert 0 == made.send(State.DEAD).delivered
    made.clock.sleep(2 * 3600)
    assert 1 == made.send(State.DEAD).copies
    assert ["q"] == made.ids("shop_db", "views")
    assert {AGAIN} == {key for one in made.spans() for key in one.chunks if key.group.request_id}


def dead_in_doubt(*data: bytes, of: int) -> Delivery:
    """Return a delivery of rows that all died: Treasure Data rejects them, or one span's object was deleted. It is restored, all is well."""
    made = delivery()
    made.td.settings = replace(made.td.settings, rejects=lambda _: True)
    for one in data:
        put(made, one)
        made.clock.sleep(10)
    made.start()
    name = made.span_objects()[of]
    body = made.s3.objects(BUCKET)[name].body
    made.s3.client.delete_object(Bucket=BUCKET, Key=name)
    wait(made)
    assert {"dead"} == {state for state, *_ in made.chunks().values()}
    made.s3.client.put_object(Bucket=BUCKET, Key=name, Body=body)
    made.td.settings = replace(made.td.settings, rejects=lambda _: False)
    made.clock.sleep(2 * 3600)
    put(made, first("later"))  # so that the shard has passed
    return made


@pytest.mark.parametrize("of", [0, 1])
def test_a_dead_copy_is_not_sent_because_its_first_copy_is_dead_too(of: int) -> None:
    """Treasure Data has neither, but the restored index says which one counts."""
    made = dead_in_doubt(first(), again(), of=of)

    assert (1, 1) == ((report := made.send(State.DEAD)).delivered, report.copies)
    assert ["later", "q"] == made.ids("shop_db", "views")


def test_dead_rows_of_which_the_indexes_show_no_copy_wait() -> None:
    """The ledger may come from a backup, and not know that they were sent: they are sent when Treasure Data does not have them."""
    made = dead_in_doubt(again(), of=0)
    made.send(State.DEAD)
    assert 0 == made.td.queries
    made.send()

    assert ["later", "q"] == made.ids("shop_db", "views")
    assert made.td.queries > 0


def test_dead_rows_are_not_asked_about_while_an_index_cannot_be_read() -> None:
    """It may show that another copy counts."""
    made = dead_in_doubt(first(), again(), of=1)
    index, *_ = made.span_objects()
    made.s3.before["get_object"] = lambda call: lose_answer() if call["Key"] == index else None
    made.start()
    made.send(State.DEAD, reason="object_gone")

    assert "dead" == made.chunks()["shop:k1/views~q/0"][0]


def test_a_doubt_without_a_database_waits_for_its_account() -> None:
    """Nothing is asked under an empty name, and no answer to that kills or frees it."""
    made = without_index()
    made.clock.sleep(2 * 3600)
    made.redis.flushall()
    made.start()
    asked: list[str] = []
    made.sender_wiring.treasure_data.ask = lambda database, *_, **__: asked.append(database)  # type: ignore[method-assign, assignment, return-value, func-returns-value]

    made.send(State.DEAD)

    assert [] == asked
    assert {"shop:k1/views~q/0": ("dead", "index_gone", 1)} == made.chunks()
    [found] = [one for one in made.spans() if AGAIN in one.chunks]
    assert found.entry(AGAIN).since is not None


def test_rows_that_a_restored_ledger_may_have_sent_are_delivered_if_treasure_data_has_them() -> None:
    """They were put again, and no other copy counts: so what is there are these rows."""
    made = delivery(again())
    wait(made)
    [span] = [one for one in made.spans() if AGAIN in one.chunks]
    doubted = Entry(State.AGAIN, since=milliseconds(made.clock.now()))
    made.ledger.update(replace(span, entries={AGAIN: doubted}))
    made.start()
    made.clock.sleep(2 * 3600)
    made.send()

    assert ({}, 1) == (made.chunks(), made.td.queries)
    assert ["q"] == made.ids("shop_db", "views")


@pytest.mark.parametrize(
    ("service", "fail"),
    [
        ("kinesis", lose_answer),
        ("kinesis", Mock(side_effect=KeyError("HashKeyRange"))),
        ("s3", lose_answer),
        ("dynamodb", lose_answer),
    ],
)
def test_without_an_answer_the_rows_wait(service: str, fail: Callable[[], None]) -> None:
    """Whatever is asked for. No surprise keeps a run from its other spans."""
    made = delivery(again())
    made.clock.sleep(PASSED + 1)
    made.send()
    made.deliver_all()
    made.start()
    call = {"kinesis": "list_shards", "s3": "get_object", "dynamodb": "get_item"}[service]
    getattr(made, service).before[call] = lambda _: fail()

    assert not made.send().complete
    assert isinstance(fail, Mock) == made.telemetry.counts["UnforeseenErrors"]
    getattr(made, service).before.clear()
    assert {"shop:k1/views~q/0": ("again", "", 1)} == made.chunks()
    made.send()
    assert ["q"] == made.ids("shop_db", "views")


def test_a_disabled_mapping_only_makes_the_rows_wait() -> None:
    """Nothing passes, however long it lasts; after half an hour the oldest-waiting alarm counts them, and the log names the shard."""
    made = delivery(again())
    for _ in range(40):
        made.clock.sleep(60)
        made.send()
        gauge = made.telemetry.gauges["OldestWaitingSeconds"]
        assert (gauge > 0) is (made.clock.now() - AT > USUAL_AGAIN_SECONDS)

    reasons = {line["reason"] for line in made.telemetry.said("rows that were put again wait")}
    assert f"the shard {SHARD} has not passed that time" in reasons
    made.clock.sleep(30 * 86_400)
    made.send()
    assert {"shop:k1/views~q/0": ("again", "", 1)} == made.chunks()


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a first", "a again", "b first", "b again", "c claim"]), st.integers(0, 400)
        ),
        min_size=1,
        max_size=7,
    ),
    st.lists(st.tuples(st.sets(st.integers(0, 6)), st.integers(0, 700)), max_size=5),
)
def test_an_envelope_counts_once(copies: list[tuple[str, int]], batches: list[tuple[set[int], int]]) -> None:
    """First copies and ones that were put again, or copies of a batch; early or late, passed over or not."""
    made = delivery()
    claims = {"first": 0, "again": AT * 1000, "claim": 1}
    seen: set[str] = set()
    for copy, pause in copies:
        made.clock.sleep(pause)
        name, kind = copy.split()
        kind = "again" if copy in seen and kind == "first" else kind  # a first copy is put once
        seen.add(copy)
        made.put(first(name, claim=claims[kind]))
    records = made.event()["Records"]
    for chosen, pause in batches:
        made.run({"Records": [one for n, one in enumerate(records) if n in chosen]})
        made.clock.sleep(pause)
        made.send()
    wait(made, rounds=3)
    made.deliver_all()
    wait(made, 3 * 3600, rounds=2)

    assert sorted({copy[0] for copy in seen}) == sorted(made.ids("shop_db", "views"))
    assert {} == made.chunks(State.WAITING, State.AGAIN)
