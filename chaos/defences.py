"""Lists the pipeline's defences, and how to build the functions without each of them.

Constructor arguments leave a defence out: a guard's name, a setting, a replaced part or a client that behaves differently.
Schedules with the trouble that a defence protects against then show what breaks without it.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, override

from botocore.exceptions import ReadTimeoutError
from worker.archive import Archive
from worker.breaker import Breakers
from worker.delivery import Event, Presence, Rules
from worker.guards import Guard
from worker.open_spans import OpenSpans
from worker.search import INACCURACY_SECONDS, Finding, Search, Sought, identity_of
from worker.set_aside import SetAside, SetAsideStore

from chaos import clients
from chaos.functions import Functions, Weakness
from chaos.trouble import Kind
from chaos.world import TD_MEMORY_SECONDS, World
from doubles.redis import MemoryRedis
from ingest.policy import REFUSING_SECONDS, PolicyReader
from ingest.refusal import Refused
from shared.errors import BucketUnavailableError, HeldError, InvalidPolicyError, UnavailableError
from shared.policy import EdgePolicy, PolicyEntry
from shared.write_key import WriteKey
from worker.answer import TdAnswer
from worker.bucket import Bucket
from worker.chain import ChainId
from worker.claims import Claims
from worker.deadline import Deadline
from worker.drain import Drain
from worker.ledger import Claim, Ledger
from worker.record import START, Record
from worker.shards import Position, Shards, hash_key
from worker.span import ChunkKey, Cut, Database, Span
from worker.sweeper import Sweep, Sweeper
from worker.treasure_data import ACCEPTED, Meaning, TreasureDataClient
from worker.worker import Worker


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


def _guard(*guards: Guard) -> Weakness:
    return Weakness(without=frozenset(guards))


def _replaced(kind: type, other: Any) -> Weakness:
    return Weakness(replaced=lambda _world: {kind: other})


# The ledger


class _LatePlans(Ledger):
    """Writes a plan only when its first results are written."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._unwritten: dict[tuple[str, str], Span] = {}

    @override
    def append(self, span: Span) -> tuple[bool, Span]:
        self._unwritten[span.chain.name, span.after] = span
        return True, replace(span, version=1)

    @override
    def update(self, span: Span) -> tuple[bool, Span]:
        planned = self._unwritten.pop((span.chain.name, span.after), None)
        if planned is not None:
            super().append(planned)
        return super().update(span)


def _read_otherwise(change: Callable[[World, Span], Span]) -> Weakness:
    """Make the worker change the spans that it reads from the ledger."""

    def replaced(world: World) -> Mapping[Any, Any]:
        class OtherLedger(Ledger):
            @override
            def preceding(self, *args: Any) -> Span | None:
                span = super().preceding(*args)
                return span and change(world, span)

        return {Ledger: OtherLedger}

    return Weakness(replaced=replaced)


def _todays_databases(world: World, span: Span) -> Span:
    todays = {
        owner: Database(world.accounts[owner.account].database) if owner.account in world.accounts else to
        for owner, to in span.destinations.items()
    }
    return replace(span, destinations=todays)


class _NoClaims(Claims):
    @override
    def decide(self, records: Any, chain: Any) -> Any:
        return records, frozenset()


class _BatchAlone(Shards):
    @override
    def read(self, *_args: Any) -> Any:
        return []


class _Unchanging(Shards):
    @override
    def _list(self) -> None:
        if not self._chains:
            super()._list()


class _ByName(Shards):
    @override
    def chain(self, shard: str) -> ChainId:
        return replace(super().chain(shard), start="0")


# Doubt


class _EndlessMemory(Rules):
    @override
    def may_repeat(self, since: int, now: float) -> bool:
        return True


def _held_for_ever(**options: Any) -> Rules:
    return Rules(**options | {"held_at_most_seconds": float("inf")})


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
    def follow(self, entry: Any, happening: Any) -> Any:
        if happening.event is Event.ROWS_REFUSED:
            happening = replace(happening, divisible=False)
        return super().follow(entry, happening)


# The stream and the queue


class _AlwaysAbsent(Search):
    @override
    def __iter__(self) -> Iterator[Finding]:
        return (Finding(one.identity, is_there=False) for one in self._sought)


class _Credulous(Search):
    """Reads the shard of each envelope's key once, and takes an empty response to mean absent."""

    @override
    def __iter__(self) -> Iterator[Finding]:
        for one in self._sought:
            try:
                yield Finding(one.identity, is_there=self._is_there(one))
            except UnavailableError:
                return

    def _is_there(self, one: Sought) -> bool:
        key = hash_key(one.partition_key)
        for shard in self._source.all():
            if key not in shard.keys:
                continue
            start = Position(moment=one.since - INACCURACY_SECONDS)
            for page in filter(None, self._source.pages(shard.shard_id, start)):
                if any(identity_of(record["Data"]) == one.identity for record in page.records):
                    return True
                if page.at_tip or not page.records:
                    break
        return False


class _HopefulLedger(Ledger):
    """Assumes that it owns a claim whose statement was not answered."""

    @override
    def claim(self, wanted: Mapping[str, Claim], seconds_kept: int) -> dict[str, Claim]:
        return {**wanted, **super().claim(wanted, seconds_kept)}


class _RepeatingKinesis(clients.Kinesis):
    """Retries a put that timed out, as botocore does by default."""

    @override
    def _put(self, what: str, action: Any, latest: float) -> Any:
        try:
            return super()._put(what, action, latest)
        except ReadTimeoutError:
            return super()._put(what, action, latest)


class _TrustingKinesis(clients.Kinesis):
    """Treats a put that timed out as accepted."""

    @override
    def _put(self, what: str, action: Any, latest: float) -> Any:
        try:
            return super()._put(what, action, latest)
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


# S3's responses


class _AnyAnswer(Bucket):
    """Believes every response to a put."""

    @override
    def _is_acknowledged(self, answer: Any, body: bytes) -> bool:
        return True


def _ignoring(code: str) -> type[SetAsideStore]:
    """Return a store that continues when S3 rejects a put with this code."""

    class Ignoring(SetAsideStore):
        @override
        def put(self, span: Span, chunk: SetAside) -> None:
            try:
                super().put(span, chunk)
            except BucketUnavailableError as error:
                if code not in str(error):
                    raise

    return Ignoring


class _AnyBytes(SetAsideStore):
    """Assumes that S3 returns the bytes that were written."""

    @override
    def get(self, span: Span, key: ChunkKey, edit: int, digest: str) -> SetAside:
        return self.read(self.name(span, key, edit, digest))


class _AnyName(SetAsideStore):
    """Assumes that an object holds what its name says."""

    @override
    def is_name_of(self, name: str, span: Span, chunk: SetAside) -> bool:
        return True


class _WritesAgain(Bucket):
    """Overwrites objects that already exist."""

    @override
    def put(self, name: str, body: bytes, *, is_new: bool = False) -> bool:
        return super().put(name, body)


class _TrustsConflicts(Archive):
    """Believes S3 that an object exists."""

    @override
    def _check_existing(self, span: Span) -> None:
        pass


class _ArchivesAnyRead(OpenSpans):
    """Archives an open span's records even if it could read only some of them."""

    @override
    def _records_of(self, batch: Any, span: Span) -> list[Record]:
        records = super()._records_of(batch, span)
        if span.archived is not None and records:
            with suppress(BucketUnavailableError):
                self._archive.put(span, records)
        return records


class _DoesWithoutArchive(Archive):
    """Settles a span even if S3 did not acknowledge its archive object."""

    @override
    def put(self, span: Span, records: Sequence[Record]) -> None:
        with suppress(BucketUnavailableError):
            super().put(span, records)


class _IgnoresArchivedChain(Worker):
    """Treats archived records as records of the current stream's shard."""

    @override
    def run(self, event: Mapping[str, Any], deadline: Deadline) -> dict[str, Any]:
        return super().run({name: event[name] for name in event if name != "chain"}, deadline)

    @override
    def _chain(self, shard: str, first: Record) -> ChainId:
        with suppress(HeldError):
            return super()._chain(shard, first)
        return self._shards.chain(shard)


class _Idle(Sweeper):
    @override
    def run(self, deadline: Deadline) -> Sweep:
        return Sweep()


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


class _ClosedBreakers(Breakers):
    @override
    def is_open(self, database: str) -> bool:
        return False

    consult = is_open


class _NobodyElse(Breakers):
    @override
    def others_succeeded(self, database: str, since: float) -> bool:
        return False


class _Silent(TreasureDataClient):
    @override
    def answers(self) -> bool:
        return False

    knows_key = answers


ALL: tuple[Defence, ...] = (
    Defence(
        "the plan's put is conditional",
        _guard(Guard.CONDITIONAL_PLAN),
        (Kind.ABANDON, Kind.TD_SLOW, Kind.REPLAY, Kind.BORDERS),
        ("duplicated", "lost", "stuck"),
    ),
    Defence(
        "the plan is written before the upload",
        _replaced(Ledger, _LatePlans),
        (Kind.KILL, Kind.ABANDON, Kind.REPLAY, Kind.BORDERS, Kind.TD_5XX),
        ("duplicated", "lost"),
    ),
    Defence(
        "an open span is fenced",
        _guard(Guard.FENCE),
        (Kind.TD_LOST_ANSWER, Kind.TD_REFUSED, Kind.REPLAY, Kind.SEND, Kind.REMAP, Kind.PAUSE, Kind.KILL),
        ("duplicated", "both", "lost"),
        seeds=200,
    ),
    Defence(
        "IF v",
        _guard(Guard.IF_VERSION),
        (Kind.TD_REJECTS_TABLE, Kind.ABANDON, Kind.TD_SLOW, Kind.TD_HANG, Kind.REPLAY, Kind.BORDERS),
        ("duplicated", "both", "lost"),
        seeds=200,
        events=150,
    ),
    Defence(
        "the plan fixes the databases",
        _read_otherwise(_todays_databases),
        (Kind.REMAP, Kind.TD_LOST_ANSWER, Kind.KILL, Kind.REPLAY),
        ("duplicated", "misrouted"),
    ),
    Defence(
        "the plan fixes the chunk limits",
        _read_otherwise(lambda world, span: replace(span, cut=Cut(*world.cut))),
        (Kind.LIMITS, Kind.TD_LOST_ANSWER, Kind.KILL),
        ("duplicated", "lost"),
    ),
    Defence(
        "holes",
        _read_otherwise(lambda _world, span: replace(span, first=START)),
        (Kind.REPLAY, Kind.TD_5XX, Kind.REDIS_DOWN, Kind.BORDERS),
        ("lost",),
    ),
    Defence(
        "records before and after the batch are read, or the span is held",
        replace(_replaced(Shards, _BatchAlone), without=frozenset((Guard.WHOLE_SPAN,))),
        (Kind.BORDERS, Kind.TD_5XX, Kind.KILL),
        ("lost", "duplicated"),
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
        "S3 before the ledger",
        _guard(Guard.OBJECT_FIRST),
        (Kind.KILL, Kind.S3_ERROR, Kind.TD_BROKEN_DATABASE, Kind.TD_REJECTS_TABLE),
        ("lost", "miscounted", "stuck"),
    ),
    Defence(
        "a set-aside chunk that is being sent is in doubt",
        _guard(Guard.FENCED_IN_DOUBT),
        (Kind.TD_REJECTS_TABLE, Kind.SEND, Kind.TD_LOST_ANSWER, Kind.TD_5XX, Kind.KILL),
        ("both", "stuck"),
        seeds=200,
    ),
    Defence(
        "an object is deleted only when all its rows are settled",
        _guard(Guard.FINAL_DELETE),
        (Kind.TD_TOO_LARGE, Kind.TD_REJECTS_TABLE, Kind.TD_BROKEN_DATABASE, Kind.TD_5XX, Kind.SEND),
        ("lost", "miscounted", "stuck"),
        seeds=200,
    ),
    Defence(
        "an envelope that may be on the stream twice has one claim",
        _replaced(Claims, _NoClaims),
        (Kind.KINESIS_LOST_ANSWER, Kind.KILL, Kind.SQS_TWICE, Kind.KINESIS_TIMEOUT, Kind.CLIENT_DEAF),
        ("duplicated",),
    ),
    Defence(
        "a message is searched for before it is put",
        _replaced(Search, _AlwaysAbsent),
        (Kind.KINESIS_LOST_ANSWER,),
        ("duplicated",),
    ),
    Defence(
        "rows that may be on the stream are not sent before a search",
        _guard(Guard.SEARCHED),
        (Kind.KINESIS_UNREADABLE, Kind.KINESIS_LOST_ANSWER),
        ("duplicated",),
        events=100,
    ),
    Defence(
        "an empty response proves nothing",
        _replaced(Search, _Credulous),
        (Kind.KINESIS_EMPTY_AT_TIP, Kind.KINESIS_LOST_ANSWER),
        ("duplicated",),
    ),
    Defence(
        "an empty response with a lag proves nothing either",
        _replaced(Search, _Credulous),
        (Kind.KINESIS_EMPTY, Kind.KINESIS_LOST_ANSWER),
        ("duplicated",),
    ),
    Defence(
        "all shards are searched if Kinesis chooses them",
        _replaced(Search, _Credulous),
        (Kind.KINESIS_AUTO, Kind.KINESIS_LOST_ANSWER),
        ("duplicated",),
    ),
    Defence(
        "a read that shows a record twice, or one of another shard, proves nothing",
        _replaced(Search, _Credulous),
        (Kind.KINESIS_FOREIGN, Kind.KINESIS_TWICE, Kind.KINESIS_LOST_ANSWER, Kind.KINESIS_EMPTY_AT_TIP),
        ("duplicated",),
    ),
    Defence(
        "a batch is compared with the shard",
        _guard(Guard.CONTIGUOUS),
        (Kind.LANES, Kind.TD_5XX, Kind.TD_LOST_ANSWER),
        ("lost", "stuck"),
    ),
    Defence(
        "an unanswered statement claims nothing",
        _replaced(Ledger, _HopefulLedger),
        (Kind.DYNAMODB_PARTIAL, Kind.CLIENT_DEAF, Kind.KINESIS_LOST_ANSWER, Kind.SQS_TWICE),
        ("duplicated", "lost"),
    ),
    Defence(
        "holes, if the event source passes over records",
        _read_otherwise(lambda _world, span: replace(span, first=START)),
        (Kind.PASSED_OVER, Kind.TD_5XX),
        ("lost",),
    ),
    Defence(
        "a message's age is also judged by the ingest's clock",
        _replaced(Drain, partial(Drain, landing_seconds=-170.0)),
        (Kind.SQS_STAMPS, Kind.KINESIS_LATE),
        ("duplicated",),
    ),
    Defence(
        "a message is searched for only after two minutes",
        _replaced(Drain, partial(Drain, landing_seconds=-1e9)),
        (Kind.KINESIS_LATE,),
        ("duplicated",),
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
        _replaced(Rules, _EndlessMemory),
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
        "only the invocation that opened a doubt clears it",
        _guard(Guard.OWN_DOUBT),
        (Kind.TD_LOST_ANSWER, Kind.TD_5XX, Kind.REMAP, Kind.TD_BROKEN_DATABASE),
        ("duplicated",),
    ),
    Defence(
        "Treasure Data is queried about rejections after a doubt",
        _guard(Guard.DOUBTED_REFUSAL),
        (Kind.TD_LOST_ANSWER, Kind.TD_5XX, Kind.TD_REJECTS_TABLE),
        ("both",),
    ),
    Defence(
        "the deadline is checked before each send",
        _guard(Guard.CLOCK_BEFORE_SEND),
        (Kind.OVERRUN, Kind.PAUSE, Kind.TD_LOST_ANSWER, Kind.TD_SLOW),
        ("duplicated",),
        seeds=200,
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
        "held rows are set aside at half of the retention",
        _replaced(Rules, _held_for_ever),
        (Kind.TD_LONG_OUTAGE, Kind.REDIS_LONG_OUTAGE),
        ("lost",),
        events=100,
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
        "a put to S3 counts only with the ETag of its bytes",
        _replaced(Bucket, _AnyAnswer),
        (Kind.S3_FOREIGN_PAGE, Kind.TD_REJECTS_TABLE, Kind.TD_BROKEN_DATABASE),
        ("lost", "miscounted", "stuck"),
    ),
    Defence(
        "a 412 does not prove that an object exists",
        _replaced(SetAsideStore, _ignoring("PreconditionFailed")),
        (Kind.S3_FALSE_CONFLICT, Kind.TD_REJECTS_TABLE, Kind.TD_BROKEN_DATABASE),
        ("lost", "miscounted", "stuck"),
    ),
    Defence(
        "rows that cannot be set aside are held",
        _replaced(SetAsideStore, _ignoring("AccessDenied")),
        (Kind.ACCESS_DENIED, Kind.TD_REJECTS_TABLE, Kind.TD_BROKEN_DATABASE),
        ("lost", "miscounted", "stuck"),
        seeds=200,
    ),
    Defence(
        "the digest of S3's bytes is checked",
        _replaced(SetAsideStore, _AnyBytes),
        (Kind.S3_OTHER_OBJECT, Kind.TD_REJECTS_TABLE, Kind.TD_BROKEN_DATABASE),
        ("lost", "duplicated", "stuck"),
    ),
    Defence(
        "the sweeper compares an object's name with its content",
        _replaced(SetAsideStore, _AnyName),
        (Kind.S3_OTHER_OBJECT, Kind.S3_DELETE_REFUSED, Kind.TD_REJECTS_TABLE, Kind.TD_BROKEN_DATABASE),
        ("lost", "miscounted", "stuck"),
        seeds=200,
    ),
    Defence(
        "an archive object is never overwritten",
        _replaced(Bucket, _WritesAgain),
        (Kind.TD_5XX, Kind.KILL, Kind.REPLAY, Kind.ABANDON),
        ("miscounted",),
    ),
    Defence(
        "an archive object that S3 says exists is read",
        _replaced(Archive, _TrustsConflicts),
        (Kind.S3_FALSE_CONFLICT, Kind.TD_5XX),
        ("miscounted",),
    ),
    Defence(
        "the archive's put counts only with the ETag of its bytes",
        _replaced(Bucket, _AnyAnswer),
        (Kind.S3_FOREIGN_PAGE, Kind.TD_5XX),
        ("miscounted",),
    ),
    Defence(
        "an incomplete read is never archived",
        _replaced(OpenSpans, _ArchivesAnyRead),
        (Kind.KINESIS_EMPTY, Kind.KINESIS_EMPTY_AT_TIP, Kind.BORDERS, Kind.TD_5XX, Kind.KILL, Kind.S3_ERROR),
        ("miscounted", "stuck"),
        seeds=200,
    ),
    Defence(
        "a span is held until the archive has its records",
        _replaced(Archive, _DoesWithoutArchive),
        (Kind.S3_ERROR, Kind.TD_5XX),
        ("miscounted",),
    ),
    Defence(
        "a replay from the archive uses its object's chain",
        _replaced(Worker, _IgnoresArchivedChain),
        (Kind.RECREATE, Kind.REPLAY_ARCHIVE),
        ("duplicated",),
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
    Defence(
        "the sweeper removes what could not be deleted",
        _replaced(Sweeper, _Idle),
        (Kind.S3_DELETE_REFUSED, Kind.TD_BROKEN_DATABASE, Kind.SEND),
        ("stuck",),
    ),
)
"""Without each of these, rows are lost, duplicated or misjudged."""

WAITING: tuple[Defence, ...] = (
    Defence(
        "an open breaker parks rows without trying them",
        _replaced(Breakers, _ClosedBreakers),
        (Kind.TD_BROKEN_DATABASE, Kind.TD_HANGING_DATABASE),
        ("waiting",),
    ),
    Defence(
        "a failing database is retried for a bounded time",
        Weakness(settings={"park_after_seconds": 1e9}),
        (Kind.TD_BROKEN_DATABASE, Kind.TD_HANGING_DATABASE),
        ("waiting",),
    ),
    Defence(
        "a database that fails alone is parked, not held",
        Weakness(replaced=lambda _world: {Breakers: _NobodyElse, TreasureDataClient: _Silent}),
        (Kind.TD_HANGING_DATABASE, Kind.TD_FORBIDDEN_DATABASE),
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
