"""Each defence of the pipeline, and how to leave it out.

A defence is left out by replacing a method of a part for as long as a schedule runs; the product knows nothing of it.
What follows when it is missing is found in schedules that have the trouble against which it stands.
"""

import functools
import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

from botocore.exceptions import ReadTimeoutError

from ingest.stream import Fate, Stream
from tests.chaos import clients
from tests.chaos.functions import Functions, Parts
from tests.chaos.trouble import Kind
from tests.chaos.world import TD_MEMORY_SECONDS, World
from worker import drain, treasure_data
from worker.aside import Aside, SetAside
from worker.breaker import Breakers
from worker.deadline import Deadline
from worker.execution import Execution, Rules
from worker.ledger import Ledger
from worker.record import START
from worker.resending import Resending
from worker.search import Findings, Search
from worker.span import Cut, Span
from worker.span import Kind as Kinds
from worker.treasure_data import Asked, TreasureData
from worker.worker import Worker

Removal = Callable[[World], AbstractContextManager[Any]]


@dataclass(frozen=True, slots=True)
class Defence:
    """One defence.

    Attributes:
        name: what it is.
        removal: leaves it out for one world.
        kinds: the trouble that shows its absence.
        breaks: what its absence breaks: names of violations, or `waiting`.
        seeds: how many schedules may be needed.
        events: of each schedule.
        accounts: of the steady traffic by which waiting is measured.
        every: seconds between two requests of one of these.
    """

    name: str
    removal: Removal
    kinds: tuple[Kind, ...]
    breaks: tuple[str, ...]
    seeds: int = 40
    events: int = 400
    accounts: int = 12
    every: float = 20.0


def without(removal: Removal) -> Callable[[World], Functions]:
    """Return a builder of functions for worlds in which a defence is left out."""

    def build(world: World) -> Functions:
        stack = ExitStack()
        stack.enter_context(removal(world))
        world.on_end.append(stack.close)
        return Functions(world)

    return build


def _patched(owner: Any, name: str, replacement: Any) -> Removal:
    return lambda _world: patch.object(owner, name, replacement)


def _wrapped(owner: Any, name: str, wrapper: Callable[..., Any]) -> Removal:
    """Replace a method by `wrapper(world, original, self, *args, **options)`."""
    original = getattr(owner, name)

    def removal(world: World) -> AbstractContextManager[Any]:
        @functools.wraps(original)
        def method(self: Any, *args: Any, **options: Any) -> Any:
            return wrapper(world, original, self, *args, **options)

        return patch.object(owner, name, method)

    return removal


# The ledger


def _unconditional(operation: str) -> Removal:
    """Leave out the condition of an operation on spans."""

    def removal(world: World) -> AbstractContextManager[Any]:
        original = getattr(world.table, operation)

        def call(**request: Any) -> Any:
            place = (request.get("Item") or request["Key"])["pk"]["S"]
            if not place.startswith(("put#", "breakers")):
                request.pop("ConditionExpression", None)
                request.pop("ReturnValuesOnConditionCheckFailure", None)
                if operation == "update_item":
                    request["ExpressionAttributeValues"].pop(":version")
            return original(**request)

        return patch.object(world.table, operation, call)

    return removal


def _plan_after_upload(_world: World) -> AbstractContextManager[Any]:
    """Write a plan only when what came of it is written."""
    append, update = Ledger.append, Ledger.update

    def late_append(self: Ledger, span: Span) -> tuple[bool, Span]:
        unwritten = self.__dict__.setdefault("unwritten", {})
        unwritten[span.chain, span.after] = span
        return True, replace(span, version=1)

    def late_update(self: Ledger, span: Span) -> tuple[bool, Span]:
        planned = self.__dict__.get("unwritten", {}).pop((span.chain, span.after), None)
        if planned is not None:
            append(self, planned)
        return update(self, span)

    stack = ExitStack()
    stack.enter_context(patch.object(Ledger, "append", late_append))
    stack.enter_context(patch.object(Ledger, "update", late_update))
    return stack


def _untouched(_world: World, original: Any, self: Any, span: Span) -> Any:
    """Go on with an open span, or an aside chunk, as if it had been touched."""
    standing = self.get(span.chain, span.after)
    states = {key: entry.state for key, entry in span.chunks.items()}
    stand = standing and {key: entry.state for key, entry in standing.chunks.items()}
    if standing is not None and states == stand and span.done == standing.done:
        return True, span
    return original(self, span)


def _todays_databases(world: World, original: Any, self: Any, *args: Any) -> Any:
    span = original(self, *args)
    if span is None:
        return None
    databases = {
        owner: world.accounts[owner].database if owner in world.accounts else database
        for owner, database in span.databases.items()
    }
    return replace(span, databases=databases)


def _todays_cut(world: World, original: Any, self: Any, *args: Any) -> Any:
    span = original(self, *args)
    return span and replace(span, cut=Cut(*world.cut))


def _without_holes(_world: World, original: Any, self: Any, *args: Any) -> Any:
    span = original(self, *args)
    return span and replace(span, first=START)


@contextmanager
def _ledger_before_s3(_world: World) -> Iterator[None]:
    """Write to the ledger that chunks are aside, and only then write their objects."""
    put, update, delayed = Aside.put, Ledger.update, {}

    def late_put(self: Aside, chunk: SetAside) -> None:
        delayed.setdefault((chunk.chain, chunk.after), []).append((self, chunk))

    def early_update(self: Ledger, span: Span) -> Any:
        answer = update(self, span)
        for aside, chunk in delayed.pop((span.chain, span.after), []):
            put(aside, chunk)
        return answer

    with patch.object(Aside, "put", late_put), patch.object(Ledger, "update", early_update):
        yield


# Doubt


def _always_free_of_doubt(*_args: Any) -> bool:
    return True


def _refused_at_once(_world: World) -> AbstractContextManager[Any]:
    """Call rows dead letters when they are refused, whatever became of earlier attempts."""
    stack = ExitStack()
    stack.enter_context(patch.object(Execution, "_unless_taken", lambda _self, _key, outcome: outcome))
    stack.enter_context(
        patch.object(
            Resending,
            "_refused",
            lambda self, reason, *, free: self._rename(Kinds.DEAD_LETTER, reason, free=free),
        )
    )
    return stack


def _sent_as_dead_letter(_world: World, _original: Any, self: Any, decision: Any) -> bool:
    ours, self._span = self._means.ledger.update(self._span.with_chunks({self._key: decision}))
    return bool(ours)


# The stream and the queue


def _put_at_once(_world: World, _original: Any, self: Any, envelopes: Any, key: str, _since: int) -> Any:
    return self.put(envelopes, key)


def _repeating_client(_world: World) -> AbstractContextManager[Any]:
    """Let the Kinesis client repeat a put that timed out, as botocore does by default."""
    original = clients.Kinesis._put

    def put(self: Any, what: str, action: Any) -> Any:
        try:
            return original(self, what, action)
        except ReadTimeoutError:
            return original(self, what, action)

    return patch.object(clients.Kinesis, "_put", put)


def _doubtful_is_taken(_world: World, original: Any, self: Any, *args: Any) -> Any:
    fates = original(self, *args)
    return [Fate.ACKNOWLEDGED if fate is Fate.DOUBTFUL else fate for fate in fates]


def _records_of_the_batch(_world: World, _original: Any, _self: Any, batch: Any, span: Span) -> Any:
    return [record for record in batch.records if span.first <= record[0] <= span.last]


def _nothing_is_held(_world: World, original: Any, self: Any, *args: Any) -> Any:
    original(self, *args)
    return {"batchItemFailures": []}


# Treasure Data and Redis

_serial = itertools.count()


def _breakers_closed(_world: World) -> AbstractContextManager[Any]:
    stack = ExitStack()
    stack.enter_context(patch.object(Breakers, "is_open", lambda *_: False))
    stack.enter_context(patch.object(Breakers, "consult", lambda *_: False))
    return stack


def _never_alone(_world: World) -> AbstractContextManager[Any]:
    """Believe that all of Treasure Data fails whenever one database does."""
    stack = ExitStack()
    stack.enter_context(patch.object(Breakers, "others_succeeded", lambda *_: False))
    stack.enter_context(patch.object(TreasureData, "answers", lambda *_: False))
    stack.enter_context(patch.object(TreasureData, "knows_key", lambda *_: False))
    return stack


def _one_lane(_world: World) -> AbstractContextManager[Any]:
    stack = ExitStack()
    stack.enter_context(patch.object(Parts, "threads", 1))
    stack.enter_context(patch.object(Parts, "per_database", 1))
    return stack


def _new_id(_world: World, _original: Any, _self: Any, *_args: Any) -> str:
    return f"{next(_serial):032x}"


def _blind_to_md5(_world: World) -> AbstractContextManager[Any]:
    original = treasure_data.classify

    def classify(status: int, headers: Any, body: bytes, sent_md5: str, now: float) -> Any:
        return original(
            status, headers, b"{}" if status == 200 and b"md5_hex" in body else body, sent_md5, now
        )

    return patch.object(treasure_data, "classify", classify)


def _sentinel_everywhere(_world: World) -> AbstractContextManager[Any]:
    return patch.object(clients.Reachable, "hget", lambda *_: "always")


ALL: tuple[Defence, ...] = (
    Defence(
        "condition of the plan's put",
        _unconditional("put_item"),
        (Kind.ABANDON, Kind.TD_SLOW, Kind.REPLAY, Kind.BORDERS),
        ("doubled", "lost", "stuck"),
    ),
    Defence(
        "plan before the upload",
        _plan_after_upload,
        (Kind.KILL, Kind.ABANDON, Kind.REPLAY, Kind.BORDERS, Kind.TD_5XX),
        ("doubled", "lost"),
    ),
    Defence(
        "touch of an open span",
        _wrapped(Ledger, "update", _untouched),
        (Kind.TD_LOST_ANSWER, Kind.TD_REFUSED, Kind.REPLAY, Kind.REDRIVE, Kind.REMAP, Kind.PAUSE, Kind.KILL),
        ("doubled", "both", "lost"),
        seeds=200,
    ),
    Defence(
        "IF v",
        _unconditional("update_item"),
        (
            Kind.TD_LOST_ANSWER,
            Kind.TD_REFUSED,
            Kind.REPLAY,
            Kind.REDRIVE,
            Kind.REMAP,
            Kind.PAUSE,
            Kind.ABANDON,
            Kind.TD_REJECTS_TABLE,
        ),
        ("doubled", "both", "lost"),
        seeds=200,
    ),
    Defence(
        "databases in the plan",
        _wrapped(Ledger, "preceding", _todays_databases),
        (Kind.REMAP, Kind.TD_LOST_ANSWER, Kind.KILL, Kind.REPLAY),
        ("doubled", "misrouted"),
    ),
    Defence(
        "limits in the plan",
        _wrapped(Ledger, "preceding", _todays_cut),
        (Kind.LIMITS, Kind.TD_LOST_ANSWER, Kind.KILL),
        ("doubled", "lost"),
    ),
    Defence(
        "holes",
        _wrapped(Ledger, "preceding", _without_holes),
        (Kind.REPLAY, Kind.TD_5XX, Kind.REDIS_DOWN, Kind.BORDERS),
        ("lost",),
    ),
    Defence(
        "records before and behind the batch",
        _wrapped(Worker, "_records_of", _records_of_the_batch),
        (Kind.BORDERS, Kind.TD_5XX, Kind.KILL),
        ("lost", "doubled"),
    ),
    Defence(
        "S3 before the ledger",
        _ledger_before_s3,
        (Kind.KILL, Kind.S3_ERROR, Kind.TD_BROKEN_DATABASE, Kind.TD_REJECTS_TABLE),
        ("lost", "miscounted"),
    ),
    Defence(
        "one claim for an envelope that may be there twice",
        _patched(Ledger, "claim", lambda *_: True),
        (Kind.KINESIS_LOST_ANSWER, Kind.KILL, Kind.SQS_TWICE, Kind.KINESIS_TIMEOUT),
        ("doubled",),
    ),
    Defence(
        "search before a message is put",
        _patched(
            Search,
            "find",
            lambda _self, sought, _deadline: Findings(frozenset(), frozenset(one.identity for one in sought)),
        ),
        (Kind.KINESIS_LOST_ANSWER,),
        ("doubled",),
    ),
    Defence(
        "two minutes before a message is searched for",
        _patched(drain, "LATEST_LANDING_SECONDS", -1e9),
        (Kind.KINESIS_LATE,),
        ("doubled",),
    ),
    Defence(
        "a doubtful put goes to the queue",
        _wrapped(Stream, "_call", _doubtful_is_taken),
        (Kind.KINESIS_TIMEOUT,),
        ("lost",),
    ),
    Defence(
        "a repeated request goes to the queue",
        _wrapped(Stream, "put_again", _put_at_once),
        (Kind.CLIENT_DEAF,),
        ("doubled",),
    ),
    Defence(
        "a search that begins at the first request",
        _patched(drain, "_LONGEST_MEMORY_SECONDS", 0),
        (Kind.CLIENT_DEAF,),
        ("doubled",),
    ),
    Defence("botocore repeats no put", _repeating_client, (Kind.KINESIS_LOST_ANSWER,), ("doubled",)),
    Defence(
        "clock of the doubt",
        _patched(Rules, "is_doubt_old", lambda *_: False),
        (Kind.TD_LOST_ANSWER, Kind.TD_OUTAGE, Kind.KILL, Kind.STANDSTILL),
        ("doubled",),
    ),
    Defence(
        "asking Treasure Data",
        _patched(TreasureData, "ask", lambda *_: Asked.NOT_THERE),
        (Kind.TD_LOST_ANSWER, Kind.TD_OUTAGE, Kind.KILL),
        ("doubled",),
    ),
    Defence(
        "patience before asking",
        _patched(Parts, "query_delay", -TD_MEMORY_SECONDS),
        (Kind.TD_LOST_ANSWER, Kind.TD_OUTAGE, Kind.OVERRUN, Kind.ABANDON, Kind.REDRIVE, Kind.TD_LATE),
        ("doubled",),
        seeds=200,
    ),
    Defence(
        "careful clearing of the doubt",
        _patched(Execution, "_is_free_of_doubt", _always_free_of_doubt),
        (Kind.TD_LOST_ANSWER, Kind.TD_5XX, Kind.REMAP, Kind.TD_BROKEN_DATABASE),
        ("doubled",),
    ),
    Defence(
        "asking about what is refused after a doubt",
        _refused_at_once,
        (Kind.TD_LOST_ANSWER, Kind.TD_5XX, Kind.TD_REJECTS_TABLE),
        ("both",),
    ),
    Defence(
        "announcing what is refused",
        _patched(Execution, "_announce", lambda *_: {}),
        (Kind.TD_REJECTS_TABLE, Kind.S3_LOST_ANSWER, Kind.KILL),
        ("both",),
        seeds=200,
    ),
    Defence(
        "parking a dead letter before it is sent",
        _wrapped(Resending, "_write", _sent_as_dead_letter),
        (Kind.TD_REJECTS_TABLE, Kind.REDRIVE, Kind.TD_LOST_ANSWER, Kind.TD_5XX, Kind.KILL),
        ("both",),
        seeds=200,
    ),
    Defence(
        "deadline before each send",
        _patched(Deadline, "left", lambda _self: 1e6),
        (Kind.OVERRUN, Kind.PAUSE, Kind.TD_LOST_ANSWER, Kind.TD_SLOW),
        ("doubled",),
        seeds=200,
    ),
    Defence(
        "the same id at every attempt",
        _wrapped(Span, "unique_id", _new_id),
        (Kind.TD_LOST_ANSWER,),
        ("doubled",),
    ),
    Defence("md5 of what was taken", _blind_to_md5, (Kind.TD_WRONG_MD5,), ("lost",)),
    Defence(
        "set aside at half of the retention",
        _patched(Parts, "held_share", 1e6),
        (Kind.TD_LONG_OUTAGE, Kind.REDIS_LONG_OUTAGE),
        ("lost",),
        events=100,
    ),
    Defence("sentinel of the accounts", _sentinel_everywhere, (Kind.REDIS_EMPTY,), ("misjudged",)),
    Defence(
        "batches are held from the first record that is not settled",
        _wrapped(Worker, "run", _nothing_is_held),
        (Kind.REDIS_DOWN, Kind.DYNAMODB_ERROR),
        ("lost", "stuck"),
    ),
)
"""Without each of these, rows are lost, doubled or misjudged."""

WAITING: tuple[Defence, ...] = (
    Defence(
        "a breaker parks what follows untried",
        _breakers_closed,
        (Kind.TD_BROKEN_DATABASE, Kind.TD_HANGING_DATABASE),
        ("waiting",),
    ),
    Defence(
        "a failing database is tried for a bounded time",
        _patched(Parts, "park_after", 1e9),
        (Kind.TD_BROKEN_DATABASE, Kind.TD_HANGING_DATABASE),
        ("waiting",),
    ),
    Defence(
        "a database that fails alone is parked, not held",
        _never_alone,
        (Kind.TD_HANGING_DATABASE, Kind.TD_FORBIDDEN_DATABASE),
        ("waiting",),
    ),
    Defence(
        "a lane for each database",
        _one_lane,
        (Kind.TD_HANGING_DATABASE,),
        ("waiting",),
        accounts=50,
        every=8.0,
    ),
)
"""Without each of these, the rows of healthy databases wait for a sick one."""
