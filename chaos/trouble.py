"""The kinds of trouble, when each may strike in a schedule, and how often it did."""

import random
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from chaos.simulation import Simulation

HOUR = 3600.0
_BRIEF, _LONG, _PHASE, _SPELL = (5.0, 120.0), (60.0, 1800.0), (60.0, 2 * HOUR), (60.0, 3 * HOUR)
_WHILE, _HOURS, _SHIFT, _NIGHT = (HOUR, 3 * HOUR), (HOUR, 4 * HOUR), (HOUR, 6 * HOUR), (2 * HOUR, 8 * HOUR)
_ALWAYS, _MIXED = (1.0,), (0.2, 0.6, 1.0)
_DOUBTS, _PUT_AGAIN = "TD_OUTAGE TD_LOST_ANSWER", "KINESIS_LOST_ANSWER KINESIS_TIMEOUT"


class Kind(StrEnum):
    """A kind of trouble, and how a schedule draws it.

    After the name: how many windows or acts it has at most, the range of a window's length (seconds), the possible chances of a strike, and
    the names of the other kinds that it needs to show an effect.
    """

    most: int
    seconds: tuple[float, float] | None
    chances: tuple[float, ...]
    companions: tuple[str, ...]

    def __new__(
        cls,
        name: str,
        most: int = 0,
        seconds: tuple[float, float] | None = None,
        chances: tuple[float, ...] = (),
        companions: str = "",
    ) -> Self:
        """Return a member."""
        kind = str.__new__(cls, name)
        kind._value_ = name
        kind.most, kind.seconds, kind.chances = most, seconds, chances
        kind.companions = tuple(companions.split())
        return kind

    # fmt: off
    TD_5XX = "td 5xx", 3, _LONG, _MIXED
    TD_429 = "td 429", 2, _LONG, _MIXED  # with Retry-After
    TD_SLOW = "td slow", 2, _LONG, (0.3, 1.0)
    TD_HANG = "td hangs", 2, _LONG, (0.2, 0.6)
    TD_RESET_BEFORE = "td reset before the body", 2, _LONG, (0.3, 1.0)
    TD_RESET_AFTER = "td reset after the body", 2, _LONG, (0.3, 1.0)
    TD_LOST_ANSWER = "td answer lost", 3, _LONG, (0.2, 0.5, 1.0)  # the rows were accepted
    TD_LATE = "td takes it late", 2, _LONG, (0.2, 0.5)  # the client gives up, and the rows are accepted later
    # the rows were accepted, or the response belongs to another request
    TD_WRONG_MD5 = "td wrong md5", 2, _BRIEF, (0.2, 1.0)
    TD_NOT_JSON = "td answers no JSON", 2, _LONG, (0.2, 0.6)
    TD_REFUSED = "td connection refused", 2, _LONG, (0.3, 1.0)
    TD_OUTAGE = "td outage", 1, (600.0, 3 * HOUR), _ALWAYS, "TD_LOST_ANSWER"  # of everything, the status endpoint too
    TD_UNAUTHORIZED = "td key refused", 1, _LONG, _ALWAYS  # 401 for everything
    TD_BROKEN_DATABASE = "td database broken", 1, _PHASE, (0.5, 1.0)  # 500 of one database alone
    TD_FORBIDDEN_DATABASE = "td database forbidden", 1, _LONG, _ALWAYS  # 403 of one database alone
    TD_HANGING_DATABASE = "td database hangs", 1, _PHASE, (0.5, 1.0)
    TD_SLOW_DATABASE = "td database slow", 1, _PHASE, (0.5, 1.0)  # correct responses, after seconds
    TD_REJECTS_TABLE = "td rejects a table", 1, _LONG, _ALWAYS  # 422 for one table: its rows are dead
    TD_TOO_LARGE = "td too large", 1, _LONG, _ALWAYS  # 413 above a small limit
    TD_JOB_FAILS = "td queries fail", 1, _HOURS, (0.5, 1.0), f"{_DOUBTS} KILL"
    TD_FOREIGN_PAGE = "td page with 200", 2, _SPELL, _MIXED, _DOUBTS
    TD_EMPTY_JSON = "td empty json with 200", 2, _SPELL, _MIXED, _DOUBTS
    TD_TRUNCATED = "td answer cut off", 2, _SPELL, _MIXED, _DOUBTS
    TD_PARTIAL = "td 206", 2, _SPELL, _MIXED, _DOUBTS
    TD_REDIRECT = "td redirects", 2, _SPELL, _MIXED
    # with a page, whether the rows were accepted or not
    TD_FOREIGN_REFUSAL = "td refused by a proxy", 2, _SPELL, _MIXED
    # it knows neither our key nor our databases: 401, 404 and 409
    TD_WRONG_HOST = "td wrong host", 2, _SPELL, _MIXED, f"{_DOUBTS} REMAP"
    # the same query, run hours earlier
    TD_STALE_JOB = "td answers with an old job", 1, _NIGHT, (0.5, 1.0), f"{_DOUBTS} TD_5XX"
    TD_SCHEMA_LAGS = "td schema lags", 1, _NIGHT, _ALWAYS, _DOUBTS
    TD_NO_SCHEMA = "td schema detection off", 1, _NIGHT, _ALWAYS, _DOUBTS
    TD_BAD_ROWS = "td rejects rows", 1, _LONG, _ALWAYS, "TD_LOST_ANSWER"  # 422 for chunks that contain certain rows
    REDIS_DOWN = "redis down", 2, _LONG, (0.5, 1.0)
    REDIS_SLOW = "redis slow", 1, _LONG, _ALWAYS
    REDIS_TIMEOUT = "redis times out", 2, _LONG, (0.5, 1.0)
    REDIS_EMPTY = "redis emptied", 1, _LONG, _ALWAYS
    REDIS_HALF = "redis half gone", 1, _LONG, _ALWAYS  # half of the accounts cannot be read
    REDIS_REFUSED = "redis refuses tokens", 1, _LONG, (0.5, 1.0)  # every connection is rejected
    REDIS_ERRORS = "redis answers with errors", 1, _LONG, (0.2, 1.0)  # to single commands
    KINESIS_THROTTLE = "kinesis throttles", 2, _LONG, (0.3, 0.9)
    KINESIS_PARTIAL = "kinesis partial failure", 2, _LONG, (0.5, 1.0)
    # of an entry or a call; some of the records were accepted
    KINESIS_INTERNAL = "kinesis internal failure", 2, _LONG, (0.2, 0.6)
    KINESIS_LOST_ANSWER = "kinesis answer lost", 2, _LONG, (0.2, 0.7)  # the put was accepted
    KINESIS_TIMEOUT = "kinesis times out", 2, _LONG, (0.2, 0.7)  # the put was not accepted
    KINESIS_LATE = "kinesis put lands late", 2, _LONG, (0.2, 0.7)
    KINESIS_DOWN = "kinesis gone", 1, _LONG, _ALWAYS
    # for the event source too; puts succeed
    KINESIS_READ = "kinesis reads fail", 2, _LONG, (0.2, 0.5, 1.0), "KINESIS_LOST_ANSWER BORDERS"
    # arrival times, by up to two minutes
    KINESIS_STAMPS = "kinesis stamps wrong", 2, _HOURS, (0.3, 1.0), f"{_PUT_AGAIN} RESHARD"
    KINESIS_AUTO = "kinesis chooses the shards", 1, _SHIFT, _ALWAYS, f"{_PUT_AGAIN} RESHARD"
    # single arrival times, by up to three hours
    KINESIS_AHEAD = "kinesis stamps far ahead", 2, _HOURS, (0.02, 0.2), "KINESIS_LOST_ANSWER KINESIS_LATE"
    # an older listing, or one that lacks some
    KINESIS_LISTING = "kinesis lists shards wrongly", 2, _HOURS, (0.3, 1.0), "KINESIS_LOST_ANSWER RESHARD"
    SQS_DOWN = "sqs gone", 1, _LONG, (0.5, 1.0), "KINESIS_THROTTLE"
    SQS_LOST_ANSWER = "sqs answer lost", 1, _LONG, (0.3,), "KINESIS_LOST_ANSWER"
    SQS_TWICE = "sqs delivers twice", 1, _WHILE, (0.3,), "KINESIS_LOST_ANSWER"
    # message counts, by minutes
    SQS_COUNTS = "sqs counts lag", 2, _WHILE, (0.5, 1.0), "KINESIS_TIMEOUT KINESIS_THROTTLE"
    QUEUE_OFF = "overflow queue not drained", 1, (HOUR, 80 * HOUR), _ALWAYS, _PUT_AGAIN  # for hours, or for days
    DYNAMODB_ERROR = "dynamodb error", 2, _LONG, (0.05, 0.3, 1.0)
    DYNAMODB_LOST_ANSWER = "dynamodb answer lost", 2, _LONG, (0.05, 0.3)
    DYNAMODB_REPEAT = "dynamodb write repeated", 2, _LONG, (0.1, 0.5)
    DYNAMODB_LATE = "dynamodb write lands late", 2, _LONG, (0.05, 0.2)
    DYNAMODB_SLOW = "dynamodb slow", 1, _LONG, (0.5,)
    # some keys or statements of a batch are throttled
    DYNAMODB_PARTIAL = "dynamodb answers in part", 2, _LONG, (0.3, 0.8), "KINESIS_LOST_ANSWER CLIENT_DEAF"
    # the table is deleted; later it is there again as it was, and an operator repairs it
    DYNAMODB_RESTORED = "ledger restored from a backup", 1, (240.0, 2400.0), _ALWAYS, f"{_DOUBTS} KINESIS_LOST_ANSWER TD_REJECTS_TABLE CLIENT_DEAF"
    S3_ERROR = "s3 error", 2, _LONG, (0.2, 1.0), "TD_REJECTS_TABLE TD_BROKEN_DATABASE"
    S3_LOST_ANSWER = "s3 answer lost", 2, _LONG, (0.2, 0.5), "TD_REJECTS_TABLE TD_BROKEN_DATABASE"
    S3_LATE = "s3 put lands late", 2, _LONG, (0.2, 0.5), "TD_BROKEN_DATABASE"
    S3_OTHER_OBJECT = "s3 returns another object", 2, _HOURS, (0.3, 1.0), "TD_BROKEN_DATABASE TD_REJECTS_TABLE S3_DELETE_REFUSED"
    S3_TRUNCATED = "s3 returns half an object", 2, _LONG, (0.3, 1.0), "TD_BROKEN_DATABASE"
    # status 200 without S3's headers; nothing was done
    S3_FOREIGN_PAGE = "s3 is a proxy's page", 2, _LONG, (0.2, 0.6), "TD_REJECTS_TABLE TD_BROKEN_DATABASE"
    # for up to four days
    S3_DELETE_REFUSED = "s3 refuses deletes", 2, (600.0, 100 * HOUR), (0.5, 1.0), "TD_BROKEN_DATABASE"
    S3_GONE = "s3 objects deleted", 1, _HOURS, (0.2, 1.0), "TD_BROKEN_DATABASE TD_REJECTS_TABLE BORDERS KINESIS_LOST_ANSWER"  # by mistake; their old versions are brought back later, or one is not
    # likewise
    S3_DAMAGED = "s3 objects damaged", 1, _HOURS, (0.2, 1.0), "TD_BROKEN_DATABASE BORDERS KINESIS_LOST_ANSWER"
    # one action of one function
    ACCESS_DENIED = "access denied", 4, _LONG, (0.3, 1.0, 1.0), "TD_REJECTS_TABLE KINESIS_LOST_ANSWER REPLAY"
    # and retries its batch under the same id
    CLIENT_DEAF = "client does not hear the answer", 2, _LONG, (0.3, 0.8), "KINESIS_LOST_ANSWER KILL"
    KILL = "kill", 2, (600.0, 3 * HOUR), (0.002, 0.01, 0.04)
    # the event source gives up, but the invocation runs on
    ABANDON = "abandoned, still running", 2, _LONG, (0.3, 0.8), "TD_SLOW"
    OVERRUN = "runs on past its time-out", 2, _LONG, (0.3, 0.8), "PAUSE TD_LOST_ANSWER"
    PAUSE = "pause", 2, _LONG, (0.002, 0.02), "ABANDON"
    COLD = "sandboxes vanish", 1, _HOURS, (0.2, 1.0)
    SKEW = "clock jumps", 1, _SHIFT, (0.01, 0.2)  # a sandbox's own clock, by up to twenty seconds
    BORDERS = "batches cut differently", 1, _SHIFT, _ALWAYS, "TD_5XX"
    PASSED_OVER = "event source passes over records", 2, _LONG, (0.3, 0.8), "TD_5XX BORDERS"  # and delivers them later
    # several concurrent invocations for one shard, by partition key
    LANES = "event source runs in parallel", 2, _LONG, (0.5, 1.0), "TD_5XX TD_LOST_ANSWER"
    # some records are not delivered until somebody removes the filter
    FILTERED = "event source filters", 2, _LONG, _ALWAYS, "TD_5XX"
    # Operators and clients, and what holds throughout a schedule
    REPLAY = "replay", 12, None, (), "PAUSE"
    SEND = "send by hand", 8, None, (), "TD_BROKEN_DATABASE TD_REJECTS_TABLE"
    EDIT = "edit of dead rows", 6, None, (), "TD_REJECTS_TABLE SEND"
    DROP = "drop by hand", 4, None, (), "TD_REJECTS_TABLE TD_BROKEN_DATABASE TD_LOST_ANSWER"
    FORCE = "forced replay", 5, None, (), "TD_5XX REPLAY"
    REMAP = "remap", 6, None, (), "REPLAY TD_5XX"
    # perhaps of every other sandbox: two releases on one ledger
    LIMITS = "chunk limits changed", 5, None, (), "TD_LOST_ANSWER BORDERS"
    RESHARD = "reshard", 4, None, (), "KINESIS_LOST_ANSWER"
    RECREATE = "stream created again", 2  # once everything in it is settled
    RETENTION = "retention changed", 3, None, (), "WEEKS RESHARD"  # of the stream, to a day or a week
    # requests of one event each, from many accounts, and all of them once more: thousands of records in a batch
    CROWD = "crowd", 2
    STANDSTILL = "standstill", 2, None, (), "TD_LOST_ANSWER"  # nothing but the ingest runs while time passes
    PLAN = "tracking plan changed", 4  # to observe, quarantine or off
    # or its key revoked, for a while; its rows are dead
    DISABLE = "account disabled", 4, None, (), "REPLAY TD_BROKEN_DATABASE"
    GARBAGE = "undecodable record", 10
    TD_TABLE_MISSING = "td table missing"  # nothing exists at first; the worker creates it
    TIMEOUT = "time-out"  # observed, whatever caused it
    UNASKABLE = "td key may not query", 0, None, (), _DOUBTS
    # traffic and trouble of weeks, in which indexes are swept, shards forgotten and claims expire
    WEEKS = "weeks", 0, None, (), "KINESIS_LOST_ANSWER RESHARD QUEUE_OFF"
    # fmt: on


DATABASE_KINDS = tuple(kind for kind in Kind if kind.name.endswith("_DATABASE"))
"""Kinds that strike one database."""

LASTING = (Kind.QUEUE_OFF, Kind.S3_DELETE_REFUSED)
"""Kinds that go on for days when everything else has healed."""

APART = (Kind.DYNAMODB_RESTORED,)
"""Kinds that are drawn beside the others, from a random source of their own."""

DRAWN: tuple[Kind, ...] = tuple(kind for kind in Kind if kind not in {Kind.TIMEOUT, *APART})
"""The kinds that are drawn together. A time-out cannot be drawn: other trouble causes it."""


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
    """Decides at each opportunity whether trouble occurs."""

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
