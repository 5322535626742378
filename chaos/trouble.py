"""The kinds of trouble, when each may strike in a schedule, and how often it did."""

import random
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum

from chaos.simulation import Simulation


class Kind(StrEnum):
    """A kind of trouble."""

    # Treasure Data
    TD_5XX = "td 5xx"
    TD_429 = "td 429"  # with Retry-After
    TD_SLOW = "td slow"
    TD_HANG = "td hangs"
    TD_RESET_BEFORE = "td reset before the body"
    TD_RESET_AFTER = "td reset after the body"
    TD_LOST_ANSWER = "td answer lost"  # the rows were accepted
    TD_LATE = "td takes it late"  # the client gives up, and the rows are accepted later
    TD_WRONG_MD5 = "td wrong md5"  # the rows were accepted, or the response belongs to another request
    TD_NOT_JSON = "td answers no JSON"
    TD_REFUSED = "td connection refused"
    TD_UNREACHABLE = "td unreachable"
    TD_OUTAGE = "td outage"  # of everything, the status endpoint too
    TD_UNAUTHORIZED = "td key refused"  # 401 for everything
    TD_BROKEN_DATABASE = "td database broken"  # 500 of one database alone
    TD_FORBIDDEN_DATABASE = "td database forbidden"  # 403 of one database alone
    TD_HANGING_DATABASE = "td database hangs"
    TD_SLOW_DATABASE = "td database slow"  # correct responses, after seconds
    TD_REJECTS_TABLE = "td rejects a table"  # 422 for one table: its rows are dead
    TD_TOO_LARGE = "td too large"  # 413 above a small limit
    TD_TABLE_MISSING = "td table missing"  # nothing exists at first; the worker creates it
    TD_JOB_FAILS = "td queries fail"
    # Wrong responses at Treasure Data's address
    TD_FOREIGN_PAGE = "td page with 200"
    TD_EMPTY_JSON = "td empty json with 200"
    TD_TRUNCATED = "td answer cut off"
    TD_PARTIAL = "td 206"
    TD_REDIRECT = "td redirects"
    TD_FOREIGN_REFUSAL = "td refused by a proxy"  # with a page, whether the rows were accepted or not
    TD_WRONG_HOST = "td wrong host"  # it knows neither our key nor our databases: 401, 404 and 409
    TD_STALE_JOB = "td answers with an old job"  # the same query, run hours earlier
    TD_SCHEMA_LAGS = "td schema lags"
    TD_NO_SCHEMA = "td schema detection off"
    TD_BAD_ROWS = "td rejects rows"  # 422 for chunks that contain certain rows
    # Redis
    REDIS_DOWN = "redis down"
    REDIS_SLOW = "redis slow"
    REDIS_TIMEOUT = "redis times out"
    REDIS_EMPTY = "redis emptied"
    REDIS_HALF = "redis half gone"  # half of the accounts cannot be read
    REDIS_REFUSED = "redis refuses tokens"  # every connection is rejected
    REDIS_ERRORS = "redis answers with errors"  # to single commands
    # Kinesis
    KINESIS_THROTTLE = "kinesis throttles"
    KINESIS_PARTIAL = "kinesis partial failure"
    KINESIS_INTERNAL = "kinesis internal failure"  # of an entry or a call; some of the records were accepted
    KINESIS_LOST_ANSWER = "kinesis answer lost"  # the put was accepted
    KINESIS_TIMEOUT = "kinesis times out"  # the put was not accepted
    KINESIS_LATE = "kinesis put lands late"
    KINESIS_DOWN = "kinesis gone"
    KINESIS_READ = "kinesis reads fail"  # for the event source too; puts succeed
    KINESIS_STAMPS = "kinesis stamps wrong"  # arrival times, by up to two minutes
    KINESIS_AHEAD = "kinesis stamps far ahead"  # single arrival times, by up to three hours
    KINESIS_LISTING = "kinesis lists shards wrongly"  # an older listing, or one that lacks some
    KINESIS_AUTO = "kinesis chooses the shards"
    RESHARD = "reshard"
    RETENTION = "retention changed"  # of the stream, to a day or a week
    RECREATE = "stream created again"  # once everything in it is settled
    # SQS
    SQS_DOWN = "sqs gone"
    SQS_LOST_ANSWER = "sqs answer lost"
    SQS_TWICE = "sqs delivers twice"
    SQS_COUNTS = "sqs counts lag"  # message counts, by minutes
    QUEUE_OFF = "overflow queue not drained"  # for hours, or for days
    # DynamoDB and S3
    DYNAMODB_ERROR = "dynamodb error"
    DYNAMODB_LOST_ANSWER = "dynamodb answer lost"
    DYNAMODB_REPEAT = "dynamodb write repeated"
    DYNAMODB_LATE = "dynamodb write lands late"
    DYNAMODB_SLOW = "dynamodb slow"
    DYNAMODB_PARTIAL = "dynamodb answers in part"  # some keys or statements of a batch are throttled
    S3_ERROR = "s3 error"
    S3_LOST_ANSWER = "s3 answer lost"
    S3_LATE = "s3 put lands late"
    S3_OTHER_OBJECT = "s3 returns another object"
    S3_TRUNCATED = "s3 returns half an object"
    S3_FOREIGN_PAGE = "s3 is a proxy's page"  # status 200 without S3's headers; nothing was done
    S3_DELETE_REFUSED = "s3 refuses deletes"  # for up to four days
    S3_GONE = "s3 objects deleted"  # by mistake; their old versions are brought back later, or one is not
    S3_DAMAGED = "s3 objects damaged"  # likewise
    S3_STALE_LISTING = "s3 listing stale"  # small pages that omit some objects and show some deleted ones
    S3_POLICY = "edge policy wrong"  # truncated, of the next version, an older one, or none
    # IAM
    ACCESS_DENIED = "access denied"  # one action of one function
    # Lambda
    KILL = "kill"
    TIMEOUT = "time-out"  # observed, whatever caused it
    ABANDON = "abandoned, still running"  # the event source gives up, but the invocation runs on
    OVERRUN = "runs on past its time-out"
    PAUSE = "pause"
    COLD = "sandboxes vanish"
    SKEW = "clock jumps"  # a sandbox's own clock, by up to twenty seconds
    UNASKABLE = "td key may not query"
    WEEKS = "weeks"  # traffic and trouble of weeks, in which indexes are swept, shards forgotten and claims expire
    STANDSTILL = "standstill"  # nothing but the ingest runs while time passes
    # Clients
    CROWD = "crowd"  # requests of one event each, from many accounts, and all of them once more: thousands of records in a batch
    CLIENT_DEAF = "client does not hear the answer"  # and retries its batch under the same id
    # Operators
    REPLAY = "replay"
    SEND = "send by hand"
    EDIT = "edit of dead rows"
    DROP = "drop by hand"
    FORCE = "forced replay"
    REMAP = "remap"
    PLAN = "tracking plan changed"  # to observe, quarantine or off
    DISABLE = "account disabled"  # or its key revoked, for a while; its rows are dead
    GARBAGE = "undecodable record"
    LIMITS = "chunk limits changed"  # perhaps of every other sandbox: two releases on one ledger
    BORDERS = "batches cut differently"
    REWIND = "event source forgets its checkpoint"
    PASSED_OVER = "event source passes over records"  # and delivers them later
    LANES = "event source runs in parallel"  # several concurrent invocations for one shard, by partition key
    FILTERED = "event source filters"  # some records are not delivered until somebody removes the filter


DATABASE_KINDS = (
    Kind.TD_BROKEN_DATABASE,
    Kind.TD_FORBIDDEN_DATABASE,
    Kind.TD_HANGING_DATABASE,
    Kind.TD_SLOW_DATABASE,
)
"""Kinds that strike one database."""

LASTING = (Kind.QUEUE_OFF, Kind.S3_DELETE_REFUSED)
"""Kinds that go on for days when everything else has healed."""


@dataclass(frozen=True, slots=True)
class Window:
    """A period (UNIX seconds) in which one kind of trouble may occur.

    `chance` (0 … 1) is that of a strike at each opportunity, `target` the database, table, Redis key or permission that is struck; empty
    for all.
    """

    kind: Kind
    begin: float
    end: float
    chance: float = 1.0
    target: str = ""


class Trouble:
    """Decides at each opportunity whether trouble occurs.

    Args:
        simulation: provides the time.
        windows: when each kind may strike.
        seed: determines the strikes.
    """

    def __init__(self, simulation: Simulation, windows: list[Window], seed: int) -> None:
        self._simulation = simulation
        self._seed = seed
        self._windows: dict[Kind, list[tuple[Window, random.Random]]] = {}
        self.strikes: Counter[Kind] = Counter()
        for window in windows:
            self.add(window)

    def add(self, window: Window) -> None:
        """Add a window."""
        # seeded by the window itself, so that its strikes stay the same when other windows are left out
        chances = random.Random(f"{self._seed}/{window.kind}/{window.begin}/{window.target}")
        self._windows.setdefault(window.kind, []).append((window, chances))

    def heal(self) -> float:
        """End all trouble permanently, but for what lasts. Return when that ends, UNIX seconds."""
        self._windows = {kind: windows for kind, windows in self._windows.items() if kind in LASTING}
        return max((window.end for windows in self._windows.values() for window, _ in windows), default=0.0)

    def strike(self, kind: Kind, target: str = "") -> random.Random | None:
        """If trouble of this kind strikes now, count it and return the window's random source."""
        windows = self._windows.get(kind)
        if windows is None:
            return None
        now = self._simulation.now
        for window, chances in windows:
            if _is_open(window, now, target) and (window.chance >= 1 or chances.random() < window.chance):
                self.count(kind)
                return chances
        return None

    def active(self, kind: Kind, target: str = "") -> bool:
        """Return whether a window of this kind is open, whatever its chance, without counting a strike."""
        now = self._simulation.now
        return any(_is_open(window, now, target) for window, _ in self._windows.get(kind, ()))

    def any_of(self, kinds: frozenset[Kind]) -> bool:
        """Return whether the schedule has any of these kinds: a fast check before the exact one."""
        return not kinds.isdisjoint(self._windows)

    def count(self, kind: Kind) -> None:
        """Record that trouble of this kind occurred."""
        self.strikes[kind] += 1
        self._simulation.note(f"! {kind}")


def _is_open(window: Window, now: float, target: str) -> bool:
    return window.begin <= now < window.end and window.target in ("", target)
