"""The sender: the fate of chunks that wait, and of dead ones that an operator sends or drops."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar, override

import msgpack
import pytest
import redis

from doubles.treasure_data import API_KEY, Action, Fault, Kind, TreasureData
from shared.accounts import Account
from shared.envelope import Envelope, TableRows
from tests.support import spans
from tests.support.delivery import (
    BUCKET,
    KEYS,
    Delivery,
    KilledError,
    envelope,
    kill,
    lose_answer,
    once,
    other_sandbox,
    row,
)
from worker.deadline import Deadline
from worker.executor import InlineExecutor, Threads
from worker.health import PROBE_TABLE
from worker.ledger import WORKLIST_KEYS
from worker.selection import SCHEDULED, Selection
from worker.sender import (
    FIRST_PAUSE_SECONDS,
    LONGEST_PAUSE_SECONDS,
    LONGEST_QUERY_SECONDS,
    MOST_VAIN_PROBES,
    UNSETTLED_SECONDS,
    Report,
    Sender,
    _Database,
)
from worker.span import ChunkKey, Span, milliseconds
from worker.states import Decision, Entry, State
from worker.treasure_data import Reply
from worker.upload import Upload

AT = 1_700_000_000
CHUNK = ChunkKey.parse("shop/views/0")
ASKABLE_SECONDS = 71 * 60.0
"""After this many seconds Treasure Data can be asked about a doubt."""
ALL = (State.WAITING, State.DEAD)


def delivery(*data: bytes, **changes: Any) -> Delivery:
    """Return a delivery of these records, by default one of two rows, to databases that exist."""
    made = Delivery(**changes)
    made.map(shop="shop_db", blog="blog_db")
    for database in ("shop_db", "blog_db"):
        made.td.create(database, "views")
    made.put(*data or (envelope("shop", {"views": [row("e1"), row("e2")]}),))
    return made


def failed(status: int, *data: bytes, **changes: Any) -> Delivery:
    """Return a delivery of these records whose imports failed with the status; from now on they succeed."""
    made = delivery(*data, **changes)
    made.fail(status)
    assert made.deliver() is None
    made.td.faults.clear()
    return made.start()


def untried(**changes: Any) -> Delivery:
    """Return a delivery with one chunk of two rows that waits without a doubt."""
    return failed(429, **changes)


def doubted(**changes: Any) -> Delivery:
    """Return a delivery with one chunk of two rows with a doubt that Treasure Data does not have."""
    return failed(500, **changes)


def dead(**changes: Any) -> Delivery:
    """Return a delivery with a dead chunk of two rows."""
    return failed(415, **changes)


def unaskable(setting: str) -> Delivery:
    """Return a delivery with a chunk with an old doubt, and a key that may not query."""
    made = doubted(unaskable_doubt=setting)
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

    def watched(upload: Upload, timeout: float, deadline: Deadline) -> Reply:
        attempted.append(upload.key.name)
        before()
        reply = attempt(upload, timeout, deadline)
        after()
        return reply

    made.sender_wiring.uploader.attempt = watched  # type: ignore[method-assign]  # observed
    return attempted


def assert_delivered_once(made: Delivery) -> None:
    """Check that both rows were delivered once and nothing waits."""
    assert ["e1", "e2"] == sorted(made.ids("shop_db", "views"))
    assert ({}, {}) == (made.chunks(), span(made).entries)


# What is sent, and to where


@pytest.mark.parametrize("make", [untried, doubted])
def test_what_waits_is_delivered(make: Callable[[], Delivery]) -> None:
    """It leaves no entry in the ledger."""
    made = make()

    assert Report(delivered=2) == made.send()
    assert_delivered_once(made)
    assert 2 == made.telemetry.total("sent", "delivered")


def test_a_span_is_left_to_its_worker_while_one_may_run() -> None:
    """After that nobody else settles it."""
    made = delivery()
    made.dynamodb.before["update_item"] = once(kill)
    with pytest.raises(KilledError):
        made.deliver()
    made.start().clock.sleep(UNSETTLED_SECONDS - 1)
    assert Report(complete=False) == made.send()
    assert not span(made).settled
    made.clock.sleep(1)

    assert Report(delivered=2) == made.send()
    assert_delivered_once(made)


@pytest.mark.parametrize(("make", "database"), [(untried, "new_db"), (doubted, "shop_db")])
def test_only_rows_with_a_doubt_stay_with_their_database(make: Callable[[], Delivery], database: str) -> None:
    """Treasure Data may have them there, under that id; others follow their account."""
    made = make()
    unique_id = span(made).unique_id(CHUNK, database)
    made.map(shop="new_db")
    made.start()

    assert Report(delivered=2) == made.send()
    assert [(database, unique_id)] == [(one.database, one.unique_id) for one in made.td.imports() if one.rows]


def test_a_doubt_is_settled_in_the_database_where_it_arose() -> None:
    """A sender opened it at the account's new database; the account has been remapped since."""
    made = untried()
    made.map(shop="new_db")
    made.td.create("new_db", "views")
    made.start()
    made.fail(500, table="views", count=1, lands=0)
    assert Report(kept=2, complete=False) == made.send()
    made.map(shop="third_db")
    made.clock.sleep(ASKABLE_SECONDS)
    made.start()

    assert Report(delivered=2) == made.send()
    assert ["new_db"] == [one.database for one in made.td.imports() if one.rows]


@pytest.mark.parametrize(
    ("account", "report"),
    [
        (Account("new_db"), Report(delivered=2)),
        (Account("shop_db", "disabled"), Report(dead=2)),
        (None, Report(kept=2, complete=False)),
    ],
)
def test_rows_proved_absent_follow_their_account(account: Account | None, report: Report) -> None:
    """With the doubt, its database is gone too. They die if their account can have none by now, and wait while Redis does not say."""
    made = doubted()
    made.redis.flushall()
    if account is not None:
        made.redis.hset(KEYS.of("shop"), mapping=account.to_fields())
    made.clock.sleep(ASKABLE_SECONDS)
    made.start()

    assert report == made.send()
    assert {"views": 0} == made.td.counts()["shop_db"]
    assert (None, 1) == (entry(made).since, entry(made).generation)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (None, "unknown_account"),
        (Account("shop_db", "disabled").to_fields(), "disabled_account"),
        (Account("shop_db", "active", frozenset({"k1"})).to_fields(), None),
        ({"database": "No!"}, "invalid_account"),
    ],
)
def test_waiting_rows_of_a_removed_account_die(fields: dict[str, str] | None, reason: str | None) -> None:
    """An operator decides. A key that is revoked later does not matter where the plan did not need it."""
    made = untried()
    made.redis.delete(KEYS.of("shop"))
    if fields:
        made.redis.hset(KEYS.of("shop"), mapping=fields)
    made.start()

    assert (Report(dead=2) if reason else Report(delivered=2)) == made.send()
    assert ({"shop/views/0": ("dead", reason, 2)} if reason else {}) == made.chunks()
    assert (2 if reason else 0) == made.telemetry.counts["RowsDead"]


def test_rows_whose_account_could_not_be_looked_up_keep_their_key() -> None:
    """A key that is revoked before the account is known applies to them."""
    made = Delivery()
    made.redis.flushall()
    for key_id, name in (("k1", "e1"), ("k2", "e2")):
        made.put(envelope("shop", {"views": [row(name)]}, key_id=key_id, request_id=name))
    assert made.deliver() is None
    assert {"shop:k1/views/0", "shop:k2/views/0"} == made.chunks().keys()
    assert Report(kept=2, complete=False) == made.send() or made.send().kept
    made.redis.hset(KEYS.sentinel, mapping={"at": "now"})
    revoked = Account("shop_db", "active", frozenset({"k2"}))
    made.redis.hset(KEYS.of("shop"), mapping=revoked.to_fields())
    made.clock.sleep(UNSETTLED_SECONDS)
    made.start()

    assert Report(delivered=1, dead=1) == made.send()
    assert (["e1"], {"shop:k2/views/0": ("dead", "revoked_key", 1)}) == (
        made.ids("shop_db", "views"),
        made.chunks(),
    )


# Databases that fail


def test_no_rows_are_sent_before_a_probe_is_answered() -> None:
    """The probe is an import without rows. While it fails, nothing is written."""
    made = untried()
    made.fail(status=503, table=PROBE_TABLE)
    before = span(made)
    attempted = around_attempts(made)

    assert Report(kept=2, complete=False) == made.send()
    assert ([], before) == (attempted, span(made))
    assert [["shop_db"]] == [line["failing"] for line in made.telemetry.said("sent")]


def many(count: int, status: int = 429, lands: float | None = None, **changes: Any) -> Delivery:
    """Return a delivery with a chunk in each of several spans, whose imports failed with the status; Treasure Data has what landed."""
    made = delivery(*(envelope("shop", {"views": [row(f"e{n}", AT + n)]}) for n in range(count)), **changes)
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
    """While it fails, no span is written, however many there are."""
    made = many(9, executors=executors)
    made.fail(status=503)
    probed = probes(made)
    made.dynamodb.calls.clear()

    assert (0, 9, False) == _shown(made.send())
    assert ["shop_db"] == probed
    assert "update_item" not in made.dynamodb.calls


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


class Busy(Sender):
    """Finds a database busy in its first pass, and notes how many of the turns that wait for it hold a span."""

    held: ClassVar[list[int]] = []

    def _pass(self, run: Any, turns: Any) -> Any:
        run.databases.setdefault("shop_db", _Database(is_proven=True, limit=1, under_way=1))
        waiting = super()._pass(run, turns)
        Busy.held.append(sum(hasattr(one, "span") for one in waiting))
        run.databases["shop_db"].under_way = 0
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
    made = Delivery()
    made.map(**{f"acct_{n}": f"db_{n}" for n in range(count)})
    made.put(*(envelope(f"acct_{n}", {"views": [row(f"e{n}")]}) for n in range(count)))
    made.td.faults.add(Fault(kind=Kind.REFUSE))
    assert made.deliver() is None
    probed = probes(made)
    made.send()
    first = len(probed)
    made.send()
    assert (count, MOST_VAIN_PROBES) == (first, len(probed) - first)
    made.td.faults.clear()

    assert Report(delivered=count) == made.send()


def test_redis_is_asked_once_for_all_spans_while_it_is_away() -> None:
    """Spans that wait for it are not read again in each run; once it is back, their rows are sent."""
    made = Delivery()
    made.map(shop="shop_db")
    made.put(*(envelope("shop", {"views": [row(f"e{n}")]}) for n in range(90)))
    client, connected = made.redis, list[str]()

    class Away:
        """Refuses connections."""

        def pipeline(self, **_: Any) -> Any:
            connected.append("pipeline")
            raise redis.ConnectionError("away")

    made.redis = Away()
    made.start()
    for number in range(90):
        assert made.deliver(number, number + 1) is None
    connected.clear()
    made.clock.sleep(60)
    assert (0, 90) == _shown(made.send())[:2]
    assert 1 == len(connected)
    made.clock.sleep(60)
    made.dynamodb.calls.clear()
    made.send()
    assert 2 == len(connected)
    assert made.dynamodb.calls.count("get_item") < 50
    made.redis = client
    made.clock.sleep(60)

    assert Report(delivered=90) == made.send()


def test_throttling_halves_the_rate_and_closes_nothing() -> None:
    """The others are delivered."""
    made = many(6)
    made.fail(429, table="views", count=1)

    assert (5, 1) == _shown(made.send())[:2]
    assert Report(delivered=1) == made.send()


# Treasure Data's answers


def test_a_refused_chunk_without_a_doubt_dies_with_the_reason() -> None:
    """Nothing has to be asked."""
    made = untried()
    made.fail(415, table="views")

    assert Report(dead=2) == made.send()
    assert {"shop/views/0": ("dead", "http_415", 2)} == made.chunks()
    assert entry(made).since is None


@pytest.mark.parametrize("accepted", [False, True])
def test_a_refused_chunk_with_a_doubt_is_asked_about(accepted: bool) -> None:
    """An earlier attempt may have delivered the rows."""
    made = untried()
    made.fail(500, table="views", count=1, lands=0 if accepted else None)
    made.send()
    made.td.faults.clear()
    made.fail(415, table="views")
    made.send()
    assert {"shop/views/0": ("waiting", "http_415", 2)} == made.chunks()
    made.clock.sleep(ASKABLE_SECONDS)

    assert Report(delivered=2 * accepted, dead=2 * (not accepted)) == made.send()
    assert ["e1", "e2"] * accepted == made.ids("shop_db", "views")


@pytest.mark.parametrize("make", [untried, doubted])
def test_a_refused_send_changes_no_doubt(make: Callable[[], Delivery]) -> None:
    """It opens none, and an earlier one stays."""
    made = make()
    before = entry(made)
    made.clock.sleep(60)
    made.fail(429, table="views")

    assert Report(kept=2, complete=False) == made.send()
    assert before.since == entry(made).since


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
    made = Delivery(executors=Counted)
    made.map(shop="shop_db")
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


# Halves


def test_a_chunk_that_is_too_large_is_halved_within_one_run() -> None:
    """The halves are written first, then sent under their own ids."""
    made = untried()
    made.td.settings = replace(made.td.settings, largest_import=70)
    states: list[Entry] = []
    attempted: list[str] = []
    attempted = around_attempts(
        made, before=lambda: states.append(span(made).entry(ChunkKey.parse(attempted[-1])))
    )

    assert Report(delivered=2) == made.send()
    assert_delivered_once(made)
    assert 3 == len(attempted) == len([one for one in states if one.since is not None])
    assert [1, 1] == [len(one.rows) for one in made.td.imports() if one.rows]


def test_a_chunk_with_a_doubt_is_halved_only_after_treasure_data_was_asked() -> None:
    """Treasure Data may have it whole. Only a single row that is too large dies."""
    made = doubted()
    largest = made.td.settings.largest_import
    made.td.settings = replace(made.td.settings, largest_import=1)
    made.td.create("shop_db", PROBE_TABLE)
    made.sender_wiring.health.succeeded("shop_db")
    made.send()
    assert {"shop/views/0": ("waiting", "http_413", 2)} == made.chunks()
    made.clock.sleep(ASKABLE_SECONDS)
    made.sender_wiring.health.succeeded("shop_db")

    assert Report(dead=2) == made.send()
    assert {f"shop/views/0.{n}": ("dead", "row_too_large", 1) for n in range(2)} == made.chunks()
    made.td.settings = replace(made.td.settings, largest_import=largest)
    assert Report(delivered=2) == made.send(State.DEAD)
    assert_delivered_once(made)


@pytest.mark.parametrize("counted", [1, 3, 5])
def test_rows_of_an_envelope_with_a_wrong_count_die_when_they_are_halved(counted: int) -> None:
    """Which rows a half has is unknown, so it is never sent; nothing is tried for ever."""
    rows = b"".join(msgpack.packb(row(f"e{n}")) for n in range(3))
    blocks = (TableRows("views", counted, rows), TableRows("views", 1, msgpack.packb(row("x"))))
    made = delivery(Envelope("shop", "k1", 1_700_000_000_000, "r", 0, blocks).encode())
    made.td.settings = replace(made.td.settings, largest_import=70)
    made.deliver()
    made.clock.sleep(UNSETTLED_SECONDS)
    for _ in range(8):
        made.send()

    assert {} == made.chunks(State.WAITING)
    assert counted + 1 == len(made.ids("shop_db", "views")) + sum(
        one[2] for one in made.chunks(State.DEAD).values()
    )
    assert {"wrong_row_count"} == {one[1] for one in made.chunks(State.DEAD).values()} or counted == 3


# Dead chunks, and decisions by an operator


def test_dead_chunks_wait_for_an_operator() -> None:
    """Sent by hand, those with rows are delivered, and undecodable ones stay."""
    made = Delivery()
    made.put(envelope("shop", {"views": [row("e1")], "clicks": [row("e2")]}), b"junk")
    assert made.deliver() is None
    made.map(shop="shop_db")
    made.start()

    assert Report() == made.send()
    assert Report(delivered=2, kept=1) == made.send(State.DEAD)
    assert {"clicks": 1, "views": 1} == made.td.counts()["shop_db"]
    assert [("dead", "undecodable", 1)] == list(made.chunks().values())


def test_a_dead_chunk_that_is_refused_again_stays_dead() -> None:
    """The report counts it as kept, not as newly dead."""
    made = dead()
    made.fail(415, table="views")

    assert Report(kept=2) == made.send(State.DEAD)
    assert {"shop/views/0": ("dead", "http_415", 2)} == made.chunks()


def test_an_unaskable_chunk_is_sent_and_reported() -> None:
    """The key may not query, so the rows are sent under a new id, and the log says so."""
    made = unaskable("send")
    before = span(made).unique_id(CHUNK, "shop_db")

    assert Report(delivered=2) == made.send()
    assert 2 == made.telemetry.counts["RowsAmbiguous"]
    (line,) = made.telemetry.said("ambiguous: sent again although Treasure Data may have the rows")
    assert (before, 2) == (line["unique_id"], line["rows"])
    assert [before] != [one.unique_id for one in made.td.imports() if one.rows]


def test_an_unaskable_chunk_can_be_kept() -> None:
    """By setting, it waits for an operator, who may send it under a new id."""
    made = unaskable("keep")
    assert (0, 2) == _shown(made.send())[:2]
    assert 0 == made.telemetry.counts["RowsAmbiguous"]

    assert Report(delivered=2) == made.send(decision=Decision.SEND)


def test_a_query_that_is_forbidden_once_is_repeated() -> None:
    """One refusal does not prove that a key that may write may not query."""
    made = doubted()
    made.clock.sleep(ASKABLE_SECONDS)
    made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.QUERY, status=403, count=1))

    assert Report(delivered=2) == made.send()
    assert 0 == made.telemetry.counts["RowsAmbiguous"]


@pytest.mark.parametrize("make", [untried, dead])
def test_an_operator_can_drop_rows_without_a_doubt(make: Callable[[], Delivery]) -> None:
    """They count as dropped, and nothing is sent."""
    made = make()

    assert Report(dropped=2) == made.send(*ALL, decision=Decision.DROP)
    assert {"shop/views/0": ("dropped", "", 2)} == made.chunks()
    assert Report() == made.send(*ALL)
    assert [] == [one for one in made.td.imports() if one.rows]


def test_a_drop_sends_nothing() -> None:
    """Not even rows that Treasure Data does not have, once it can be asked."""
    made = doubted()
    made.clock.sleep(ASKABLE_SECONDS)

    assert Report(kept=2) == made.send(*ALL, decision=Decision.DROP)
    assert [] == made.ids("shop_db", "views")


# Selection


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
        ({"account": "nobody"}, []),
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
    """Nothing is sent or dropped by mistake."""
    with pytest.raises(ValueError, match=r"is not a valid|does not name"):
        Selection.from_event(event)


def test_a_scheduled_event_s_account_is_not_a_filter() -> None:
    """The account in EventBridge's event is AWS's. The schedule selects everything that waits."""
    event = {"version": "0", "source": "aws.events", "account": "123456789012"}

    assert Selection(SCHEDULED) == Selection.from_event(event)


# Races, damage and lost answers


@pytest.mark.parametrize("make", [untried, doubted, dead])
def test_an_overtaken_sender_decides_again(make: Callable[[], Delivery]) -> None:
    """It finds everything done, and reports the rows as delivered."""
    made = make()
    other = other_sandbox(made)
    made.dynamodb.before = {"update_item": once(lambda: other.send(*ALL))}

    assert Report(delivered=2) == made.send(*ALL)
    assert_delivered_once(made)
    assert 0 == made.td.duplicates


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_refusal_during_another_sender_s_send_is_a_doubt(moment: str) -> None:
    """A sender that was killed after its send, before or after our write, may have delivered the rows."""
    made = untried()
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
    made = untried()
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
    """Their entry says so, and keeps a doubt."""
    made = failed(500, *(envelope(name, {"views": [row(name)]}) for name in ("shop", "blog")))
    (gone,) = made.span_objects()
    made.s3.delete_object(Bucket=BUCKET, Key=gone)
    since = entry(made).since

    assert Report(dead=2) == made.send()
    assert {("dead", "object_gone", 1)} == set(made.chunks().values())
    assert since == entry(made).since


@pytest.mark.parametrize("is_damaged", [False, True])
def test_an_object_that_cannot_be_read_is_read_later(is_damaged: bool) -> None:
    """S3 does not answer, or it holds other bytes than the index's digest says: no entry changes, and nothing is sent."""
    made = untried()
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


# Time


def test_a_run_stops_when_its_time_is_up() -> None:
    """It reports that it is not complete, and later runs continue."""
    made = failed(429, envelope("shop", {f"table_{n}": [row(f"x{n}")] for n in range(22)}))
    made.td.faults.add(Fault(kind=Kind.SLOW, action=Action.IMPORT, seconds=9.0))
    began = made.clock.now()
    first = made.send()
    assert (False, 22) == (first.complete, first.delivered + first.kept)
    assert 0 < first.delivered < 22
    assert made.clock.now() - began <= 120
    made.td.faults.clear()

    assert Report(delivered=first.kept) == made.send()


def test_a_run_without_time_does_nothing() -> None:
    """It does not report completion."""
    made = untried()
    before = span(made)
    report = made.sender_wiring.sender.run(Deadline(made.clock, made.clock.now()))

    assert (0, False) == (report.delivered, report.complete)
    assert before == span(made)


def test_a_query_that_takes_too_long_is_repeated_by_a_later_run() -> None:
    """A run waits for the answer for a while and then goes on."""
    made = doubted()
    made.clock.sleep(ASKABLE_SECONDS)
    quick = made.td.settings
    made.td.settings = replace(quick, job_seconds=300.0)
    began = made.clock.now()
    assert (0, 2) == _shown(made.send())[:2]
    assert 60 <= made.clock.now() - began < LONGEST_QUERY_SECONDS + 20
    made.td.settings = quick
    made.clock.sleep(FIRST_PAUSE_SECONDS)

    assert Report(delivered=2) == made.send()


def test_questions_without_an_answer_become_rarer() -> None:
    """A chunk that cannot be asked about costs a few queries a day, not one a minute."""
    made = doubted()
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


# The age of the oldest row that waits


def test_the_age_of_the_oldest_waiting_row_is_measured() -> None:
    """An alarm watches it. Dead rows do not count, and without waiting ones it is 0."""
    made = untried()
    made.clock.sleep(900)
    made.fail(429)
    made.send()
    assert 900 == made.telemetry.gauges["OldestWaitingSeconds"]
    made.td.faults.clear()
    made.send()

    assert 0 == made.telemetry.gauges["OldestWaitingSeconds"]


def test_a_span_of_a_killed_worker_counts_only_if_the_sender_cannot_send_it() -> None:
    """Until its worker can no longer last, and for another run, nobody need look."""
    made = delivery()
    made.dynamodb.before["update_item"] = once(kill)
    with pytest.raises(KilledError):
        made.deliver()
    made.start()
    made.clock.sleep(UNSETTLED_SECONDS - 1)
    made.send()
    assert 0 == made.telemetry.gauges["OldestWaitingSeconds"]
    made.fail(503, table=PROBE_TABLE)
    made.clock.sleep(120)
    made.send()

    assert UNSETTLED_SECONDS + 119 == made.telemetry.gauges["OldestWaitingSeconds"]


def test_without_time_to_look_at_the_worklist_its_first_span_counts() -> None:
    """Thousands that do not count must not keep a run until Lambda ends it, and nobody hears of what waits. Few are read at first."""
    made = delivery()
    asked: list[int] = []
    made.dynamodb.before["batch_get_item"] = lambda call: asked.extend(
        len(wanted["Keys"]) for wanted in call["RequestItems"].values()
    )
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
