"""Kinds of trouble, when each may occur in a schedule, and how often it did."""

import random
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum

from chaos.simulation import Simulation


class Kind(StrEnum):
    """A kind of trouble. Those without a comment are explained by their name."""

    # Treasure Data
    TD_5XX = "td 5xx"
    TD_429 = "td 429"  # with Retry-After
    TD_SLOW = "td slow"
    TD_HANG = "td hangs"
    TD_RESET_BEFORE = "td reset before the body"
    TD_RESET_AFTER = "td reset after the body"
    TD_LOST_ANSWER = "td answer lost"  # the rows were accepted
    TD_LATE = "td takes it late"  # the client gave up, the rows are accepted later
    TD_WRONG_MD5 = "td wrong md5"  # whether the rows were taken, or it is the answer to another request
    TD_NOT_JSON = "td answers no JSON"
    TD_REFUSED = "td connection refused"
    TD_UNREACHABLE = "td unreachable"
    TD_OUTAGE = "td outage"  # silent altogether, the status endpoint too
    TD_LONG_OUTAGE = "td gone beyond half the retention"  # surely: its connections are refused
    TD_UNAUTHORIZED = "td key refused"  # 401 for everything
    TD_BROKEN_DATABASE = "td database broken"  # 500 of one database alone
    TD_FORBIDDEN_DATABASE = "td database forbidden"  # 403 of one database alone
    TD_HANGING_DATABASE = "td database hangs"
    TD_SLOW_DATABASE = "td database slow"  # it answers well, after seconds
    TD_REJECTS_TABLE = "td rejects a table"  # 422 for one table: its rows are dead letters
    TD_TOO_LARGE = "td too large"  # 413 above a small limit
    TD_TABLE_MISSING = "td table missing"  # nothing exists at first; the worker creates
    TD_JOB_FAILS = "td queries fail"
    # Whatever answers at Treasure Data's address, in place of Treasure Data or for it
    TD_FOREIGN_PAGE = "td page with 200"
    TD_EMPTY_JSON = "td empty json with 200"
    TD_TRUNCATED = "td answer cut off"
    TD_PARTIAL = "td 206"
    TD_REDIRECT = "td redirects"
    TD_FOREIGN_REFUSAL = "td refused by a proxy"  # its page, whether the rows were accepted or not
    TD_WRONG_HOST = "td wrong host"  # which knows neither our key nor what we name: 404 and 409
    TD_STALE_JOB = "td answers with an old job"  # the same query, run hours ago
    TD_SCHEMA_LAGS = "td schema lags"
    TD_NO_SCHEMA = "td schema detection off"
    TD_BAD_ROWS = "td rejects rows"  # single ones, with the chunks that hold them
    # Redis
    REDIS_DOWN = "redis down"
    REDIS_SLOW = "redis slow"
    REDIS_TIMEOUT = "redis times out"
    REDIS_LONG_OUTAGE = "redis gone beyond half the retention"
    REDIS_EMPTY = "redis emptied"
    REDIS_HALF = "redis half gone"  # half of the accounts cannot be asked
    REDIS_REFUSED = "redis refuses tokens"  # no connection is admitted
    REDIS_ERRORS = "redis answers with errors"  # of its own, to single commands
    # Kinesis
    KINESIS_THROTTLE = "kinesis throttles"
    KINESIS_PARTIAL = "kinesis partial failure"
    KINESIS_INTERNAL = "kinesis internal failure"  # of an entry or a call; some of them were taken
    KINESIS_LOST_ANSWER = "kinesis answer lost"  # the put was accepted
    KINESIS_TIMEOUT = "kinesis times out"  # the put was not accepted
    KINESIS_LATE = "kinesis put lands late"
    KINESIS_DOWN = "kinesis gone"
    KINESIS_READ = "kinesis reads fail"
    KINESIS_LONG_OUTAGE = "kinesis gone beyond half the retention"
    KINESIS_UNREADABLE = (
        "kinesis unreadable beyond half the retention"  # for the event source too; it takes puts
    )
    KINESIS_EMPTY = "kinesis read empty"  # with lag
    KINESIS_EMPTY_AT_TIP = "kinesis read empty, no lag"
    KINESIS_TWICE = "kinesis read shows twice"  # the same record
    KINESIS_FOREIGN = "kinesis read of another shard"  # a record of it among the shard's own
    KINESIS_JUMP = "kinesis iterator jumps"  # past records
    KINESIS_STAMPS = "kinesis stamps wrong"  # arrival times, by up to five minutes
    KINESIS_AUTO = "kinesis chooses the shards"
    RESHARD = "reshard"
    RECREATE = "stream created again"  # once it holds nothing that is not settled
    # SQS
    SQS_DOWN = "sqs gone"
    SQS_LOST_ANSWER = "sqs answer lost"
    SQS_TWICE = "sqs delivers twice"
    SQS_STAMPS = "sqs stamps wrong"  # sent up to five minutes earlier than it was, received often
    SQS_COUNTS = "sqs counts lag"  # of messages, by minutes
    # DynamoDB and S3
    DYNAMODB_ERROR = "dynamodb error"
    DYNAMODB_LOST_ANSWER = "dynamodb answer lost"
    DYNAMODB_REPEAT = "dynamodb write repeated"
    DYNAMODB_LATE = "dynamodb write lands late"
    DYNAMODB_SLOW = "dynamodb slow"
    DYNAMODB_PARTIAL = "dynamodb answers in part"  # of a batch some keys or statements are throttled
    S3_ERROR = "s3 error"
    S3_LOST_ANSWER = "s3 answer lost"
    S3_LATE = "s3 put lands late"
    S3_OTHER_OBJECT = "s3 returns another object"
    S3_TRUNCATED = "s3 returns half an object"
    S3_FALSE_CONFLICT = "s3 says that a new object exists"  # 412, and nothing was written
    S3_FOREIGN_PAGE = "s3 is a proxy's page"  # status 200 without S3's headers; nothing was done
    S3_DELETE_REFUSED = "s3 refuses deletes"
    S3_STALE_LISTING = "s3 listing stale"  # in small pages, without some objects, with some that have gone
    S3_POLICY = "edge policy wrong"  # cut off, of the next version, an older one, or there is none
    # IAM
    ACCESS_DENIED = "access denied"  # one action of one function
    # Lambda
    KILL = "kill"
    TIMEOUT = "time-out"  # that the harness saw, whatever brought it about
    ABANDON = "abandoned, still running"  # the event source gives up, the invocation runs on
    OVERRUN = "runs on past its time-out"
    PAUSE = "pause"
    COLD = "sandboxes vanish"
    SKEW = "clock jumps"  # a sandbox's own clock, by up to twenty seconds
    UNASKABLE = "td key may not query"
    STANDSTILL = "standstill"  # nothing runs behind the ingest, while time passes
    # Clients
    CLIENT_DEAF = "client does not hear the answer"  # and sends its batch again under the same id
    # Operators
    REPLAY = "replay"
    REDRIVE = "redrive by hand"
    REMAP = "remap"
    PLAN = "tracking plan changed"  # to observe, quarantine or off
    DISABLE = "account disabled"  # for a while; its rows are dead letters
    GARBAGE = "undecodable record"
    LIMITS = "part limits changed"
    BORDERS = "batches cut differently"
    REWIND = "event source forgets its checkpoint"
    REPLAY_ARCHIVE = "replay from the archive"
    PASSED_OVER = "event source passes over records"  # and comes back to them later
    LANES = "event source runs in parallel"  # several invocations for one shard at once, by partition key
    FILTERED = "event source filters"  # some records never come, until somebody removes the filter


DATABASE_KINDS = (
    Kind.TD_BROKEN_DATABASE,
    Kind.TD_FORBIDDEN_DATABASE,
    Kind.TD_HANGING_DATABASE,
    Kind.TD_SLOW_DATABASE,
)
"""Kinds that strike one database."""


@dataclass(frozen=True, slots=True)
class Window:
    """A period in which one kind of trouble may occur.

    Attributes:
        kind: what strikes.
        begin: UNIX seconds.
        end: UNIX seconds.
        chance: of each opportunity, 0 … 1.
        target: the database, table or key that is struck; empty for all.
    """

    kind: Kind
    begin: float
    end: float
    chance: float = 1.0
    target: str = ""


class Trouble:
    """Decides at each opportunity whether trouble occurs.

    Args:
        simulation: tells the time.
        windows: when which kind may strike.
        seed: of the chances.
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
        # named by itself, so that its chances stay the same when other windows are left out
        chances = random.Random(f"{self._seed}/{window.kind}/{window.begin}/{window.target}")
        self._windows.setdefault(window.kind, []).append((window, chances))

    def heal(self) -> None:
        """End all trouble permanently."""
        self._windows.clear()

    def strike(self, kind: Kind, target: str = "") -> random.Random | None:
        """Return the window's random source if trouble of this kind occurs now, and count it."""
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
        """Tell whether a window of this kind is open, whatever its chance, without counting it."""
        now = self._simulation.now
        return any(_is_open(window, now, target) for window, _ in self._windows.get(kind, ()))

    def any_of(self, kinds: frozenset[Kind]) -> bool:
        """Tell whether the schedule has any of these kinds: a fast check before the exact one."""
        return not kinds.isdisjoint(self._windows)

    def count(self, kind: Kind) -> None:
        """Record that trouble of this kind actually occurred."""
        self.strikes[kind] += 1
        self._simulation.note(f"! {kind}")


def _is_open(window: Window, now: float, target: str) -> bool:
    return window.begin <= now < window.end and window.target in ("", target)
