"""Lists the protocol's defences: in which module each is, how to build the functions without it, and what then goes wrong.

A defence is left out by replacing a part, a setting or a client. A schedule with the trouble that it protects against then breaks a
promise or a rule of the specification, which it does not with the defence. Some need an interleaving that schedules rarely have:
those have one of `chaos.exhaustive`.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from copy import copy, replace
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any

from botocore.exceptions import ReadTimeoutError

from chaos import clients
from chaos.functions import Functions, Weakness
from chaos.trouble import Kind
from chaos.world import TD_MEMORY_SECONDS, World
from ops.books.ledger_repair import LedgerRepair
from shared.errors import BucketUnavailableError, IndexLostError
from worker.again import Again, Times
from worker.bucket import Bucket
from worker.claims import LATE_SECONDS, Claims, Decided
from worker.deadline import Deadline
from worker.forced_replay import ForcedReplays
from worker.forget.cut import Forgetting
from worker.forget.person import Persons
from worker.forget.run import Forget
from worker.forget.search import ForgetSearch
from worker.health import DatabaseHealth
from worker.ledger import WORKLIST_KEYS, Claim, Gap, Ledger
from worker.membership import Membership
from worker.passing import CLOCK_SECONDS, MARGIN_SECONDS, Passing
from worker.record import Records
from worker.restored import RestoreGuard
from worker.shards import Shards
from worker.span import ChunkKey, Span
from worker.span_object import SpanObjects
from worker.states import UNSETTLED, Action, Decision, Entry, Event, Happening, Presence, Rules, Step
from worker.sweeper import Sweep, Sweeper, age
from worker.treasure_data.answer import TdAnswer
from worker.treasure_data.client import ACCEPTED, Outcome, TreasureDataClient
from worker.treasure_data.statement import Statements
from worker.turn import Turns
from worker.watermark import INGEST_SECONDS, Watermarks
from worker.worker import Worker


@dataclass(frozen=True, slots=True)
class Defence:
    """One defence."""

    module: str  # where it is
    name: str  # a description
    weakness: Weakness  # leaves it out
    trouble: str = ""  # the names of the kinds of trouble that reveal its absence
    seed: int = 0  # a schedule with that trouble that does
    meets: str = ""  # a scenario of `chaos.exhaustive` that does; it takes less time than a schedule
    # what else is constant in the schedule, by its name in `Setup`
    setup: Mapping[str, Any] = field(default_factory=dict)

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds of trouble that reveal its absence."""
        return tuple(Kind[name] for name in self.trouble.split())


def without(weakness: Weakness) -> Callable[[World], Functions]:
    """Return a builder of functions that lack a defence."""
    return lambda world: Functions(world, weakness)


def _but(kind: type, **methods: Any) -> Weakness:
    """Replace methods of a class."""
    weak = type(f"Weak{kind.__name__}", (kind,), methods)
    return Weakness(replaced={kind: weak})


def _around(kind: type, name: str, change: Callable[..., Any]) -> Weakness:
    """Replace a method by a function that is given the method before its arguments."""
    method = getattr(kind, name)
    return _but(kind, **{name: lambda self, *args, **more: change(partial(method, self), *args, **more)})


# The ledger, objects and claims. A function takes the place of a method: it is given the object or, by `_around`, the method.


def _hopeful(put: Any, *args: Any) -> None:
    with suppress(BucketUnavailableError):
        put(*args)


def _overwriting(ledger: Any, span: Span) -> Any:
    span = replace(span, version=1, writer=ledger._writer())
    ledger._put(ledger._new_item(span))
    return True, span


def _any_version(update: Any, *args: Any) -> tuple[Span, dict[str, Any]]:
    written, request = update(*args)
    request["ExpressionAttributeValues"].pop(":version")
    return written, request | {"ConditionExpression": "attribute_exists(pk)"}


def _two_writes(ledger: Any, old: Span, new: Span) -> Any:
    won, _ = ledger.update(old)
    return won and ledger.append(new)[0]


def _between_borders(membership: Any, root: Any, number: str, _beside: Any = (), **_: Any) -> Span | Gap:
    """Take every record between a span's borders as one of the span's."""
    chain, limit = root, None
    while True:
        span = membership._ledger.preceding(chain, number)
        if span is None or span.last < number:
            return Gap(chain, "000" if span is None else span.last, limit, span.latest if span else 0)
        if number >= span.first:
            found: Span = span
            return found
        chain, limit = chain.before(span.after), span.first


def _numbers_between(_membership: Any, span: Span, beside: Sequence[str] = ()) -> frozenset[str]:
    return frozenset(one for one in beside if span.first <= one <= span.last)


def _empty_if_lost(numbers: Any, *args: Any) -> Any:
    try:
        return numbers(*args)
    except IndexLostError:
        return frozenset()


def _nothing_is_late(decide: Any, records: Records, gap: Gap) -> Any:
    """Claim nothing for a record because it is late, by its own arrival and those before it."""
    prompt = Records.of([record._replace(arrived_at=record.received_at / 1000) for record in records])
    decided = decide(prompt, replace(gap, latest=0))
    return replace(decided, records=records[: len(decided.records)])


_CLAIMS_FIRST = _but(
    Claims,
    decide=lambda claims, *args: replace(Claims.decide(claims, *args), with_append={}),
    _claims_of=lambda claims, owners, **_: Claims._claims_of(claims, owners, in_gap=False),
)

# Rows that were put again


def _one_shard_alone(again: Any, wanted: Mapping[str, Times], deadline: Deadline) -> Any:
    """Ask only one shard whether it has passed."""
    whole, first, alone = again._passing, copy(again._passing), copy(again)
    first.shards = lambda: whole.shards()[:1]
    alone._passing = copy(whole)
    alone._passing.obstacle = first.obstacle
    return Again.decide(alone, wanted, deadline)


def _looking_first(again: Any, wanted: Mapping[str, Times], deadline: Deadline) -> Any:
    """Read the indexes before the shards are asked whether they have passed."""
    seen, early = again._look_up(wanted, deadline), copy(again)
    early._look_up = lambda some, _deadline: {one: seen[one] for one in some if one in seen}
    return Again.decide(early, wanted, deadline)


# Doubt


def _certain(follow: Any, entry: Entry, happening: Happening, *events: Event) -> Any:
    """Believe, of some events, that no attempt was accepted."""
    return follow(entry, replace(happening, certain=happening.certain or happening.event in events))


def _believing(*events: Event) -> Weakness:
    return _around(Rules, "follow", lambda follow, *args: _certain(follow, *args, *events))


_DROPS_ANYTHING = _but(
    Rules,
    follow=lambda rules, *args: _certain(partial(Rules.follow, rules), *args, Event.DROPPED),
    next_step=lambda rules, entry, obstacle, decision, now: (
        Step(Action.APPLY, Event.DROPPED)
        if decision is Decision.DROP
        else Rules.next_step(rules, entry, obstacle, decision, now)
    ),
)
_serial = itertools.count()


def _answering(change: Callable[[Outcome], Outcome]) -> Weakness:
    """Change what imports are answered."""
    return _around(TreasureDataClient, "send", lambda send, *args: change(send(*args)))


def _accepting(*reasons: str) -> Weakness:
    """Treat responses with these reasons as acceptance, although they do not prove it."""
    return _answering(lambda outcome: ACCEPTED if outcome.reason.startswith(reasons) else outcome)


def _todays_database(turns: Any, span: Span, key: ChunkKey, entry: Entry, _accounts: Any) -> Any:
    accounts = turns._accounts.resolve([key.account])
    return Turns._destination(turns, span, key, replace(entry, since=None), accounts)


def _no_columns_no_rows(client: Any, database: str, table: str, *args: Any) -> list[Presence]:
    found = TreasureDataClient.ask(client, database, table, *args)
    is_shown = Presence.UNDECIDED not in found or client.shows_columns(database, table) is not False
    return found if is_shown else _decided(found)


def _decided(found: list[Presence]) -> list[Presence]:
    return [Presence.ABSENT if one is Presence.UNDECIDED else one for one in found]


_ANY_JOB = _but(
    TreasureDataClient,
    ask=lambda client, *args: TreasureDataClient.ask(client, *args[:4]),
    # by this clock no job is old
    statements=property(
        lambda client: Statements(client._api, SimpleNamespace(now=float, sleep=client._clock.sleep))
    ),
)

# The stream and Redis


def _unheard_put(then: Callable[[Any, clients.Call], Any]) -> Weakness:
    """Do something else after a put that timed out."""

    def change(world: World) -> None:
        put = world.kinesis._put

        def weak(call: clients.Call) -> Any:
            try:
                return put(call)
            except ReadTimeoutError:
                return then(put, call)

        world.kinesis.__dict__["_put"] = weak

    return Weakness(changes=change)


# Watermarks


def _index_alone(watermarks: Any, ends: Any, began: float) -> Iterator[Span]:
    """Believe the ledger's index, which may lag."""
    keys = range(WORKLIST_KEYS)
    listed = {place for number in keys for place in watermarks._ledger.worklist("waiting", number)}
    for span in Watermarks._spans(watermarks, ends, began):
        if span.place in listed or not UNSETTLED & span.states():
            yield span


# Forgetting


def _certain_cut(cut: Any, span: Span, *args: Any) -> Any:
    """Cut a chunk as if nothing of it were in doubt."""
    return cut(
        replace(span, entries={key: replace(one, since=None) for key, one in span.entries.items()}), *args
    )


_NO_NAMES = TdAnswer(200, b'{"databases": [], "tables": []}')
_UNDECIDED_IS_ABSENT = _around(TreasureDataClient, "ask", lambda ask, *args: _decided(ask(*args)))
_ASKED = "TD_LOST_ANSWER TD_OUTAGE KILL"
_WATCHED = {"watch_every": 20.0}
# fmt: off
ALL: tuple[Defence, ...] = (
    Defence("worker/span_object.py", "an object is stored before its span is appended", _around(SpanObjects, "put", _hopeful), "S3_ERROR S3_LATE TD_5XX", 1),
    Defence("worker/span_object.py", "the digest of S3's bytes is checked", _but(SpanObjects, _part=lambda self, name, part: self._bucket.get(name, (part.offset, part.length)) or b""), "S3_OTHER_OBJECT TD_REJECTS_TABLE TD_BROKEN_DATABASE", 6),
    Defence("worker/bucket.py", "a put to S3 counts only with the checksum of its bytes", _but(Bucket, put=lambda self, name, body: self._s3.put_object(Bucket=self._name, Key=name, Body=body)), "S3_FOREIGN_PAGE TD_REJECTS_TABLE TD_BROKEN_DATABASE"),
    Defence("worker/ledger.py", "a span is appended once", _but(Ledger, append=_overwriting), "ABANDON TD_SLOW REPLAY BORDERS", 1, meets="two workers of one batch, rows are rejected"),
    Defence("worker/ledger.py", "a write asks for the version that it read", _around(Ledger, "_update", _any_version), "TD_REJECTS_TABLE ABANDON TD_SLOW TD_HANG PAUSE SEND", 6, meets="two senders of waiting rows"),
    Defence("worker/ledger.py", "a chunk and its new rows change places in one transaction", _but(Ledger, replace=_two_writes), "EDIT TD_REJECTS_TABLE KILL DYNAMODB_ERROR", 1, meets="two edits of dead rows"),
    Defence("worker/ledger.py", "an unanswered statement claims nothing", _around(Ledger, "claim", lambda claim, wanted, seconds: {one: Claim(owner) for one, owner in wanted.items()} | claim(wanted, seconds)), "DYNAMODB_PARTIAL CLIENT_DEAF KINESIS_LOST_ANSWER SQS_TWICE", 1),
    Defence("worker/ledger.py", "a forced replay's tag keeps its range", _but(Ledger, bind_tag=lambda _self, _tag, wanted: wanted), "FORCE", 1),
    Defence("worker/ledger.py", "the chains of shards that the stream no longer lists are known", _but(Ledger, chains=lambda _self: []), "WEEKS RESHARD QUEUE_OFF KINESIS_LOST_ANSWER"),
    Defence("worker/membership.py", "a lost index does not show that a record was passed over", _around(Membership, "numbers", _empty_if_lost), "WEEKS CLIENT_DEAF KINESIS_LOST_ANSWER"),
    Defence("worker/claims.py", "a claim outlives every copy", _but(Claims, seconds_kept=lambda _self: 5 * 86_400), "WEEKS CLIENT_DEAF KINESIS_LOST_ANSWER", 1),
    Defence("worker/membership.py", "a record is in a span only if the span's index has it", _but(Membership, locate=_between_borders, numbers=_numbers_between), "LANES FILTERED", 2),
    Defence("worker/claims.py", "copies of an envelope have one claim", _but(Claims, decide=lambda _self, records, _gap: Decided(records)), "KINESIS_LOST_ANSWER KILL SQS_TWICE KINESIS_TIMEOUT CLIENT_DEAF"),
    Defence("worker/claims.py", "records in gaps claim", _around(Claims, "decide", lambda decide, records, gap: decide(records, replace(gap, chain=gap.chain.root))), "KINESIS_LOST_ANSWER FILTERED PASSED_OVER LANES KINESIS_LATE", 1),
    Defence("worker/claims.py", "in a gap, claims are made with the append", _CLAIMS_FIRST, "CLIENT_DEAF FILTERED PASSED_OVER LANES KILL PAUSE ABANDON", 6),
    Defence("worker/claims.py", "a claim does not stay with a record that was passed over", _but(Claims, _is_passed=lambda *_: False), meets="a copy beside a replay of the one that was passed over with the claim"),
    Defence("worker/claims.py", "records that arrive late claim", _around(Claims, "decide", _nothing_is_late), "KINESIS_LATE KINESIS_LOST_ANSWER"),
    Defence("worker/again.py", "rows that were put again are looked for", _but(Again, decide=lambda _self, wanted, _deadline: (dict.fromkeys(wanted, Event.NO_COPY), "")), "KINESIS_LOST_ANSWER"),
    Defence("worker/again.py", "every shard must have passed before rows that were put again are decided", _but(Again, decide=_one_shard_alone), "KINESIS_AUTO KINESIS_LOST_ANSWER LANES DYNAMODB_ERROR", 1),
    Defence("worker/again.py", "indexes are read after the shards have passed", _but(Again, decide=_looking_first), meets="a sender decides while a first copy that landed late is planned"),
    Defence("worker/passing.py", "rows that were put again wait until copies claim", _around(Passing, "obstacle", lambda obstacle, moment, **more: obstacle(moment - LATE_SECONDS * 1000, **more)), "KINESIS_LATE KINESIS_LOST_ANSWER"),
    Defence("worker/passing.py", "the chain of a closed shard is closed before it counts as passed", _but(Ledger, close=lambda _self, _chain: True), "RESHARD KINESIS_LOST_ANSWER DYNAMODB_ERROR ABANDON PAUSE"),
    Defence("worker/shards.py", "a listing of shards must cover every key", _but(Shards, whole=lambda self: list(self.all())), "KINESIS_LISTING KINESIS_LOST_ANSWER KINESIS_AUTO DYNAMODB_ERROR", 32),
    Defence("worker/shards.py", "a warm sandbox notices that the stream was recreated", _but(Shards, _list=lambda shards: None if shards._chains else Shards._list(shards)), "RECREATE", 2),
    Defence("worker/shards.py", "a recreated stream has its own chains", _around(Shards, "chain", lambda chain, shard: replace(chain(shard), start="0")), "RECREATE"),
    Defence("ingest/stream.py", "a put in doubt goes to the queue", _unheard_put(lambda *_: {"SequenceNumber": "1", "ShardId": "shardId-000000000000"}), "KINESIS_TIMEOUT"),
    Defence("ingest/stream.py", "botocore does not retry puts", _unheard_put(lambda put, call: put(call)), "KINESIS_LOST_ANSWER"),
    Defence("worker/states.py", "a send is repeated only while Treasure Data remembers its id", _but(Rules, may_repeat=lambda *_: True), "TD_LOST_ANSWER TD_OUTAGE KILL STANDSTILL", 6),
    Defence("worker/states.py", "a refusal after a doubt proves nothing", _believing(Event.REFUSED, Event.PARTLY_REFUSED), "TD_LOST_ANSWER TD_5XX TD_REJECTS_TABLE", 1, meets="two senders, an answer is lost, then the rows are rejected"),
    Defence("worker/states.py", "a chunk that was not sent keeps the doubt that another opened", _believing(Event.UNANSWERED), "TD_LOST_ANSWER TD_5XX REMAP", 2),
    Defence("worker/states.py", "rows that Treasure Data may have are not dropped", _DROPS_ANYTHING, "DROP TD_LOST_ANSWER TD_OUTAGE", 1, meets="a drop of rows in doubt"),
    Defence("worker/states.py", "a chunk with rejected rows is halved", _around(Rules, "follow", lambda follow, entry, happening: follow(entry, replace(happening, divisible=False))), "TD_BAD_ROWS", 2),
    Defence("worker/treasure_data/question.py", "Treasure Data is queried about doubts", _but(TreasureDataClient, ask=lambda *args: [Presence.ABSENT for _ in args[3]]), _ASKED, 1),
    Defence("worker/treasure_data/question.py", "queries wait until rows can be seen", Weakness(settings={"td_query_delay_minutes": -TD_MEMORY_SECONDS / 60}), "TD_LOST_ANSWER TD_OUTAGE OVERRUN ABANDON SEND TD_LATE", 6),
    Defence("worker/treasure_data/question.py", "a truncated response does not prove absence", _UNDECIDED_IS_ABSENT, f"TD_TRUNCATED {_ASKED}", 3),
    Defence("worker/treasure_data/question.py", "a page does not prove absence", _UNDECIDED_IS_ABSENT, f"TD_FOREIGN_PAGE {_ASKED}", 3),
    Defence("worker/treasure_data/question.py", "a query that ran too early does not prove absence", _ANY_JOB, f"TD_STALE_JOB {_ASKED}", 1),
    Defence("worker/treasure_data/question.py", "a schema that does not show columns yet does not prove absence", _but(TreasureDataClient, ask=_no_columns_no_rows), f"TD_SCHEMA_LAGS {_ASKED}", 1),
    Defence("worker/treasure_data/question.py", "a schema that never shows columns does not prove absence", _but(TreasureDataClient, ask=_no_columns_no_rows), f"TD_NO_SCHEMA {_ASKED}", 1),
    Defence("worker/treasure_data/question.py", "a 404 means gone only if a listing confirms it", _around(TreasureDataClient, "_api", lambda api, method, *path, **options: _NO_NAMES if "list" in path else api(method, *path, **options)), f"TD_WRONG_HOST {_ASKED}", 3),
    Defence("worker/turn.py", "a doubt keeps its database", _but(Turns, _destination=_todays_database), "REMAP TD_LOST_ANSWER KILL TD_5XX", 1),
    Defence("worker/forced_replay.py", "a forced replay that is repeated appends nothing", _around(ForcedReplays, "run", lambda run, wanted, *args: run(replace(wanted, tag=f"{wanted.tag}-{next(_serial)}"), *args)), "FORCE", 1),
    Defence("worker/treasure_data/client.py", "every attempt uses the same unique_id", _around(TreasureDataClient, "send", lambda send, database, table, _id, *args: send(database, table, f"{next(_serial):032x}", *args)), "TD_LOST_ANSWER"),
    Defence("worker/treasure_data/client.py", "the MD5 of accepted bytes is checked", _accepting("md5_mismatch"), "TD_WRONG_MD5", 1),
    Defence("worker/treasure_data/client.py", "a page with status 200 is not acceptance", _accepting("undocumented_answer"), "TD_FOREIGN_PAGE"),
    Defence("worker/treasure_data/client.py", "empty JSON with status 200 is not acceptance", _accepting("undocumented_answer"), "TD_EMPTY_JSON"),
    Defence("worker/treasure_data/client.py", "a 206 is not acceptance", _accepting("http_206"), "TD_PARTIAL"),
    Defence("worker/treasure_data/client.py", "a redirect is not acceptance", _accepting("http_3"), "TD_REDIRECT"),
    Defence("worker/treasure_data/client.py", "a wrong host's 409 is not acceptance", _accepting("http_409"), "TD_WRONG_HOST"),
    Defence("worker/treasure_data/client.py", "only Treasure Data's own error document is a rejection", _answering(lambda outcome: replace(outcome, surely_not=True) if outcome.reason.startswith("http_4") else outcome), "TD_FOREIGN_REFUSAL", 1),
    Defence("worker/account_cache.py", "without the sentinel no account is treated as unknown", Weakness(changes=lambda world: world.redis.__dict__.update(hget=lambda *_: "always")), "REDIS_EMPTY", 2),
    Defence("worker/worker.py", "a replay appends only in gaps", _but(Worker, _passed=lambda _self, batch: batch.records), "REPLAY STANDSTILL", 3),
    Defence("worker/worker.py", "a batch is held from its first unsettled record", _around(Worker, "run", lambda run, *args: run(*args) | {"batchItemFailures": []}), "REDIS_DOWN DYNAMODB_ERROR"),
    Defence("worker/restored.py", "a restored ledger is noticed", _but(RestoreGuard, check=lambda _self: False), "DYNAMODB_RESTORED", 1),
    Defence("worker/restored.py", "an instance that saw the ledger's table long ago does not go on", _but(RestoreGuard, _seen_at=property(lambda guard: guard._clock.now() - 100, lambda *_: None)), "DYNAMODB_RESTORED DYNAMODB_ERROR DYNAMODB_LOST_ANSWER"),
    Defence("ops/books/ledger_repair.py", "after a restore the last spans' claims are made again", _but(LedgerRepair, _claim_again=lambda *_: None), "DYNAMODB_RESTORED CLIENT_DEAF KINESIS_LOST_ANSWER", 14),
    Defence("ops/books/ledger_repair.py", "after a restore what waited is in doubt", _but(LedgerRepair, _doubt=lambda *_: None), "DYNAMODB_RESTORED TD_BROKEN_DATABASE TD_5XX TD_429", 10),
    Defence("ops/books/ledger_repair.py", "an object that others deny is not taken up", _but(LedgerRepair, _fitting=lambda _repair, left, end, *_: [one for one in left if end is None or one.stored.first > end.last]), "DYNAMODB_RESTORED TD_OUTAGE TD_LOST_ANSWER KINESIS_LOST_ANSWER", 7),
    Defence("worker/sweeper.py", "objects are deleted by the ledger", _but(Sweeper, _judge=lambda sweep, stored, _: sweep._delete(stored) if age(stored.hour, sweep._clock.now()) >= sweep._archive_seconds else "needed"), "TD_REJECTS_TABLE TD_BROKEN_DATABASE"),
    Defence("worker/sweeper.py", "an index outlives the rows", _but(Sweeper, _judge=lambda sweep, stored, _: Sweeper._judge(sweep, stored, sweep._archive_seconds)), "LANES REPLAY"),
    Defence("worker/sweeper.py", "the sweep deletes what no span refers to", _but(Sweeper, run=lambda *_: Sweep()), "ABANDON BORDERS REPLAY", 1),
    Defence("worker/watermark.py", "a watermark waits for the overflow queue", _but(Watermarks, _in_queue=lambda _self, began: began), "KINESIS_THROTTLE KINESIS_TIMEOUT QUEUE_OFF", setup=_WATCHED),
    Defence("worker/watermark.py", "after a notice the queue's counts are not believed at once", _around(Watermarks, "_in_queue", lambda in_queue, began: in_queue(began) and began), "SQS_COUNTS KINESIS_THROTTLE KINESIS_TIMEOUT QUEUE_OFF", 1, setup=_WATCHED),
    Defence("worker/watermark.py", "a watermark leaves a margin for clocks and requests under way", _around(Watermarks, "_in_queue", lambda in_queue, began: in_queue(began) + INGEST_SECONDS + 2 * CLOCK_SECONDS), meets="a watermark, a request was under way when the queue was empty"),
    Defence("worker/watermark.py", "every shard must have passed", _around(Watermarks, "_passed_by_all", lambda passed, ends, until: max(passed(ends, until), float("inf"))), "STANDSTILL DYNAMODB_ERROR", 1),
    Defence("worker/watermark.py", "stamps may run back", _around(Watermarks, "_passed_by_all", lambda passed, ends, until: passed(ends, until) + MARGIN_SECONDS * 1000), meets="a watermark, a record whose stamp runs back is not planned"),
    Defence("worker/watermark.py", "a closed shard is read to its end", _but(Watermarks, _check_read_out=lambda *_: None), meets="a watermark, a closed shard has a record in no span"),
    Defence("worker/watermark.py", "rows that wait are pending", _but(Watermarks, _spans=lambda *_: iter(())), "TD_OUTAGE TD_5XX", 1),
    Defence("worker/watermark.py", "recent spans are read from the chains", _but(Watermarks, _spans=_index_alone), "TD_OUTAGE TD_5XX", setup={**_WATCHED, "index_lag": 580.0}),
    Defence("worker/watermark.py", "a copy holds the watermark until its owner is in a span", _around(Watermarks, "_spans", lambda spans, ends, began: (replace(span, copies={}) for span in spans(ends, began))), meets="a watermark, the owner of a copy's claim is in no span"),
    Defence("worker/forget/cut.py", "what is in doubt is not cut anew", _around(Forgetting, "_cut", _certain_cut), meets="a search for persons beside a sender in doubt"),
    Defence("worker/forget/search.py", "rows leave an object only after Treasure Data has deleted them", _but(ForgetSearch, _delete_delivered=lambda _self, cuts, *_: frozenset(row for cut in cuts for row in cut.delivered)), meets="a search for persons in what was delivered beside a forced replay"),
    Defence("worker/forget/search.py", "a statement is believed only once it is sure to find a row", _but(ForgetSearch, _shown_seconds=property(lambda _: 0.0, lambda *_: None)), meets="a search for persons beside the worker's own sends"),
    Defence("worker/turn.py", "Treasure Data is asked by rows of others", _around(Turns, "_note_doubt", lambda note, work, *args: note(replace(work, persons=Persons(b"", ())), *args)), meets="persons are deleted by value beside a sender in doubt"),
    Defence("worker/forget/run.py", "persons are searched for again", _but(Forget, run_due=lambda *_: None), meets="a search for persons beside the worker's own sends"),
    Defence("worker/health.py", "a failing database gets no rows from the worker", _but(DatabaseHealth, reason=lambda *_: ""), "TD_BROKEN_DATABASE TD_5XX"),
)
# fmt: on
"""Without each of these, a promise or a rule of the specification is broken."""
