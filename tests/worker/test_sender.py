"""The sender: the fate of chunks that wait, and of dead ones that an operator sends or drops."""

from collections.abc import Callable, Collection
from copy import replace
from sys import getsizeof
from typing import Any, ClassVar, override

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from doubles.treasure_data import API_KEY, Action, Fault, Kind, TreasureData
from shared.accounts import Account
from tests.support import spans
from tests.support.delivery import (
    BUCKET,
    KEYS,
    TABLE,
    Delivery,
    KilledError,
    Meddled,
    envelope,
    kill,
    lose_answer,
    once,
    other_sandbox,
    row,
    shops,
    stored,
)
from tests.support.inline_executor import InlineExecutor
from worker.admission import MOST_VAIN_PROBES, SPANS_AT_ONCE, Admission
from worker.deadline import Deadline
from worker.executor import Threads
from worker.health import PROBE_TABLE
from worker.inquiry import FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, LONGEST_QUERY_SECONDS
from worker.ledger import WORKLIST_KEYS
from worker.plan import Cut
from worker.selection import SCHEDULED, Selection
from worker.sender import Report, Sender
from worker.span import ChunkKey, Span, milliseconds
from worker.states import Decision, Entry, Event, State
from worker.treasure_data.client import Outcome
from worker.turn import UNSETTLED_SECONDS
from worker.upload import Upload

AT = 1_700_000_000
CHUNK = ChunkKey.parse("shop/views/0")
ASKABLE_SECONDS = 71 * 60.0
"""After this many seconds Treasure Data can be asked about a doubt."""
ALL = (State.WAITING, State.DEAD)

TWO = envelope("shop", {"views": [row("e1"), row("e2")]})
UNTRIED, DOUBTED, DEAD = 429, 500, 415
"""What imports of a chunk were answered with that waits without a doubt, that has a doubt though nothing landed, and that is dead."""


def failed(status: int, *data: bytes, **changes: Any) -> Delivery:
    """Return a delivery of these records, by default one of two rows, whose imports failed with the status."""
    return stored(status, *data or (TWO,), **changes)


def unaskable(setting: str) -> Delivery:
    """Return a delivery with a chunk with an old doubt, and a key that may not query."""
    made = failed(DOUBTED, unaskable_doubt=setting)
    keys = {API_KEY: frozenset({Action.IMPORT, Action.CREATE})}
    made.td = TreasureData(clock=made.clock, keys=keys)
    made.td.create("shop_db", "views")
    made.clock.sleep(ASKABLE_SECONDS)
    return made.start()


def span(made: Delivery) -> Span:
    """Return the first span."""
    return made.spans()[0]


def entry(made: Delivery) -> Entry:
    """Return the chunk's ledger entry."""
    return span(made).entry(CHUNK)


def around_attempts(
    made: Delivery, before: Callable[[], Any] = lambda: None, after: Callable[[], Any] = lambda: None
) -> list[str]:
    """Call functions before and after each send of rows; return a list of the chunks sent."""
    attempted: list[str] = []
    attempt = made.sender_wiring.uploader.attempt

    def watched(upload: Upload, deadline: Deadline) -> Outcome:
        attempted.append(upload.key.name)
        before()
        reply = attempt(upload, deadline)
        after()
        return reply

    made.sender_wiring.uploader.attempt = watched  # type: ignore[method-assign]  # observed
    return attempted


def assert_delivered_once(made: Delivery) -> None:
    """Check that both rows were delivered once and nothing waits."""
    assert ["e1", "e2"] == sorted(made.ids("shop_db", "views"))
    assert {} == made.chunks()
    assert {State.DELIVERED} == span(made).states()


def test_a_span_is_left_to_its_worker_while_one_may_run() -> None:
    """After that the sender settles it. It counts as waiting only if the sender cannot, for another run."""
    made = shops(TWO)
    made.dynamodb.before["update_item"] = once(kill)
    with pytest.raises(KilledError):
        made.deliver()
    made.start().fail(503, table=PROBE_TABLE)
    for seconds, report, age in (
        (UNSETTLED_SECONDS - 1, Report(complete=False), 0),
        (1, Report(kept=2, complete=False), 0),
        (119, Report(kept=2, complete=False), UNSETTLED_SECONDS + 119),
    ):
        made.clock.sleep(seconds)
        assert report == made.send()
        assert age == made.telemetry.gauges["OldestWaitingSeconds"]
    assert not span(made).settled
    made.td.faults.clear()

    assert Report(delivered=2) == made.send()
    assert_delivered_once(made)


@pytest.mark.parametrize(("status", "database"), [(UNTRIED, "new_db"), (DOUBTED, "shop_db")])
def test_only_rows_with_a_doubt_stay_with_their_database(status: int, database: str) -> None:
    """Treasure Data may have them there, under that id; others follow their account, and the ledger says so."""
    made = failed(status)
    unique_id = span(made).unique_id(CHUNK, database)
    made.map(shop="new_db")
    made.start()

    assert Report(delivered=2) == made.send()
    assert [(database, unique_id)] == [(one.database, one.unique_id) for one in made.td.imports() if one.rows]
    assert database == span(made).database(CHUNK)
    assert ({}, 2) == (made.chunks(), made.telemetry.total("sent", "delivered"))


@pytest.mark.parametrize(
    ("status", "accounts", "report", "reason"),
    [
        (UNTRIED, {"shop": Account("shop_db", "active", frozenset({"k1"}))}, Report(delivered=2), ""),
        (UNTRIED, {"shop": Account("shop_db", "disabled")}, Report(dead=2), "disabled_account"),
        (UNTRIED, {}, Report(dead=2), "unknown_account"),
        (DOUBTED, {"shop": Account("new_db")}, Report(delivered=2), ""),
        (DOUBTED, {"shop": Account("shop_db", "disabled")}, Report(dead=2), "disabled_account"),
        (DOUBTED, None, Report(kept=2, complete=False), ""),
    ],
)
def test_rows_that_treasure_data_surely_lacks_follow_their_account(
    status: int, accounts: dict[str, Account] | None, report: Report, reason: str
) -> None:
    """Rows die if their account can have none by now, and wait while Redis does not say. An operator decides about dead ones."""
    made = failed(status)
    made.clock.sleep(ASKABLE_SECONDS)
    made.redis.flushall() if accounts is None else made.redis.delete(KEYS.of("shop"))
    made.map(**accounts or {})
    made.start()

    assert report == made.send()
    found = entry(made)
    assert (None, int(status == DOUBTED), reason) == (found.since, found.generation, found.reason)
    assert report.dead == made.telemetry.counts["RowsDead"]
    sent = {one.database for one in made.td.imports() if one.rows}
    assert sent == ({accounts["shop"].database} if accounts and report.delivered else set())


def test_rows_whose_account_could_not_be_looked_up_keep_their_key() -> None:
    """A key that is revoked before the account is known applies to them."""
    made = Delivery()
    made.redis.flushall()
    for key_id, name in (("k1", "e1"), ("k2", "e2")):
        made.put(envelope("shop", {"views": [row(name)]}, key_id=key_id, request_id=name))
    assert made.deliver() is None
    assert {"shop:k1/views/0", "shop:k2/views/0"} == made.chunks().keys()
    assert 2 == made.send().kept
    made.redis.hset(KEYS.sentinel, mapping={"at": "now"})
    made.map(shop=Account("shop_db", "active", frozenset({"k2"})))
    made.clock.sleep(UNSETTLED_SECONDS)
    made.start()

    assert Report(delivered=1, dead=1) == made.send()
    assert ["e1"] == made.ids("shop_db", "views")
    assert {"shop:k2/views/0": ("dead", "revoked_key", 1)} == made.chunks()


def many(count: int, status: int = 429, lands: float | None = None, **changes: Any) -> Delivery:
    """Return a delivery with a chunk in each of several spans, whose imports failed with the status; Treasure Data has what landed."""
    made = shops(*(envelope("shop", {"views": [row(f"e{n}", AT + n)]}) for n in range(count)), **changes)
    made.fail(status, lands=lands)
    for number in range(count):
        assert made.start().deliver(number, number + 1) is None
    made.td.faults.clear()
    return made.start()


def probes(made: Delivery) -> list[str]:
    """Return a list of the databases that the sender probes from now on."""
    probed: list[str] = []
    probe = made.sender_wiring.health.probe
    made.sender_wiring.health.probe = lambda *one: (probed.append(one[0]), probe(*one))[1]  # type: ignore[method-assign]  # observed
    return probed


@pytest.mark.parametrize("executors", [InlineExecutor, Threads])
def test_one_probe_serves_all_spans(executors: Callable[[], Any]) -> None:
    """It is an import without rows. While it fails, no rows are sent and no span is written, however many there are."""
    made = many(9, executors=executors)
    made.fail(status=503, table=PROBE_TABLE)
    probed, attempted = probes(made), around_attempts(made)
    made.dynamodb.calls.clear()

    assert (0, 9, False) == _shown(made.send())
    assert (["shop_db"], []) == (probed, attempted)
    assert "update_item" not in made.dynamodb.calls
    assert [["shop_db"]] == [line["failing"] for line in made.telemetry.said("sent")]


def _shown(report: Report) -> tuple[int, int, bool]:
    return report.delivered, report.kept, report.complete


@pytest.mark.parametrize(
    ("executors", "most", "failure"),
    [
        (InlineExecutor, 1, {"status": 500}),
        (Threads, 32, {"status": 500}),
        (InlineExecutor, 1, {"status": 429, "body": "<html>"}),
    ],
)
def test_a_database_that_answers_probes_but_fails_imports_is_closed(
    executors: Callable[[], Any], most: int, failure: dict[str, Any]
) -> None:
    """The first rows to fail, with a doubt, are the last ones of the run, so an outage opens few doubts."""
    made = many(40, executors=executors)
    made.fail(table="views", **failure)
    attempted = around_attempts(made)

    assert (0, 40, False) == _shown(made.send())
    assert 1 <= len(attempted) <= most
    assert len(attempted) == sum(one.entry(CHUNK).since is not None for one in made.spans())
    assert made.sender_wiring.health.reason("shop_db")  # so that the next run probes it


def test_a_failure_stops_the_other_chunks_of_its_span() -> None:
    """One doubt is enough, also where an answer to a probe means nothing."""
    tables = [f"table_{n}" for n in range(9)]
    made = failed(429, envelope("shop", {one: [row(one)] for one in tables}))
    for one in tables:
        made.fail(500, table=one)
    attempted = around_attempts(made)
    made.send()

    assert 1 == len(attempted)


class Busy(Sender):
    """Finds a database busy in its first pass, and notes how many of the turns that wait for it hold a span."""

    held: ClassVar[list[int]] = []

    def _pass(self, progress: Any, turns: Any) -> Any:
        admission = progress.run.admission
        others = [set[str]() for _ in range(0 if Busy.held else SPANS_AT_ONCE)]
        admission.probe_untried(["shop_db"])
        for one in others:
            admission.admit("shop_db", one)
        waiting = super()._pass(progress, turns)
        Busy.held.append(sum(hasattr(one, "span") for one in waiting))
        for one in others:
            admission.release(one)
        return waiting


def test_spans_that_wait_for_a_busy_database_are_not_kept_in_memory() -> None:
    """After an outage there may be a hundred thousand, of tens of kilobytes each, while Treasure Data throttles."""
    Busy.held.clear()
    made = many(9, replaced={Sender: Busy})

    assert (9, 0, True) == _shown(made.send())
    assert [0, 0] == Busy.held


def test_an_outage_is_not_probed_for_each_database_in_each_run() -> None:
    """Once many probes have failed and none has succeeded, a run probes no other database that failed before."""
    count = 3 * MOST_VAIN_PROBES
    made = Delivery().map(**{f"acct_{n}": f"db_{n}" for n in range(count)})
    made.put(*(envelope(f"acct_{n}", {"views": [row(f"e{n}")]}) for n in range(count)))
    made.td.faults.add(Fault(kind=Kind.REFUSE))
    assert made.deliver() is None
    probed = probes(made)
    made.send()
    first = len(probed)
    made.send()
    assert (count, MOST_VAIN_PROBES) == (first, len(probed) - first)
    [(_, left)] = made.sender_wiring.sender._left.values()  # a span takes few bytes there
    assert getsizeof(left) < count
    made.td.faults.clear()

    assert Report(delivered=count) == made.send()


def test_a_database_that_fails_for_days_hides_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """More spans may wait for it than a run can read, and than an instance remembers."""
    monkeypatch.setattr("worker.sender._MOST_LEFT", 50)
    monkeypatch.setattr("worker.turn._SHUFFLED", 2)
    made = failed(UNTRIED, envelope("blog", {"views": [row("b1")]}))
    for n in range(1600):
        old = spans.span(after=f"{n:03}", planned_at=milliseconds(made.clock.now()) - n * 160_000)
        made.ledger.append(old.with_entries({CHUNK: Entry()}, settled=True))
    made.fail(503, database="shop_db")
    made.dynamodb.before["get_item"] = lambda _: made.clock.sleep(1)

    assert 1 == sum(made.send().delivered for _ in range(20))


def test_redis_is_asked_once_for_all_spans_while_it_is_away() -> None:
    """Spans that wait for it are not read again in each run; once it is back, their rows are sent."""
    made = Delivery().map(shop="shop_db")
    made.put(*(envelope("shop", {"views": [row(f"e{n}")]}) for n in range(90)))

    def refuse(_: Any) -> None:
        raise redis.ConnectionError("away")

    made.redis = Meddled(made.redis)
    made.redis.before["pipeline"] = refuse
    made.start()
    for number in range(90):
        assert made.deliver(number, number + 1) is None
    kept = []
    for _ in range(2):
        made.clock.sleep(60)
        made.redis.calls.clear()
        made.dynamodb.calls.clear()
        kept.append(made.send().kept)
        assert ["pipeline"] == made.redis.calls
    assert 90 == kept[0]
    assert made.dynamodb.calls.count("get_item") < 50
    made.redis.before.clear()
    made.clock.sleep(60)

    assert Report(delivered=90) == made.send()


def test_throttling_halves_the_rate_and_closes_nothing() -> None:
    """The others are delivered."""
    made = many(6)
    made.fail(429, table="views", count=1)

    assert (5, 1) == _shown(made.send())[:2]
    assert Report(delivered=1) == made.send()
    admission, names = Admission(made.sender_wiring.health, InlineExecutor, made.deadline()), ["a_db", "b_db"]
    admission.probe_untried(names)
    users = [set[str]() for _ in range(SPANS_AT_ONCE)]
    for number, one in enumerate(users):
        admission.admit(names[number % 2], one)
    admission.note("a_db", Outcome(Event.UNANSWERED, "http_429", surely_not=True), 0.0)
    admission.release(users[0])
    assert not admission.admit("a_db", set())  # of the 14 that used it, 13 still do


@pytest.mark.parametrize(("status", "report"), [(UNTRIED, Report(dead=2)), (DEAD, Report(kept=2))])
def test_a_refused_chunk_without_a_doubt_dies_with_the_reason(status: int, report: Report) -> None:
    """Nothing has to be asked. One that was dead already counts as kept."""
    made = failed(status)
    made.fail(415, table="views")

    assert report == made.send(*ALL)
    assert {"shop/views/0": ("dead", "http_415", 2)} == made.chunks()
    assert entry(made).since is None


@pytest.mark.parametrize("accepted", [False, True])
def test_a_refused_chunk_with_a_doubt_is_asked_about(accepted: bool) -> None:
    """An earlier attempt may have delivered the rows."""
    made = failed(UNTRIED)
    made.fail(500, table="views", count=1, lands=0 if accepted else None)
    made.send()
    made.td.faults.clear()
    made.fail(415, table="views")
    made.send()
    assert {"shop/views/0": ("waiting", "http_415", 2)} == made.chunks()
    made.clock.sleep(ASKABLE_SECONDS)

    assert Report(delivered=2 * accepted, dead=2 * (not accepted)) == made.send()
    assert ["e1", "e2"] * accepted == made.ids("shop_db", "views")


def in_doubt(count: int, lands: float | None = None) -> Delivery:
    """Return a delivery with a chunk in an old doubt in each of several spans; Treasure Data has them if they landed."""
    made = many(count, 500, lands)
    made.clock.sleep(ASKABLE_SECONDS)
    return made.start()


def test_one_query_counts_the_rows_of_many_spans() -> None:
    """An outage leaves a doubt in a span of each shard, and must not end in as many queries. Each gets its own answer."""
    made = in_doubt(9, lands=0.0)
    for lost in (3, 4):
        made.td.lose("shop_db", "views", AT + lost, AT + lost + 1)
    assert 9 == sum(one.entry(CHUNK).since is not None for one in made.spans())

    assert Report(delivered=9) == made.send()
    assert 1 == made.td.queries
    assert [f"e{n}" for n in range(9)] == sorted(made.ids("shop_db", "views"))


def test_few_chunks_that_may_be_there_in_part_are_asked_for_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others would wait for the answers about many rows. All have their turn in one run."""
    made = in_doubt(9, lands=0.0)
    monkeypatch.setattr("worker.turn._may_be_there_in_part", lambda *_: True)
    monkeypatch.setattr("worker.inquiry._MOST_NOTED", 4)

    assert Report(delivered=9) == made.send()
    assert 3 == made.td.queries


def test_a_span_that_has_asked_and_waits_for_its_closed_database_asks_no_more() -> None:
    """A run with nothing left to do ends."""
    jobs: list[Callable[[], Any]] = []

    class Counted(InlineExecutor):
        @override
        def submit(self, job: Callable[[], Any]) -> None:
            jobs.append(job)
            assert len(jobs) < 1000
            super().submit(job)

    others = [f"table_{n}" for n in range(8)]
    tables = {"views": [row("e1")], "large": [row("e2"), row("e3")]} | {one: [row(one)] for one in others}
    made = Delivery(executors=Counted).map(shop="shop_db")
    made.td.create("shop_db", *tables)
    made.put(envelope("shop", tables))
    made.fail(500, table="views")
    made.fail(429)
    assert made.deliver() is None
    made.td.faults.clear()
    made.clock.sleep(ASKABLE_SECONDS)
    made.td.settings = replace(made.td.settings, largest_import=70)

    def fail_then() -> None:
        if attempted[-1] == "shop/large/0":
            made.fail(500)

    attempted = around_attempts(made, after=fail_then)
    report = made.send()
    assert ("waiting", "http_500") == made.chunks()["shop/views/0"][:2]
    assert not report.complete


def test_an_answer_holds_only_for_what_was_asked() -> None:
    """Meanwhile another invocation has sent the rows under a new id: an answer about the old one says nothing about it."""
    made = in_doubt(1)
    other, ask = other_sandbox(made), made.sender_wiring.treasure_data.ask

    def ask_slowly(*args: Any) -> Any:
        answer = ask(*args)
        made.sender_wiring.treasure_data.ask = ask  # type: ignore[method-assign]
        assert Report(delivered=1) == other.send()
        return answer

    made.sender_wiring.treasure_data.ask = ask_slowly  # type: ignore[method-assign]
    made.send()

    assert ["e0"] == made.ids("shop_db", "views")


def test_a_question_that_fails_is_asked_about_fewer_chunks() -> None:
    """One chunk's surprise keeps the others from their answers only until they are asked about without it."""
    made = in_doubt(9)
    ask = made.sender_wiring.treasure_data.ask

    def surprised(database: str, table: str, chunks: Any, *rest: Any) -> Any:
        if any(one["event_id"] == "e4" for rows in chunks for one in rows):
            raise RuntimeError("a surprise")
        return ask(database, table, chunks, *rest)

    made.sender_wiring.treasure_data.ask = surprised  # type: ignore[method-assign]
    assert (0, 9) == _shown(made.send())[:2]
    for _ in range(2):
        made.clock.sleep(2 * FIRST_PAUSE_SECONDS)
        made.send()

    assert {"e4"} == {f"e{n}" for n in range(9)} - set(made.ids("shop_db", "views"))
    assert 3 == made.telemetry.counts["UnforeseenErrors"]


def test_a_chunk_with_a_doubt_is_halved_only_after_treasure_data_was_asked() -> None:
    """Treasure Data may have it whole. Only a single row that is too large dies."""
    made = failed(DOUBTED)
    largest = made.td.settings.largest_import
    made.td.settings = replace(made.td.settings, largest_import=1)
    made.td.create("shop_db", PROBE_TABLE)
    made.sender_wiring.health.note("shop_db", Outcome(Event.ACCEPTED))
    made.send()
    assert {"shop/views/0": ("waiting", "http_413", 2)} == made.chunks()
    made.clock.sleep(ASKABLE_SECONDS)
    made.sender_wiring.health.note("shop_db", Outcome(Event.ACCEPTED))

    assert Report(dead=2) == made.send()
    assert {f"shop/views/0.{n}": ("dead", "row_too_large", 1) for n in range(2)} == made.chunks()
    made.td.settings = replace(made.td.settings, largest_import=largest)
    assert Report(delivered=2) == made.send(State.DEAD)
    assert_delivered_once(made)


@pytest.mark.parametrize("counted", [1, 3, 5])
def test_rows_of_an_envelope_with_a_wrong_count_die_when_they_are_halved(counted: int) -> None:
    """Which rows a half has is unknown, so it is never sent; nothing is tried for ever."""
    wrong = envelope("shop", {"views": [row(f"e{n}") for n in range(3)]}, counted=counted)
    made = shops(wrong, envelope("shop", {"views": [row("x")]}))
    made.td.settings = replace(made.td.settings, largest_import=70)
    made.deliver()
    made.clock.sleep(UNSETTLED_SECONDS)
    for _ in range(8):
        made.send()

    assert {} == made.chunks(State.WAITING)
    dead = made.chunks(State.DEAD).values()
    assert counted + 1 == len(made.ids("shop_db", "views")) + sum(rows for _, _, rows in dead)
    assert {"wrong_row_count"} == {reason for _, reason, _ in dead} or counted == 3


def rejecting(count: int, bad: Collection[int]) -> Delivery:
    """Return a delivery of one chunk that has some rows Treasure Data rejects."""
    made = shops(envelope("shop", {"views": [row(f"e{n}", n=n) for n in range(count)]}))
    made.td.settings = replace(made.td.settings, rejects=lambda one: one.get("n") in bad)
    return made


def settle(made: Delivery) -> None:
    """Deliver the batch, and send what waits, halves and all."""
    assert made.deliver() is None
    for _ in range(4):
        made.send()


@given(
    st.integers(1, 40).flatmap(
        lambda count: st.tuples(st.just(count), st.sets(st.integers(0, count - 1), max_size=3))
    )
)
@settings(max_examples=60, deadline=None)
def test_a_bad_row_affects_only_itself(rows: tuple[int, set[int]]) -> None:
    """The other rows are delivered once, and each bad row becomes a dead letter of its own."""
    count, bad = rows
    made = rejecting(count, bad)

    settle(made)
    assert sorted(f"e{n}" for n in range(count) if n not in bad) == sorted(made.ids("shop_db", "views"))
    assert [("dead", "http_422", 1)] * len(bad) == list(made.chunks().values())
    assert len(bad) == made.telemetry.counts["RowsDead"]


def test_one_bad_row_costs_two_imports_per_halving() -> None:
    """Of 4096 rows the bad one is found after 12 halvings."""
    made = rejecting(4096, {1234})
    tried: list[str] = []
    handle = made.td.handle
    made.td.handle = lambda request: (tried.append(request.target), handle(request))[1]  # type: ignore[method-assign]  # observed
    settle(made.start())
    imports = [one for one in tried if "/import_with_id/shop_db/views/" in one]

    assert [("dead", "http_422", 1)] == list(made.chunks().values())
    assert 4095 == made.td.counts()["shop_db"]["views"]
    assert 1 + 2 * 12 == len(imports) == len(set(imports))


def test_a_413_from_a_proxy_halves_a_chunk_once_treasure_data_lacks_it_and_kills_no_row() -> None:
    """It is not tried whole again: a proxy refuses it for ever. A single row is sent again after the next proof."""
    made = shops(TWO)
    made.fail(413, table="views", body="<html>")
    assert made.deliver() is None
    made.start()
    for _ in range(2):
        made.clock.sleep(ASKABLE_SECONDS)
        made.send()
        assert {("waiting", "row_too_large", 1)} == set(made.chunks().values())
    made.td.faults.clear()
    made.clock.sleep(ASKABLE_SECONDS)

    assert Report(delivered=2) == made.send()
    assert [1, 1] == [len(one.rows) for one in made.td.imports() if one.rows]


def test_a_404_from_the_wrong_host_does_not_prove_a_database_gone() -> None:
    """While the listing still names the database, rows of a remapped account wait for it."""
    made = failed(DOUBTED)
    made.map(shop="other_db")
    made.start()
    for action in (Action.IMPORT, Action.CREATE):
        made.td.faults.add(Fault(kind=Kind.STATUS, action=action, status=404))
    made.send()
    assert {"shop/views/0": ("waiting", "create_http_404", 2)} == made.chunks()
    made.td.faults.clear()
    made.send()

    assert_delivered_once(made)


def test_a_chunk_that_is_too_large_is_halved_within_one_run() -> None:
    """The halves are written first, then sent under their own ids. Each counts once, although the ledger joins some meanwhile."""
    sizes = [100] * 4 + [300] * 4
    rows = [row(f"e{n}", text="x" * size) for n, size in enumerate(sizes)]
    made = failed(UNTRIED, envelope("shop", {"views": rows}))
    made.td.settings = replace(made.td.settings, largest_import=500)
    states: list[Entry] = []
    attempted = around_attempts(
        made, before=lambda: states.append(span(made).entry(ChunkKey.parse(attempted[-1])))
    )

    assert Report(delivered=8) == made.send()
    assert {} == made.chunks()
    assert {State.DELIVERED} == span(made).states()
    assert 11 == len(attempted) == len(set(attempted)) == sum(one.since is not None for one in states)
    assert [1, 1, 1, 1, 2, 2] == sorted(len(one.rows) for one in made.td.imports() if one.rows)


def test_rows_that_die_again_are_tried_once_in_a_run() -> None:
    """While others of their span are halved, they would be sent in every second round, until the run gives up."""
    rows = {"buys": [row("b1", n=8)], "views": [row(f"e{n}", n=n) for n in range(8)]}
    made = failed(DEAD, envelope("shop", rows))
    made.td.settings = replace(made.td.settings, rejects=lambda one: one.get("n") in (0, 5, 8))
    attempted = around_attempts(made)

    assert Report(delivered=6, kept=3) == made.send(State.DEAD)
    assert 12 == len(attempted) == len(set(attempted))


def test_what_is_no_rows_is_never_sent() -> None:
    """Whatever an operator selects: Treasure Data might take it for some."""
    made = shops(b'{"account":"shop","events":[{"table":"?"}]}')
    made.deliver()
    attempted = around_attempts(made)

    assert 1 == made.send(State.DEAD).kept
    assert [] == attempted


def test_an_unaskable_chunk_is_sent_and_reported_or_kept() -> None:
    """The key may not query. By setting, the chunk waits for an operator, or is sent under a new id, and the log says so."""
    kept, made = unaskable("keep"), unaskable("send")
    before = span(made).unique_id(CHUNK, "shop_db")

    assert Report(delivered=2) == made.send()
    assert 2 == made.telemetry.counts["RowsAmbiguous"]
    (line,) = made.telemetry.said("ambiguous: sent again although Treasure Data may have the rows")
    assert (before, 2) == (line["unique_id"], line["rows"])
    assert [before] != [one.unique_id for one in made.td.imports() if one.rows]

    assert (0, 2) == _shown(kept.send())[:2]
    assert 0 == kept.telemetry.counts["RowsAmbiguous"]
    assert Report(delivered=2) == kept.send(decision=Decision.SEND)


def test_a_query_that_is_forbidden_once_is_repeated() -> None:
    """One refusal does not prove that a key that may write may not query."""
    made = failed(DOUBTED)
    made.clock.sleep(ASKABLE_SECONDS)
    made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.QUERY, status=403, count=1))

    assert Report(delivered=2) == made.send()
    assert 0 == made.telemetry.counts["RowsAmbiguous"]


def test_a_key_that_may_not_write_either_proves_nothing() -> None:
    """It was revoked during the run: the next one may query."""
    made = unaskable("send")
    made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.IMPORT, status=403, begin=made.clock.now() + 1))
    ask = made.sender_wiring.treasure_data.ask
    made.sender_wiring.treasure_data.ask = lambda *some: (made.clock.sleep(1), ask(*some))[1]  # type: ignore[method-assign]

    assert 2 == made.send().kept
    assert 0 == made.telemetry.counts["RowsAmbiguous"]


SELECTED = (
    envelope("shop", {"views": [row("v1"), row("v2")], "clicks": [row("c1")]}),
    envelope("blog", {"views": [row("b1")]}),
)


@pytest.mark.parametrize(
    ("selected", "delivered"),
    [
        ({}, ["b1", "c1", "v1", "v2"]),
        ({"kinds": ["waiting"]}, ["b1", "c1", "v1", "v2"]),
        ({"kinds": ["dead"]}, []),
        ({"account": "shop"}, ["c1", "v1", "v2"]),
        ({"table": "views"}, ["b1", "v1", "v2"]),
        ({"account": "shop", "table": "views"}, ["v1", "v2"]),
        ({"reason": "http_429"}, ["b1", "c1", "v1", "v2"]),
        ({"reason": "http_500"}, []),
        ({"since": 1_699_999_000}, ["b1", "c1", "v1", "v2"]),
        ({"since": 1_800_000_000}, []),
    ],
)
def test_a_selection_limits_what_is_sent(selected: dict[str, Any], delivered: list[str]) -> None:
    """Other chunks are left alone and not counted."""
    made = failed(429, *SELECTED)
    answer = made.invoke_sender(selected)

    found = [event for tables in made.td.event_ids().values() for ids in tables.values() for event in ids]
    assert delivered == sorted(found)
    expected = {"delivered": len(delivered), "kept": 0, "dead": 0, "dropped": 0, "copies": 0}
    assert {**expected, "complete": True, "replaced": 0} == answer


def test_named_chunks_alone_are_sent_or_dropped() -> None:
    """What an operator was shown is what happens; nothing else of the span, and nothing that came since."""
    made = failed(415, *SELECTED)
    place = span(made).place
    named = [[place.chain.name, place.after, CHUNK.name]]
    made.dynamodb.calls.clear()

    answer = made.invoke_sender({"kinds": ["dead"], "chunks": named, "decision": "drop"})

    assert (2, 0) == (answer["dropped"], answer["kept"])
    assert {"shop/clicks/0", "blog/views/0"} == made.chunks(State.DEAD).keys()
    assert "query" not in made.dynamodb.calls


@pytest.mark.parametrize(
    "event", [{"kinds": ["delivered!"]}, {"decision": "burn"}, {"chunks": [["x", "1", "y"]]}]
)
def test_an_invalid_selection_is_an_error(event: dict[str, Any]) -> None:
    """Nothing is sent or dropped by mistake. The account in EventBridge's event is AWS's: the schedule selects everything that waits."""
    with pytest.raises(ValueError, match=r"is not a valid|does not name"):
        Selection.from_event(event)
    scheduled = {"version": "0", "source": "aws.events", "account": "123456789012"}
    assert Selection(SCHEDULED) == Selection.from_event(scheduled)


@pytest.mark.parametrize("status", [UNTRIED, DOUBTED, DEAD])
def test_an_overtaken_sender_decides_again(status: int) -> None:
    """It finds everything done, and reports the rows as delivered."""
    made = failed(status)
    other = other_sandbox(made)
    made.dynamodb.before = {"update_item": once(lambda: other.send(*ALL))}

    assert Report(delivered=2) == made.send(*ALL)
    assert_delivered_once(made)
    assert 0 == made.td.duplicates


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_refusal_during_another_sender_s_send_is_a_doubt(moment: str) -> None:
    """A sender that was killed after its send, before or after our write, may have delivered the rows."""
    made = failed(UNTRIED)
    other = other_sandbox(made)
    around_attempts(other, after=kill)

    def run_other() -> None:
        with pytest.raises(KilledError):
            other.send()
        made.fail(415, table="views", count=1)

    getattr(made.dynamodb, moment)["update_item"] = once(run_other)
    made.send()
    assert {"shop/views/0": ("waiting", "http_415", 2)} == made.chunks()
    made.clock.sleep(ASKABLE_SECONDS)
    made.start().send()

    assert_delivered_once(made)


def test_a_frozen_sender_sends_nothing_under_a_forgotten_id() -> None:
    """While it was frozen, another one sent the rows and confirmed that they are there."""
    made = failed(UNTRIED)
    other = other_sandbox(made)

    def freeze() -> None:
        made.fail(500, table="views", count=1, lands=0)
        other.send()
        made.clock.sleep(ASKABLE_SECONDS)
        other.send()

    made.dynamodb.after = {"update_item": once(freeze)}
    report = made.sender_wiring.sender.run(Deadline(made.clock, made.clock.now() + 86_400))

    assert 2 == report.delivered
    assert ["e1", "e2"] == sorted(made.ids("shop_db", "views"))


def test_rows_whose_object_is_gone_die_and_delay_no_others() -> None:
    """Their entry says so, and keeps a doubt. As long as nobody can ask for them, an operator may give them up."""
    made = failed(500, *(envelope(name, {"views": [row(name)]}) for name in ("shop", "blog")))
    (gone,) = made.span_objects()
    made.s3.delete_object(Bucket=BUCKET, Key=gone)
    since = entry(made).since
    assert Report(kept=2) == made.send(State.WAITING, decision=Decision.DROP)

    assert Report(dead=2) == made.send()
    assert {("dead", "object_gone", 1)} == set(made.chunks().values())
    assert since == entry(made).since
    made.s3.put_object(Bucket=BUCKET, Key=gone, Body=b"damaged")
    assert Report(kept=2) == made.send(State.DEAD, decision=Decision.DROP)
    made.s3.delete_object(Bucket=BUCKET, Key=gone)
    assert Report(dropped=2) == made.send(State.DEAD, decision=Decision.DROP)


@pytest.mark.parametrize("is_damaged", [False, True])
def test_an_object_that_cannot_be_read_is_read_later(is_damaged: bool) -> None:
    """S3 does not answer, or it holds other bytes than the index's digest says: no entry changes, and nothing is sent."""
    made = failed(UNTRIED)
    before, (name,) = span(made), made.span_objects()
    data = made.s3.objects(BUCKET)[name].body
    if is_damaged:
        made.s3.put_object(Bucket=BUCKET, Key=name, Body=bytes([data[0] ^ 1]) + data[1:])
    else:
        made.s3.before["get_object"] = once(lose_answer)

    assert Report(kept=2, complete=False) == made.send()
    assert (before, []) == (span(made), [one for one in made.td.imports() if one.rows])
    made.s3.put_object(Bucket=BUCKET, Key=name, Body=data)
    assert Report(delivered=2) == made.send()


def test_an_unforeseen_error_does_not_stop_other_spans() -> None:
    """It is counted, and the run goes on."""
    made = many(2)

    def fail() -> None:
        raise RuntimeError("unforeseen")

    made.s3.before = {"get_object": once(fail, lambda request: request["Key"].startswith("spans/"))}

    assert (1, 1, False) == _shown(made.send())
    assert 1 == made.telemetry.counts["UnforeseenErrors"]
    assert Report(delivered=1) == made.send()


def test_an_unforeseen_error_of_a_probe_closes_its_database() -> None:
    """The run does not go on until its time is up, as if others were still probing it."""
    made = many(2)
    made.fail(200, body="\ud800")
    began = made.clock.now()

    assert (0, 2, False) == _shown(made.send())
    assert made.clock.now() - began < 1


def test_an_unforeseen_error_of_a_probe_keeps_no_database_busy() -> None:
    """Another span probes those that were not probed because of it."""
    made, names = many(1), [f"db_{number}" for number in range(20)]
    health = made.sender_wiring.health
    for name in names:
        health.note(name, Outcome(Event.UNANSWERED, "http_503"))
    health.probe = None  # type: ignore[method-assign,assignment]  # so that a call fails
    admission = Admission(health, Threads, made.deadline())

    with pytest.raises(TypeError):
        admission.probe_untried(names)
    assert not any(map(admission.is_busy, names))


def test_a_run_stops_when_its_time_is_up() -> None:
    """It reports that it is not complete, and later runs continue. One without time does nothing."""
    made = failed(429, envelope("shop", {f"table_{n}": [row(f"x{n}")] for n in range(22)}))
    before, began = span(made), made.clock.now()
    none = made.sender_wiring.sender.run(Deadline(made.clock, began))
    assert (0, False, before) == (none.delivered, none.complete, span(made))
    made.td.faults.add(Fault(kind=Kind.SLOW, action=Action.IMPORT, seconds=9.0))
    first = made.send()
    assert (False, 22) == (first.complete, first.delivered + first.kept)
    assert 0 < first.delivered < 22
    assert made.clock.now() - began <= 120
    made.td.faults.clear()

    assert Report(delivered=first.kept) == made.send()


def test_a_run_sends_what_it_has_read_however_slow_reads_are() -> None:
    """A span may have hundreds of chunks. If all were read first, each run would end before it sends one."""
    made = failed(UNTRIED, *(envelope("shop", {"views": [row(f"{n}")]}) for n in range(99)), cut=Cut(1, 9999))
    made.s3.before["get_object"] = lambda _: made.clock.sleep(2)

    assert 99 == sum(made.send().delivered for _ in range(4))


def test_a_query_that_takes_too_long_is_repeated_by_a_later_run() -> None:
    """A run waits for the answer for a while and then goes on."""
    made = failed(DOUBTED)
    made.clock.sleep(ASKABLE_SECONDS)
    quick = made.td.settings
    made.td.settings = replace(quick, job_seconds=300.0)
    began = made.clock.now()
    assert (0, 2) == _shown(made.send())[:2]
    assert 60 <= made.clock.now() - began < LONGEST_QUERY_SECONDS + 20
    made.td.settings = quick
    made.clock.sleep(FIRST_PAUSE_SECONDS)

    assert Report(delivered=2) == made.send()


def test_questions_without_time_are_asked_by_the_next_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody would wait for their answers. So they do not become rarer, and what was answered in time is settled."""
    monkeypatch.setattr("worker.inquiry._MOST_ASKED", 1)
    made = in_doubt(9, lands=0.0)
    made.td.settings = replace(made.td.settings, job_seconds=50.0)

    assert [1] * 9 == [made.send().delivered for _ in range(9)]
    assert 9 == made.td.queries


def test_questions_without_an_answer_become_rarer() -> None:
    """A chunk that cannot be asked about costs a few queries a day, not one a minute."""
    made = failed(DOUBTED)
    made.clock.sleep(ASKABLE_SECONDS)
    made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.QUERY, status=500))
    asked: list[float] = []
    ask = made.sender_wiring.treasure_data.ask
    made.sender_wiring.treasure_data.ask = lambda *a, **k: (asked.append(made.clock.now()), ask(*a, **k))[1]  # type: ignore[method-assign]
    for _ in range(24 * 60):
        made.clock.sleep(60)
        made.send()

    assert 4 <= len(asked) <= 12
    assert LONGEST_PAUSE_SECONDS <= asked[-1] - asked[-2] < LONGEST_PAUSE_SECONDS + 120


def test_the_age_of_the_oldest_waiting_row_is_measured() -> None:
    """An alarm watches it. What was settled counts at once. Dead rows do not count, and without waiting ones it is 0."""
    made = failed(UNTRIED)
    made.fail(429)
    for pause, age in ((60, 60), (840, 900)):
        made.clock.sleep(pause)
        made.send()
        assert age == made.telemetry.gauges["OldestWaitingSeconds"]
    made.td.faults.clear()
    made.send()

    assert 0 == made.telemetry.gauges["OldestWaitingSeconds"]


def test_without_time_to_look_at_the_worklist_its_first_span_counts() -> None:
    """Thousands that do not count must not keep a run until Lambda ends it, and nobody hears of what waits. Few are read at first."""
    made = shops(TWO)
    asked: list[int] = []
    made.dynamodb.before["batch_get_item"] = lambda one: asked.append(len(one["RequestItems"][TABLE]["Keys"]))
    at = milliseconds(made.clock.now())
    for one in range(2000):
        made.ledger.append(spans.span(after=f"{one:03}", planned_at=at))
    made.clock.sleep(60)
    made.sender_wiring.sender.run(Deadline(made.clock, made.clock.now()))

    assert [10] * WORKLIST_KEYS == asked
    assert 60 == made.telemetry.gauges["OldestWaitingSeconds"]


def test_a_run_for_one_account_leaves_no_other_rows_of_a_span_waiting() -> None:
    """Nor does a run for dead rows, in a span that has none: what waits has its turn in the next minute."""
    made = failed(429, *SELECTED)
    made.fail(503, database="shop_db")
    made.send(State.DEAD)
    assert 0 == made.send(account="shop").delivered

    assert 1 == made.send().delivered
    assert ["b1"] == made.ids("blog_db", "views")
