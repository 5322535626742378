"""Lists the pipeline's defences, and how to build the functions without each of them.

A defence is left out by replacing a part, a setting or a client. Schedules with the trouble that the defence protects against then show
what breaks without it.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, replace
from typing import Any, override

from botocore.exceptions import ReadTimeoutError

from chaos import clients
from chaos.functions import Functions, Weakness
from chaos.trouble import Kind
from chaos.world import TD_MEMORY_SECONDS, World
from doubles.redis import MemoryRedis
from ingest.policy import REFUSING_SECONDS, PolicyReader
from ingest.refusal import Refused
from shared.errors import BucketUnavailableError, InvalidPolicyError
from shared.policy import EdgePolicy, PolicyEntry
from shared.write_key import WriteKey
from worker.again import Again
from worker.answer import TdAnswer
from worker.bucket import Bucket
from worker.chain import ChainId, Owner
from worker.claims import LATE_SECONDS, Claims, Decided
from worker.executor import Executor
from worker.forced_replay import ForcedReplays, Wanted
from worker.health import Health
from worker.ledger import Claim, Claiming, Gap, Ledger
from worker.membership import Membership
from worker.passing import Lineage, Passing
from worker.record import Number, Record
from worker.sender import Sender
from worker.shards import Shard, Shards
from worker.span import ChunkKey, Span
from worker.span_object import SpanObjects, Stored
from worker.states import Action, Decision, Entry, Event, Happening, Presence, Rules, Step
from worker.sweeper import Sweep, Sweeper
from worker.treasure_data import ACCEPTED, Meaning, TreasureDataClient


@dataclass(frozen=True, slots=True)
class Defence:
    """One defence.

    Attributes:
        name: a description.
        weakness: leaves the defence out.
        kinds: the trouble that reveals its absence.
        breaks: what its absence breaks: names of violations, or `waiting`.
        seeds: the maximum number of schedules to try.
        events: events in each schedule.
        accounts: accounts in the steady traffic that `waiting` is measured with.
        every: seconds between two requests of one of these accounts.
    """

    name: str
    weakness: Weakness
    kinds: tuple[Kind, ...]
    breaks: tuple[str, ...]
    seeds: int = 40
    events: int = 400
    accounts: int = 12
    every: float = 20.0


def without(weakness: Weakness) -> Callable[[World], Functions]:
    """Return a builder of functions that lack a defence."""
    return lambda world: Functions(world, weakness)


def _replaced(kind: type, other: Any) -> Weakness:
    return Weakness(replaced=lambda _world: {kind: other})


# Storing and appending


class Hopeful(SpanObjects):
    """Takes an object that S3 did not acknowledge as stored."""

    @override
    def put(self, span: Span, data: bytes, executor: Executor) -> None:
        with suppress(BucketUnavailableError):
            super().put(span, data, executor)


class _AnyAnswer(Bucket):
    """Believes every response to a put."""

    @override
    def put(self, name: str, body: bytes) -> None:
        self._s3.put_object(Bucket=self._name, Key=name, Body=body)


class _AnyBytes(SpanObjects):
    """Takes whatever S3 returns as what was written."""

    @override
    def _part(self, name: str, offset: int, length: int, digest: bytes) -> bytes:
        return self._bucket.get(name, (offset, length)) or b""


class Overwrites(Ledger):
    """Appends a span whether or not another one is in its place."""

    @override
    def append(self, span: Span, claims: Mapping[str, Claiming] | None = None, seconds_kept: int = 0) -> Any:
        if claims:
            return super().append(span, claims, seconds_kept)
        span = replace(span, version=1, writer=self._writer())
        self._put(self._new_item(span))
        return True, span


class AnyVersion(Ledger):
    """Writes a span although others have written it meanwhile."""

    @override
    def _update(self, span: Span) -> tuple[Span, dict[str, Any]]:
        written, request = super()._update(span)
        request["ExpressionAttributeValues"].pop(":version")
        return written, request | {"ConditionExpression": "attribute_exists(pk)"}


class TwoWrites(Ledger):
    """Gives a chunk up before the span with its new rows is appended."""

    @override
    def replace(self, old: Span, new: Span) -> bool:
        won, _ = self.update(old)
        return won and self.append(new)[0]  # type: ignore[index]  # without claims it is a pair


class _LostTags(Ledger):
    @override
    def bind_tag(self, tag: str, wanted: str) -> str:
        return wanted


class _Unchanging(Shards):
    @override
    def _list(self) -> None:
        if not self._chains:
            super()._list()


class _ByName(Shards):
    @override
    def chain(self, shard: str) -> ChainId:
        return replace(super().chain(shard), start="0")


class _AnyListing(Shards):
    """Takes a listing that lacks shards as whole."""

    @override
    def whole(self) -> list[Shard]:
        return list(self.all())


class _BetweenBorders(Membership):
    """Takes every record between a span's borders as one of the span's."""

    @override
    def locate(self, root: ChainId, number: Number, beside: Sequence[Number] = ()) -> Span | Gap:
        chain, limit = root, None
        while True:
            span = self._ledger.preceding(chain, number)
            if span is None or span.last < number:
                return Gap(chain, "000" if span is None else span.last, limit, span.latest if span else 0)
            if number >= span.first:
                return span
            chain, limit = chain.before(span.after), span.first

    @override
    def numbers(self, span: Span, beside: Sequence[Number] = ()) -> frozenset[Number]:
        return frozenset(one for one in beside if span.covers(one))


# Claims


class _NoClaims(Claims):
    @override
    def decide(self, records: Sequence[Record], gap: Gap, shard: ChainId, *, is_live: bool) -> Decided:
        return Decided(records)


class _GapsAreFree(Claims):
    """Claims nothing for a record because it lies in a gap."""

    @override
    def decide(self, records: Sequence[Record], gap: Gap, shard: ChainId, *, is_live: bool) -> Decided:
        return super().decide(records, replace(gap, chain=shard), shard, is_live=is_live)


class _ClaimsFirst(Claims):
    """Claims in a gap or a replay in a write of its own, before the append."""

    @override
    def decide(self, records: Sequence[Record], gap: Gap, shard: ChainId, *, is_live: bool) -> Decided:
        return replace(super().decide(records, gap, shard, is_live=is_live), with_append={})

    @override
    def _claims_of(self, owners: dict[str, Owner], *, with_append: bool) -> dict[str, Claim | None]:
        return super()._claims_of(owners, with_append=False)


class _NothingIsPassed(Claims):
    """Leaves a claim with a record that the chain has passed over."""

    @override
    def _is_passed(self, *_args: Any) -> bool:
        return False


class _NothingIsLate(Claims):
    """Claims nothing for a record because it is late, by its own arrival and those before it."""

    @override
    def decide(self, records: Sequence[Record], gap: Gap, shard: ChainId, *, is_live: bool) -> Decided:
        true = {record.number: record for record in records}
        prompt = [record._replace(arrived_at=record.received_at / 1000) for record in records]
        decided = super().decide(prompt, replace(gap, latest=0), shard, is_live=is_live)
        return replace(decided, records=[true[record.number] for record in decided.records])


class _OwnStampAlone(Claims):
    """Judges whether a record is late by its own arrival alone."""

    @override
    def decide(self, records: Sequence[Record], gap: Gap, shard: ChainId, *, is_live: bool) -> Decided:
        return super().decide(records, replace(gap, latest=0), shard, is_live=is_live)


# Rows that were put again


class NoCopies(Again):
    """Sends what was put again without looking for a copy."""

    @override
    def decide(self, span: Span, keys: Iterable[ChunkKey]) -> tuple[dict[ChunkKey, Event], str]:
        return dict.fromkeys(keys, Event.NO_COPY), ""


class _OwnShardAlone(Again):
    """Asks only the shard of the record that was put again whether it has passed."""

    @override
    def decide(self, span: Span, keys: Iterable[ChunkKey]) -> tuple[dict[ChunkKey, Event], str]:
        whole = self._passing
        own = copy(whole)
        own.lineages = lambda: [one for one in whole.lineages() if one.chain == span.chain.root]  # type: ignore[method-assign]
        alone = copy(self)
        alone._passing = copy(whole)  # noqa: SLF001 -- a copy of itself
        alone._passing.obstacle = own.obstacle  # type: ignore[method-assign]  # noqa: SLF001
        return Again.decide(alone, span, keys)


class _FromTheFirstPut(Passing):
    """Takes the time of the first put itself, not the time from which a copy claims."""

    @override
    def obstacle(self, moment: int, *, closes: bool = True) -> str:
        return super().obstacle(moment - LATE_SECONDS * 1000, closes=closes)


class _ClosedIsPassed(Passing):
    """Takes a closed shard as passed, although more may be appended to its chain."""

    @override
    def _close(self, lineage: Lineage, closes: bool) -> bool:
        return not lineage.is_open


class _LooksFirst(Again):
    """Reads the indexes before the shards are asked whether they have passed."""

    @override
    def decide(self, span: Span, keys: Iterable[ChunkKey]) -> tuple[dict[ChunkKey, Event], str]:
        receipts = self._receipts(span)
        seen = self._look_up({key.group.request_id: receipts[key.group.request_id] for key in keys})
        early = copy(self)
        early._look_up = lambda wanted: seen  # type: ignore[method-assign]  # noqa: ARG005, SLF001 -- a copy of itself
        return Again.decide(early, span, keys)


# Doubt


class EndlessMemory(Rules):
    """Sends under the same id for ever."""

    @override
    def may_repeat(self, since: int, now: float) -> bool:
        return True


class AnyRefusal(Rules):
    """Believes a refusal although another attempt may have been accepted."""

    @override
    def follow(self, entry: Entry, happening: Happening) -> Entry:
        if happening.event in {Event.REFUSED, Event.PARTLY_REFUSED}:
            happening = replace(happening, certain=True)
        return super().follow(entry, happening)


class UnsentIsAbsent(Rules):
    """Clears the doubt of a chunk that this invocation did not send, although another may have."""

    @override
    def follow(self, entry: Entry, happening: Happening) -> Entry:
        if happening.event is Event.UNANSWERED:
            happening = replace(happening, certain=True)
        return super().follow(entry, happening)


class DropsAnything(Rules):
    """Drops rows that Treasure Data may have."""

    @override
    def next_step(self, entry: Entry, obstacle: str | None, decision: Decision | None, now: float) -> Step:
        if decision is Decision.DROP:
            return Step(Action.APPLY, Event.DROPPED)
        return super().next_step(entry, obstacle, decision, now)

    @override
    def follow(self, entry: Entry, happening: Happening) -> Entry:
        if happening.event is Event.DROPPED:
            happening = replace(happening, certain=True)
        return super().follow(entry, happening)


class _TodaysDatabase(Sender):
    """Sends a chunk with a doubt to where its account is mapped now."""

    @override
    def _destination(self, span: Span, key: ChunkKey, entry: Entry) -> tuple[str, str | None]:
        return super()._destination(span, key, replace(entry, since=None))


class _NeverThere(TreasureDataClient):
    @override
    def ask(self, *_args: Any) -> Presence:
        return Presence.ABSENT


_serial = itertools.count()


class _NewIds(TreasureDataClient):
    @override
    def send(self, database: str, table: str, unique_id: str, body: bytes, seconds: float) -> Any:
        return super().send(database, table, f"{next(_serial):032x}", body, seconds)


class _BlindToMd5(TreasureDataClient):
    @override
    def send(self, *args: Any) -> Any:
        reply = super().send(*args)
        return ACCEPTED if reply.meaning is Meaning.MISMATCH else reply


# Answers at Treasure Data's address


def _accepting(*reasons: str) -> Weakness:
    """Treat responses with these reasons as acceptance, although they do not prove it."""

    class Credulous(TreasureDataClient):
        @override
        def send(self, *args: Any) -> Any:
            reply = super().send(*args)
            return ACCEPTED if reply.reason.startswith(reasons) else reply

    return _replaced(TreasureDataClient, Credulous)


class _TrustsRefusals(TreasureDataClient):
    @override
    def send(self, *args: Any) -> Any:
        reply = super().send(*args)
        return replace(reply, definitely_not_delivered=True) if reply.reason.startswith("http_4") else reply


class _UndecidedIsAbsent(TreasureDataClient):
    @override
    def ask(self, *args: Any) -> Presence:
        presence = super().ask(*args)
        return Presence.ABSENT if presence is Presence.UNDECIDED else presence


class _AnyTime(TreasureDataClient):
    @override
    def ask(self, *args: Any) -> Presence:
        return super().ask(*args[:4])


class _NoColumnsNoRows(TreasureDataClient):
    @override
    def ask(self, database: str, table: str, *args: Any) -> Presence:
        presence = super().ask(database, table, *args)
        if presence is Presence.UNDECIDED and self.shows_columns(database, table) is False:
            return Presence.ABSENT
        return presence


class _NotFoundIsGone(TreasureDataClient):
    @override
    def _api(self, method: str, *path: str, **options: Any) -> TdAnswer:
        if "list" in path:
            return TdAnswer(200, {}, b'{"databases": [], "tables": []}')
        return super()._api(method, *path, **options)


class _ChunksStayWhole(Rules):
    @override
    def follow(self, entry: Entry, happening: Happening) -> Entry:
        return super().follow(entry, replace(happening, divisible=False))


# The stream


class _HopefulLedger(Ledger):
    """Assumes that it owns a claim whose statement was not answered."""

    @override
    def claim(self, wanted: Mapping[str, Owner], seconds_kept: int) -> dict[str, Claim]:
        return {one: Claim(owner) for one, owner in wanted.items()} | super().claim(wanted, seconds_kept)


class _RepeatingKinesis(clients.Kinesis):
    """Retries a put that timed out, as botocore does by default."""

    @override
    def _put(self, what: str, action: Any) -> Any:
        try:
            return super()._put(what, action)
        except ReadTimeoutError:
            return super()._put(what, action)


class _TrustingKinesis(clients.Kinesis):
    """Treats a put that timed out as accepted."""

    @override
    def _put(self, what: str, action: Any) -> Any:
        try:
            return super()._put(what, action)
        except ReadTimeoutError:
            return {"SequenceNumber": "1", "ShardId": "shardId-000000000000"}


class _SentinelEverywhere(clients.Redis):
    """A Redis in which the sentinel always exists."""

    def __init__(self, server: MemoryRedis, effects: Any) -> None:
        super().__init__(server, effects)
        self._view = _Sentinel(server, effects)


class _Sentinel(clients.Reachable):
    @override
    def hget(self, *_args: Any) -> str:
        return "always"


# Keeping


class _Idle(Sweeper):
    @override
    def run(self, deadline: Any) -> Sweep:
        return Sweep()


class ByAge(Sweeper):
    """Deletes objects by their age, whatever the ledger says."""

    @override
    def _judge(self, stored: Stored, index_seconds: float, sweep: Sweep) -> None:
        self._delete(stored, sweep, allowed=self._age(stored.hour) >= self._archive_seconds)


class _RowsAndIndex(Sweeper):
    """Deletes a span's index with its rows."""

    @override
    def _judge(self, stored: Stored, index_seconds: float, sweep: Sweep) -> None:
        super()._judge(stored, self._archive_seconds, sweep)


class NewTags(ForcedReplays):
    """Appends again when a forced replay is repeated."""

    @override
    def run(self, wanted: Wanted, places: Any, deadline: Any) -> Any:
        return super().run(replace(wanted, tag=f"{wanted.tag}-{next(_serial)}"), places, deadline)


# The edge policy


class _FailsClosed(PolicyReader):
    """Rejects everything until it has read a policy."""

    @override
    def entry(self, key: WriteKey) -> PolicyEntry:
        found = super().entry(key)
        if self._policy is None:
            raise Refused("unknown_account")
        return found


class _UnderstandsNextVersion(PolicyReader):
    """Reads a document of a newer version as one that names no account."""

    @override
    def _use(self, document: bytes) -> None:
        try:
            super()._use(document)
        except InvalidPolicyError as error:
            if not str(error).startswith("version"):
                raise
            self._policy = EdgePolicy(round(self._clock.now() * 1000), {})


class _Forgets(PolicyReader):
    """Drops its policy when it reads a document that it cannot use."""

    @override
    def _use(self, document: bytes) -> None:
        try:
            super()._use(document)
        except InvalidPolicyError:
            self._policy = None
            raise


class _RefusesForEver(PolicyReader):
    """Keeps rejecting by a policy that has not been confirmed for long."""

    @override
    def _is_within(self, since: float, seconds: float) -> bool:
        return seconds == REFUSING_SECONDS or super()._is_within(since, seconds)


# Isolation


class _NothingFails(Health):
    """Gives a failing database rows, and waits for it every time."""

    @override
    def is_failing(self, database: str) -> bool:
        return False


ALL: tuple[Defence, ...] = (
    Defence(
        "an object is stored before its span is appended",
        _replaced(SpanObjects, Hopeful),
        (Kind.S3_ERROR, Kind.S3_LATE, Kind.TD_5XX),
        ("lost", "miscounted", "stuck"),
    ),
    Defence(
        "a put to S3 counts only with the checksum of its bytes",
        _replaced(Bucket, _AnyAnswer),
        (Kind.S3_FOREIGN_PAGE, Kind.TD_REJECTS_TABLE, Kind.TD_BROKEN_DATABASE),
        ("lost", "miscounted", "stuck"),
    ),
    Defence(
        "the digest of S3's bytes is checked",
        _replaced(SpanObjects, _AnyBytes),
        (Kind.S3_OTHER_OBJECT, Kind.TD_REJECTS_TABLE, Kind.TD_BROKEN_DATABASE),
        ("lost", "duplicated", "stuck", "miscounted"),
    ),
    Defence(
        "a span is appended once",
        _replaced(Ledger, Overwrites),
        (Kind.ABANDON, Kind.TD_SLOW, Kind.REPLAY, Kind.BORDERS),
        ("duplicated", "lost", "stuck", "miscounted"),
        seeds=200,
    ),
    Defence(
        "a write asks for the version that it read",
        _replaced(Ledger, AnyVersion),
        (Kind.TD_REJECTS_TABLE, Kind.ABANDON, Kind.TD_SLOW, Kind.TD_HANG, Kind.PAUSE, Kind.SEND),
        ("duplicated", "both", "lost", "miscounted"),
        seeds=200,
        events=150,
    ),
    Defence(
        "a record is in a span only if the span's index has it",
        _replaced(Membership, _BetweenBorders),
        (Kind.LANES, Kind.FILTERED),
        ("lost",),
    ),
    Defence(
        "copies of an envelope have one claim",
        _replaced(Claims, _NoClaims),
        (Kind.KINESIS_LOST_ANSWER, Kind.KILL, Kind.SQS_TWICE, Kind.KINESIS_TIMEOUT, Kind.CLIENT_DEAF),
        ("duplicated",),
    ),
    Defence(
        "records in gaps claim",
        _replaced(Claims, _GapsAreFree),
        (Kind.KINESIS_LOST_ANSWER, Kind.FILTERED, Kind.PASSED_OVER, Kind.LANES, Kind.KINESIS_LATE),
        ("duplicated",),
        seeds=200,
    ),
    Defence(
        "in a gap or a replay, claims are made with the append",
        _replaced(Claims, _ClaimsFirst),
        (Kind.CLIENT_DEAF, Kind.FILTERED, Kind.PASSED_OVER, Kind.LANES, Kind.KILL, Kind.PAUSE, Kind.ABANDON),
        ("duplicated", "lost"),
        seeds=200,
    ),
    Defence(
        "a claim does not stay with a record that was passed over",
        _replaced(Claims, _NothingIsPassed),
        (Kind.CLIENT_DEAF, Kind.FILTERED, Kind.PASSED_OVER, Kind.LANES, Kind.KILL),
        ("lost",),
        seeds=200,
    ),
    Defence(
        "records that arrive late claim",
        _replaced(Claims, _NothingIsLate),
        (Kind.KINESIS_LATE, Kind.KINESIS_LOST_ANSWER),
        ("duplicated",),
        seeds=200,
    ),
    Defence(
        "an unanswered statement claims nothing",
        _replaced(Ledger, _HopefulLedger),
        (Kind.DYNAMODB_PARTIAL, Kind.CLIENT_DEAF, Kind.KINESIS_LOST_ANSWER, Kind.SQS_TWICE),
        ("duplicated", "lost"),
    ),
    Defence(
        "rows that were put again are looked for",
        _replaced(Again, NoCopies),
        (Kind.KINESIS_LOST_ANSWER,),
        ("duplicated",),
    ),
    Defence(
        "every shard must have passed before rows that were put again are decided",
        _replaced(Again, _OwnShardAlone),
        (Kind.KINESIS_AUTO, Kind.KINESIS_LOST_ANSWER, Kind.LANES, Kind.DYNAMODB_ERROR),
        ("duplicated",),
        seeds=200,
    ),
    Defence(
        "rows that were put again wait until copies claim",
        _replaced(Passing, _FromTheFirstPut),
        (Kind.KINESIS_LATE, Kind.KINESIS_LOST_ANSWER),
        ("duplicated",),
        seeds=200,
    ),
    Defence(
        "the chain of a closed shard is closed before it counts as passed",
        _replaced(Passing, _ClosedIsPassed),
        (Kind.RESHARD, Kind.KINESIS_LOST_ANSWER, Kind.DYNAMODB_ERROR, Kind.ABANDON, Kind.PAUSE),
        ("duplicated",),
        seeds=200,
    ),
    Defence(
        "indexes are read after the shards have passed",
        _replaced(Again, _LooksFirst),
        (Kind.KINESIS_LATE, Kind.KINESIS_LOST_ANSWER, Kind.PAUSE, Kind.KINESIS_AUTO),
        ("duplicated",),
        seeds=200,
    ),
    Defence(
        "a listing of shards must cover every key",
        _replaced(Shards, _AnyListing),
        (Kind.KINESIS_LISTING, Kind.KINESIS_LOST_ANSWER, Kind.KINESIS_AUTO, Kind.DYNAMODB_ERROR),
        ("duplicated",),
        seeds=200,
    ),
    Defence(
        "a warm sandbox notices that the stream was recreated",
        _replaced(Shards, _Unchanging),
        (Kind.RECREATE,),
        ("lost", "duplicated", "stuck"),
    ),
    Defence(
        "a recreated stream has its own chains",
        _replaced(Shards, _ByName),
        (Kind.RECREATE,),
        ("lost", "duplicated", "stuck"),
    ),
    Defence(
        "a put in doubt goes to the queue",
        Weakness(kinesis=lambda world: _TrustingKinesis(world.stream, world.effects)),
        (Kind.KINESIS_TIMEOUT,),
        ("lost",),
    ),
    Defence(
        "botocore does not retry puts",
        Weakness(kinesis=lambda world: _RepeatingKinesis(world.stream, world.effects)),
        (Kind.KINESIS_LOST_ANSWER,),
        ("duplicated",),
    ),
    Defence(
        "a send is repeated only while Treasure Data remembers its id",
        _replaced(Rules, EndlessMemory),
        (Kind.TD_LOST_ANSWER, Kind.TD_OUTAGE, Kind.KILL, Kind.STANDSTILL),
        ("duplicated",),
    ),
    Defence(
        "Treasure Data is queried about doubts",
        _replaced(TreasureDataClient, _NeverThere),
        (Kind.TD_LOST_ANSWER, Kind.TD_OUTAGE, Kind.KILL),
        ("duplicated",),
    ),
    Defence(
        "queries wait until rows can be seen",
        Weakness(settings={"td_query_delay_minutes": -TD_MEMORY_SECONDS / 60}),
        (Kind.TD_LOST_ANSWER, Kind.TD_OUTAGE, Kind.OVERRUN, Kind.ABANDON, Kind.SEND, Kind.TD_LATE),
        ("duplicated",),
        seeds=200,
    ),
    Defence(
        "a doubt keeps its database",
        _replaced(Sender, _TodaysDatabase),
        (Kind.REMAP, Kind.TD_LOST_ANSWER, Kind.KILL, Kind.TD_5XX),
        ("duplicated",),
    ),
    Defence(
        "a refusal after a doubt proves nothing",
        _replaced(Rules, AnyRefusal),
        (Kind.TD_LOST_ANSWER, Kind.TD_5XX, Kind.TD_REJECTS_TABLE),
        ("both", "duplicated"),
    ),
    Defence(
        "a chunk that was not sent keeps the doubt that another opened",
        _replaced(Rules, UnsentIsAbsent),
        (Kind.TD_LOST_ANSWER, Kind.TD_5XX, Kind.REMAP),
        ("duplicated",),
    ),
    Defence(
        "rows that Treasure Data may have are not dropped",
        _replaced(Rules, DropsAnything),
        (Kind.DROP, Kind.TD_LOST_ANSWER, Kind.TD_OUTAGE),
        ("both",),
    ),
    Defence(
        "a chunk and its new rows change places in one transaction",
        _replaced(Ledger, TwoWrites),
        (Kind.EDIT, Kind.TD_REJECTS_TABLE, Kind.KILL, Kind.DYNAMODB_ERROR),
        ("lost", "stuck"),
        seeds=200,
    ),
    Defence(
        "a forced replay that is repeated appends nothing",
        _replaced(ForcedReplays, NewTags),
        (Kind.FORCE,),
        ("duplicated",),
    ),
    Defence(
        "a forced replay's tag keeps its range",
        _replaced(Ledger, _LostTags),
        (Kind.FORCE,),
        ("duplicated", "forced"),
        seeds=80,
    ),
    Defence(
        "every attempt uses the same unique_id",
        _replaced(TreasureDataClient, _NewIds),
        (Kind.TD_LOST_ANSWER,),
        ("duplicated",),
    ),
    Defence(
        "the MD5 of accepted bytes is checked",
        _replaced(TreasureDataClient, _BlindToMd5),
        (Kind.TD_WRONG_MD5,),
        ("lost",),
    ),
    Defence(
        "a page with status 200 is not acceptance",
        _accepting("undocumented_answer"),
        (Kind.TD_FOREIGN_PAGE,),
        ("lost",),
    ),
    Defence(
        "empty JSON with status 200 is not acceptance",
        _accepting("undocumented_answer"),
        (Kind.TD_EMPTY_JSON,),
        ("lost",),
    ),
    Defence("a 206 is not acceptance", _accepting("http_206"), (Kind.TD_PARTIAL,), ("lost",)),
    Defence("a redirect is not acceptance", _accepting("http_3"), (Kind.TD_REDIRECT,), ("lost",)),
    Defence("a wrong host's 409 is not acceptance", _accepting("http_409"), (Kind.TD_WRONG_HOST,), ("lost",)),
    Defence(
        "only Treasure Data's own error document is a rejection",
        _replaced(TreasureDataClient, _TrustsRefusals),
        (Kind.TD_FOREIGN_REFUSAL,),
        ("duplicated",),
    ),
    Defence(
        "a truncated response does not prove absence",
        _replaced(TreasureDataClient, _UndecidedIsAbsent),
        (Kind.TD_TRUNCATED, Kind.TD_LOST_ANSWER, Kind.TD_OUTAGE, Kind.KILL),
        ("duplicated",),
    ),
    Defence(
        "a page does not prove absence",
        _replaced(TreasureDataClient, _UndecidedIsAbsent),
        (Kind.TD_FOREIGN_PAGE, Kind.TD_LOST_ANSWER, Kind.TD_OUTAGE, Kind.KILL),
        ("duplicated",),
    ),
    Defence(
        "a query that ran too early does not prove absence",
        _replaced(TreasureDataClient, _AnyTime),
        (Kind.TD_STALE_JOB, Kind.TD_LOST_ANSWER, Kind.TD_OUTAGE, Kind.KILL),
        ("duplicated",),
    ),
    Defence(
        "a schema that does not show columns yet does not prove absence",
        _replaced(TreasureDataClient, _NoColumnsNoRows),
        (Kind.TD_SCHEMA_LAGS, Kind.TD_LOST_ANSWER, Kind.TD_OUTAGE, Kind.KILL),
        ("duplicated",),
    ),
    Defence(
        "a schema that never shows columns does not prove absence",
        _replaced(TreasureDataClient, _NoColumnsNoRows),
        (Kind.TD_NO_SCHEMA, Kind.TD_LOST_ANSWER, Kind.TD_OUTAGE, Kind.KILL),
        ("duplicated",),
    ),
    Defence(
        "a 404 means gone only if a listing confirms it",
        _replaced(TreasureDataClient, _NotFoundIsGone),
        (Kind.TD_WRONG_HOST, Kind.TD_LOST_ANSWER, Kind.TD_OUTAGE, Kind.KILL),
        ("duplicated",),
        seeds=80,
    ),
    Defence(
        "a chunk with rejected rows is halved",
        _replaced(Rules, _ChunksStayWhole),
        (Kind.TD_BAD_ROWS,),
        ("misjudged",),
    ),
    Defence(
        "without the sentinel no account is treated as unknown",
        Weakness(redis=lambda world: _SentinelEverywhere(world.redis_server, world.effects)),
        (Kind.REDIS_EMPTY,),
        ("misjudged",),
    ),
    Defence(
        "a batch is held from its first unsettled record",
        Weakness(answer=lambda _answer: {"batchItemFailures": []}),
        (Kind.REDIS_DOWN, Kind.DYNAMODB_ERROR),
        ("lost", "stuck"),
    ),
    Defence(
        "objects are deleted by the ledger",
        _replaced(Sweeper, ByAge),
        (Kind.TD_REJECTS_TABLE, Kind.TD_BROKEN_DATABASE),
        ("lost", "miscounted", "stuck"),
    ),
    Defence(
        "an index outlives the rows",
        _replaced(Sweeper, _RowsAndIndex),
        (Kind.LANES, Kind.REPLAY),
        ("lost", "duplicated", "stuck"),
    ),
    Defence(
        "the sweep deletes what no span refers to",
        _replaced(Sweeper, _Idle),
        (Kind.ABANDON, Kind.BORDERS, Kind.REPLAY),
        ("stuck",),
    ),
    Defence(
        "without an edge policy nobody is rejected",
        _replaced(PolicyReader, _FailsClosed),
        (Kind.S3_POLICY, Kind.COLD),
        ("misjudged",),
    ),
    Defence(
        "an edge policy of the next version is not believed",
        _replaced(PolicyReader, _UnderstandsNextVersion),
        (Kind.S3_POLICY, Kind.COLD),
        ("misjudged",),
    ),
    Defence(
        "the last good edge policy is kept",
        _replaced(PolicyReader, _Forgets),
        (Kind.S3_POLICY,),
        ("misjudged",),
    ),
    Defence(
        "an unconfirmed edge policy rejects nobody",
        _replaced(PolicyReader, _RefusesForEver),
        (Kind.DISABLE, Kind.S3_ERROR),
        ("misjudged",),
        seeds=200,
    ),
)
"""Without each of these, rows are lost, duplicated or misjudged."""

WAITING: tuple[Defence, ...] = (
    Defence(
        "a failing database gets no rows from the worker",
        _replaced(Health, _NothingFails),
        (Kind.TD_BROKEN_DATABASE, Kind.TD_HANGING_DATABASE),
        ("waiting",),
    ),
    Defence(
        "each database has its own lane",
        Weakness(settings={"upload_threads": 1, "uploads_per_database": 1}),
        (Kind.TD_HANGING_DATABASE,),
        ("waiting",),
        accounts=50,
        every=8.0,
    ),
)
"""Without each of these, the rows of healthy databases wait for a failing one."""
