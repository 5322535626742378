"""Draws schedules: all requests, operator actions and faults of a run, decided by a seed before anything runs.

A schedule is plain data, so it can be printed, and shrunk when it fails.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from chaos.access import ACTIONS
from chaos.plans import STRAYS
from chaos.traffic import ACCOUNT_KEYS, TABLES, Sent, generate, strayed
from chaos.trouble import DATABASE_KINDS, Kind, Window
from shared.tracking_plan import MODES, Mode

START = 1_780_000_000.0
"""When every schedule begins, UNIX seconds."""

HOUR = 3600.0
_DAY = 24 * HOUR


@dataclass(frozen=True, slots=True)
class Act:
    """An operator's action: when (UNIX seconds), what, and the arguments for `Pipeline.act`."""

    at: float
    kind: Kind
    arguments: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Setup:
    """What is constant for a whole schedule.

    Attributes:
        shards: the number of shards at the start.
        databases: each account with its database at the start.
        retention_hours: the stream's retention.
        horizon: seconds until everything recovers.
        duplicate_status: the status with which Treasure Data answers a repeated unique_id.
        job_seconds: the duration of Treasure Data's queries.
        tables_exist: whether databases and tables exist from the start.
        may_query: whether the API key may query.
        chunk_max_rows: the maximum number of rows in a chunk at the start.
        children_wait: whether the event source drains a shard before its children.
        batch_size: the maximum number of records in one invocation.
        worker_seconds: the worker's time-out.
        index_lag: seconds by which the ledger's index lags behind its table.
        plans: accounts with a tracking plan, each with its mode at the start.
        archive_days: days for which rows are kept after their delivery.
        watch_every: seconds between two watermarks; 0 for a drawn number.
        is_long: it lasts for weeks, with hours between two sweeps.
        window: the maximum seconds for which the event source waits for a batch to fill; None for a drawn number.
    """

    shards: int
    databases: tuple[tuple[str, str], ...]
    retention_hours: int
    horizon: float
    duplicate_status: int = 200
    job_seconds: float = 0.0
    tables_exist: bool = True
    may_query: bool = True
    chunk_max_rows: int = 50_000
    children_wait: bool = True
    batch_size: int = 100
    worker_seconds: float = 120.0
    index_lag: float = 0.0
    plans: tuple[tuple[str, Mode], ...] = ()
    archive_days: int = 2
    watch_every: float = 0.0
    is_long: bool = False
    window: int | None = None


@dataclass(frozen=True, slots=True)
class Schedule:
    """A whole schedule.

    Attributes:
        seed: the seed that it was drawn from; it also determines chances and latencies during the run.
        setup: what is constant.
        sent: the requests.
        windows: when trouble may strike.
        acts: the operators' actions.
    """

    seed: int
    setup: Setup
    sent: tuple[Sent, ...]
    windows: tuple[Window, ...] = ()
    acts: tuple[Act, ...] = field(default=())

    @property
    def events(self) -> int:
        """Number of events."""
        return sum(len(sent.events) for sent in self.sent)

    @property
    def quarantined(self) -> frozenset[str]:
        """The accounts whose tracking plan is in quarantine mode at some time."""
        modes = [*self.setup.plans, *(act.arguments for act in self.acts if act.kind is Kind.PLAN)]
        return frozenset(account for account, mode in modes if mode == "quarantine")

    @property
    def end(self) -> float:
        """When everything recovers, UNIX seconds."""
        return START + self.setup.horizon


# For a schedule with this kind of trouble: the maximum number of windows, their range of lengths (seconds), and the
# possible chances of a strike, and the other kinds that it needs to show an effect.
_FOR_DAYS: dict[Kind, float] = {
    **dict.fromkeys((Kind.TD_BROKEN_DATABASE, Kind.TD_FORBIDDEN_DATABASE, Kind.TD_REJECTS_TABLE), 9 * _DAY),
    **dict.fromkeys((Kind.TD_REFUSED, Kind.TD_OUTAGE, Kind.REDIS_DOWN, Kind.REDIS_HALF), 9 * _DAY),
    **dict.fromkeys((Kind.KINESIS_LISTING, Kind.S3_GONE, Kind.S3_DAMAGED), 9 * _DAY),
    **dict.fromkeys((Kind.KINESIS_DOWN, Kind.KINESIS_READ), 16 * HOUR),
    **dict.fromkeys((Kind.S3_DELETE_REFUSED, Kind.S3_STALE_LISTING, Kind.KINESIS_AUTO), 40 * _DAY),
    Kind.QUEUE_OFF: 12 * _DAY,  # the queue keeps messages for 14
}
"""Kinds that last for up to so long in schedules of weeks. Others would hold the stream for longer than it keeps records."""
_BRIEF = (5.0, 120.0)
_HOURS = (HOUR, 4 * HOUR)
_LONG = (60.0, 1800.0)
_WINDOWS: dict[Kind, tuple[int, tuple[float, float], tuple[float, ...], str]] = {
    Kind.TD_5XX: (3, _LONG, (0.2, 0.6, 1.0), ""),
    Kind.TD_429: (2, _LONG, (0.2, 0.6, 1.0), ""),
    Kind.TD_SLOW: (2, _LONG, (0.3, 1.0), ""),
    Kind.TD_HANG: (2, _LONG, (0.2, 0.6), ""),
    Kind.TD_RESET_BEFORE: (2, _LONG, (0.3, 1.0), ""),
    Kind.TD_RESET_AFTER: (2, _LONG, (0.3, 1.0), ""),
    Kind.TD_LOST_ANSWER: (3, _LONG, (0.2, 0.5, 1.0), ""),
    Kind.TD_LATE: (2, _LONG, (0.2, 0.5), ""),
    Kind.TD_WRONG_MD5: (2, _BRIEF, (0.2, 1.0), ""),
    Kind.TD_NOT_JSON: (2, _LONG, (0.2, 0.6), ""),
    Kind.TD_REFUSED: (2, _LONG, (0.3, 1.0), ""),
    Kind.TD_UNREACHABLE: (2, _LONG, (0.3, 1.0), ""),
    Kind.TD_OUTAGE: (1, (600.0, 3 * HOUR), (1.0,), "TD_LOST_ANSWER"),
    Kind.TD_UNAUTHORIZED: (1, _LONG, (1.0,), ""),
    Kind.TD_BROKEN_DATABASE: (1, (60.0, 2 * HOUR), (0.5, 1.0), ""),
    Kind.TD_FORBIDDEN_DATABASE: (1, _LONG, (1.0,), ""),
    Kind.TD_HANGING_DATABASE: (1, (60.0, 2 * HOUR), (0.5, 1.0), ""),
    Kind.TD_SLOW_DATABASE: (1, (60.0, 2 * HOUR), (0.5, 1.0), ""),
    Kind.TD_REJECTS_TABLE: (1, _LONG, (1.0,), ""),
    Kind.TD_TOO_LARGE: (1, _LONG, (1.0,), ""),
    Kind.TD_JOB_FAILS: (1, _HOURS, (0.5, 1.0), "TD_OUTAGE TD_LOST_ANSWER KILL"),
    Kind.TD_FOREIGN_PAGE: (2, (60.0, 3 * HOUR), (0.2, 0.6, 1.0), "TD_OUTAGE TD_LOST_ANSWER"),
    Kind.TD_EMPTY_JSON: (2, (60.0, 3 * HOUR), (0.2, 0.6, 1.0), "TD_OUTAGE TD_LOST_ANSWER"),
    Kind.TD_TRUNCATED: (2, (60.0, 3 * HOUR), (0.2, 0.6, 1.0), "TD_OUTAGE TD_LOST_ANSWER"),
    Kind.TD_PARTIAL: (2, (60.0, 3 * HOUR), (0.2, 0.6, 1.0), "TD_OUTAGE TD_LOST_ANSWER"),
    Kind.TD_REDIRECT: (2, (60.0, 3 * HOUR), (0.2, 0.6, 1.0), ""),
    Kind.TD_FOREIGN_REFUSAL: (2, (60.0, 3 * HOUR), (0.2, 0.6, 1.0), ""),
    Kind.TD_WRONG_HOST: (2, (60.0, 3 * HOUR), (0.2, 0.6, 1.0), "TD_OUTAGE TD_LOST_ANSWER REMAP"),
    Kind.TD_STALE_JOB: (1, (2 * HOUR, 8 * HOUR), (0.5, 1.0), "TD_OUTAGE TD_LOST_ANSWER TD_5XX"),
    Kind.TD_SCHEMA_LAGS: (1, (2 * HOUR, 8 * HOUR), (1.0,), "TD_OUTAGE TD_LOST_ANSWER"),
    Kind.TD_NO_SCHEMA: (1, (2 * HOUR, 8 * HOUR), (1.0,), "TD_OUTAGE TD_LOST_ANSWER"),
    Kind.TD_BAD_ROWS: (1, _LONG, (1.0,), "TD_LOST_ANSWER"),
    Kind.REDIS_DOWN: (2, _LONG, (0.5, 1.0), ""),
    Kind.REDIS_SLOW: (1, _LONG, (1.0,), ""),
    Kind.REDIS_TIMEOUT: (2, _LONG, (0.5, 1.0), ""),
    Kind.REDIS_EMPTY: (1, _LONG, (1.0,), ""),
    Kind.REDIS_HALF: (1, _LONG, (1.0,), ""),
    Kind.REDIS_REFUSED: (1, _LONG, (0.5, 1.0), ""),
    Kind.REDIS_ERRORS: (1, _LONG, (0.2, 1.0), ""),
    Kind.KINESIS_THROTTLE: (2, _LONG, (0.3, 0.9), ""),
    Kind.KINESIS_PARTIAL: (2, _LONG, (0.5, 1.0), ""),
    Kind.KINESIS_INTERNAL: (2, _LONG, (0.2, 0.6), ""),
    Kind.KINESIS_LOST_ANSWER: (2, _LONG, (0.2, 0.7), ""),
    Kind.KINESIS_TIMEOUT: (2, _LONG, (0.2, 0.7), ""),
    Kind.KINESIS_LATE: (2, _LONG, (0.2, 0.7), ""),
    Kind.KINESIS_DOWN: (1, _LONG, (1.0,), ""),
    Kind.KINESIS_READ: (2, _LONG, (0.2, 0.5, 1.0), "KINESIS_LOST_ANSWER BORDERS"),
    Kind.KINESIS_STAMPS: (2, _HOURS, (0.3, 1.0), "KINESIS_LOST_ANSWER KINESIS_TIMEOUT RESHARD"),
    Kind.KINESIS_AUTO: (1, (HOUR, 6 * HOUR), (1.0,), "KINESIS_LOST_ANSWER KINESIS_TIMEOUT RESHARD"),
    Kind.KINESIS_AHEAD: (2, _HOURS, (0.02, 0.2), "KINESIS_LOST_ANSWER KINESIS_LATE"),
    Kind.KINESIS_LISTING: (2, _HOURS, (0.3, 1.0), "KINESIS_LOST_ANSWER RESHARD"),
    Kind.SQS_DOWN: (1, _LONG, (0.5, 1.0), "KINESIS_THROTTLE"),
    Kind.SQS_LOST_ANSWER: (1, _LONG, (0.3,), "KINESIS_LOST_ANSWER"),
    Kind.SQS_TWICE: (1, (HOUR, 3 * HOUR), (0.3,), "KINESIS_LOST_ANSWER"),
    Kind.SQS_COUNTS: (2, (HOUR, 3 * HOUR), (0.5, 1.0), "KINESIS_TIMEOUT KINESIS_THROTTLE"),
    Kind.QUEUE_OFF: (1, (HOUR, 80 * HOUR), (1.0,), "KINESIS_LOST_ANSWER KINESIS_TIMEOUT"),
    Kind.DYNAMODB_ERROR: (2, _LONG, (0.05, 0.3, 1.0), ""),
    Kind.DYNAMODB_LOST_ANSWER: (2, _LONG, (0.05, 0.3), ""),
    Kind.DYNAMODB_REPEAT: (2, _LONG, (0.1, 0.5), ""),
    Kind.DYNAMODB_LATE: (2, _LONG, (0.05, 0.2), ""),
    Kind.DYNAMODB_SLOW: (1, _LONG, (0.5,), ""),
    Kind.DYNAMODB_PARTIAL: (2, _LONG, (0.3, 0.8), "KINESIS_LOST_ANSWER CLIENT_DEAF"),
    Kind.S3_ERROR: (2, _LONG, (0.2, 1.0), "TD_REJECTS_TABLE TD_BROKEN_DATABASE"),
    Kind.S3_LOST_ANSWER: (2, _LONG, (0.2, 0.5), "TD_REJECTS_TABLE TD_BROKEN_DATABASE"),
    Kind.S3_LATE: (2, _LONG, (0.2, 0.5), "TD_BROKEN_DATABASE"),
    Kind.S3_OTHER_OBJECT: (2, _HOURS, (0.3, 1.0), "TD_BROKEN_DATABASE TD_REJECTS_TABLE S3_DELETE_REFUSED"),
    Kind.S3_TRUNCATED: (2, _LONG, (0.3, 1.0), "TD_BROKEN_DATABASE"),
    Kind.S3_FOREIGN_PAGE: (2, _LONG, (0.2, 0.6), "TD_REJECTS_TABLE TD_BROKEN_DATABASE"),
    Kind.S3_DELETE_REFUSED: (2, (600.0, 100 * HOUR), (0.5, 1.0), "TD_BROKEN_DATABASE"),
    Kind.S3_GONE: (1, _HOURS, (0.2, 1.0), "TD_BROKEN_DATABASE TD_REJECTS_TABLE BORDERS KINESIS_LOST_ANSWER"),
    Kind.S3_DAMAGED: (1, _HOURS, (0.2, 1.0), "TD_BROKEN_DATABASE BORDERS KINESIS_LOST_ANSWER"),
    Kind.S3_STALE_LISTING: (2, _HOURS, (1.0,), "TD_BROKEN_DATABASE S3_DELETE_REFUSED"),
    Kind.S3_POLICY: (3, _LONG, (0.5, 1.0), ""),
    Kind.ACCESS_DENIED: (4, _LONG, (0.3, 1.0, 1.0), "TD_REJECTS_TABLE KINESIS_LOST_ANSWER REPLAY"),
    Kind.CLIENT_DEAF: (2, _LONG, (0.3, 0.8), "KINESIS_LOST_ANSWER KILL"),
    Kind.KILL: (2, (600.0, 3 * HOUR), (0.002, 0.01, 0.04), ""),
    Kind.ABANDON: (2, _LONG, (0.3, 0.8), "TD_SLOW"),
    Kind.OVERRUN: (2, _LONG, (0.3, 0.8), "PAUSE TD_LOST_ANSWER"),
    Kind.PAUSE: (2, _LONG, (0.002, 0.02), "ABANDON"),
    Kind.COLD: (1, _HOURS, (0.2, 1.0), ""),
    Kind.SKEW: (1, (HOUR, 6 * HOUR), (0.01, 0.2), ""),
    Kind.BORDERS: (1, (HOUR, 6 * HOUR), (1.0,), "TD_5XX"),
    Kind.PASSED_OVER: (2, _LONG, (0.3, 0.8), "TD_5XX BORDERS"),
    Kind.LANES: (2, _LONG, (0.5, 1.0), "TD_5XX TD_LOST_ANSWER"),
    Kind.FILTERED: (2, _LONG, (1.0,), "TD_5XX"),
}

_ACTS: dict[Kind, tuple[int, str]] = {  # the maximum number in a schedule, and companions
    Kind.REPLAY: (12, "PAUSE"),
    Kind.SEND: (8, "TD_BROKEN_DATABASE TD_REJECTS_TABLE"),
    Kind.EDIT: (6, "TD_REJECTS_TABLE SEND"),
    Kind.DROP: (4, "TD_REJECTS_TABLE TD_BROKEN_DATABASE TD_LOST_ANSWER"),
    Kind.FORCE: (5, "TD_5XX REPLAY"),
    Kind.REMAP: (6, "REPLAY TD_5XX"),
    Kind.LIMITS: (5, "TD_LOST_ANSWER BORDERS"),
    Kind.RESHARD: (4, "KINESIS_LOST_ANSWER"),
    Kind.RECREATE: (2, ""),
    Kind.RETENTION: (3, "WEEKS RESHARD"),
    Kind.CROWD: (2, ""),
    Kind.STANDSTILL: (2, "TD_LOST_ANSWER"),
    Kind.PLAN: (4, ""),
    Kind.DISABLE: (4, "REPLAY TD_BROKEN_DATABASE"),
    Kind.GARBAGE: (10, ""),
    Kind.REWIND: (6, "TD_5XX BORDERS"),
}
_SETTINGS = {
    Kind.TD_TABLE_MISSING: "",
    Kind.UNASKABLE: "TD_OUTAGE TD_LOST_ANSWER",
    Kind.WEEKS: "KINESIS_LOST_ANSWER RESHARD QUEUE_OFF",
}

DRAWN: tuple[Kind, ...] = (*_WINDOWS, *_ACTS, *_SETTINGS)
"""The kinds that can be drawn. A time-out cannot: other trouble causes it."""


def with_companions(kind: Kind) -> tuple[Kind, ...]:
    """Return a kind with the other kinds that it needs to show an effect."""
    *_, names = _WINDOWS.get(kind) or _ACTS.get(kind) or (_SETTINGS.get(kind, ""),)
    return kind, *(Kind[name] for name in str(names).split())


def draw(seed: int, events: int, kinds: tuple[Kind, ...] | None = None) -> Schedule:
    """Return the schedule of a seed.

    Args:
        seed: any number.
        events: the number of events to send.
        kinds: what goes wrong; None draws that too: one kind with its companions, or a mixture of up to thirty.
    """
    chance = random.Random(f"{seed}/schedule")
    if kinds is None:
        # even seeds take the kinds in turn, one at a time; odd seeds draw a mixture
        focus = DRAWN[seed // 2 % len(DRAWN)]
        count = chance.choice((2, 4, 8, 16, 30))
        mixture = chance.sample(DRAWN, count)
        kinds = with_companions(focus) if seed % 2 == 0 else (focus, *mixture)
    chosen = dict.fromkeys(kinds)
    setup = _setup(seed, chance, chosen)
    accounts = [account for account, _ in setup.databases]
    sent = generate(
        chance,
        events,
        accounts,
        (START + 5, START + setup.horizon * 0.9),
        _weights(chosen),
        is_crowded=Kind.CROWD in chosen,
    )
    planned = dict(setup.plans)
    sent = [strayed(one, STRAYS) if one.account in planned else one for one in sent]
    anchors = [one.at for one in sent] or [START]
    windows: list[Window] = []
    acts: list[Act] = []
    density = chance.choice((1, 1, 2, 4))
    for kind in chosen:
        is_single = kind is Kind.CROWD or (setup.is_long and kind in _FOR_DAYS)
        for _ in range(1 if is_single else density):
            if kind in _WINDOWS:
                windows += _windows(chance, kind, setup, anchors)
            elif kind in _ACTS:
                acts += _acts(chance, kind, setup)
    return Schedule(seed, setup, tuple(sent), tuple(windows), tuple(sorted(acts, key=lambda act: act.at)))


def _weights(kinds: dict[Kind, None]) -> tuple[int, ...]:
    """Return the sizes of events in bytes. Partial failures need several envelopes; size limits need large events."""
    if Kind.KINESIS_PARTIAL in kinds and Kind.WEEKS not in kinds:
        return 0, 200, 40_000
    return (0, 0, 200) if Kind.TD_TOO_LARGE in kinds else (0,)


def _setup(seed: int, chance: random.Random, kinds: dict[Kind, None]) -> Setup:
    count = chance.choice((2, 4, 7))
    databases = [f"db_{letter}" for letter in "abcde"[: max(2, count - 1)]]
    mapped = {f"acct_{index}": chance.choice(databases) for index in range(count)}
    horizon = HOUR * chance.choice((0.5, 1, 2, 4, 8))
    if Kind.TD_OUTAGE in kinds or {Kind.TD_JOB_FAILS, Kind.STANDSTILL, Kind.UNASKABLE} & kinds.keys():
        horizon = max(horizon, 4 * HOUR)
    retention = random.Random(f"{seed}/retention").choice((24, 24, 168))
    setup = Setup(
        shards=chance.choice((1, 2, 4)),
        databases=tuple(mapped.items()),
        retention_hours=retention,
        horizon=horizon,
        duplicate_status=chance.choice((200, 409)),
        job_seconds=chance.choice((0.0, 3.0, 40.0)),
        tables_exist=Kind.TD_TABLE_MISSING not in kinds,
        may_query=Kind.UNASKABLE not in kinds,
        chunk_max_rows=chance.choice((50_000, 50_000, 7)),
        children_wait=Kind.RESHARD not in kinds or chance.random() < 0.5,
        batch_size=chance.choice((3, 20, 100, 1000)),
        worker_seconds=chance.choice((30.0, 120.0, 120.0, 900.0)),
        index_lag=chance.choice((0.0, 0.0, 2.0, 400.0)),
        plans=_plans(seed, tuple(mapped), kinds),
    )
    apart = random.Random(f"{seed}/shape")
    if Kind.WEEKS in kinds:
        days = apart.choice((8, 25, 60))
        setup = replace(setup, is_long=True, horizon=days * _DAY, archive_days=apart.choice((2, 2, 30)))
    if Kind.CROWD in kinds:
        crowd = [
            (f"acct_{index}_{'x' * apart.choice((0, 20))}", f"db_{index}")
            for index in range(apart.choice((9, 300, 900)))
        ]
        setup = replace(
            setup,
            shards=apart.choice((1, 1, 4)),
            databases=(*setup.databases, *crowd),
            batch_size=5000,
            window=apart.choice((60, 300)),
        )
    return setup


def _plans(seed: int, accounts: tuple[str, ...], kinds: dict[Kind, None]) -> tuple[tuple[str, Mode], ...]:
    """Return the accounts with a tracking plan: one in every other schedule, from a random source of its own."""
    chance = random.Random(f"{seed}/plans")
    if chance.random() < 0.5 and not {Kind.PLAN, Kind.S3_POLICY} & kinds.keys():
        return ()
    return ((chance.choice(accounts), chance.choice(("quarantine", "quarantine", "observe"))),)


def _windows(chance: random.Random, kind: Kind, setup: Setup, anchors: list[float]) -> list[Window]:
    most, (shortest, longest), chances, _ = _WINDOWS[kind]
    windows = []
    for _ in range(chance.randint(1, most)):
        if setup.is_long:
            longest = _FOR_DAYS.get(kind, longest)
        length = shortest * (longest / shortest) ** chance.random()
        # trouble without traffic shows nothing, so it begins about when something is sent
        begin = max(START, chance.choice(anchors) - min(HOUR, length * chance.random() * 0.5))
        strength = chance.choice(chances)
        windows += [
            Window(kind, begin, begin + length, strength, target) for target in _targets(chance, kind, setup)
        ]
    return windows


def _targets(chance: random.Random, kind: Kind, setup: Setup) -> list[str]:
    databases = sorted({database for _, database in setup.databases})
    if kind in DATABASE_KINDS:
        return [chance.choice(databases)]
    if kind is Kind.TD_REJECTS_TABLE:
        return [chance.choice(TABLES)]
    if kind is Kind.ACCESS_DENIED:
        return [chance.choice(ACTIONS)]
    if kind is Kind.REDIS_HALF:
        accounts = [account for account, _ in setup.databases]
        return [ACCOUNT_KEYS.of(account) for account in chance.sample(accounts, (len(accounts) + 1) // 2)]
    return [""]


_GARBAGE = (b"\x97\x01", b"{", b"[1]", b"\xff" * 40, b'{"account": 1}')


def _acts(chance: random.Random, kind: Kind, setup: Setup) -> list[Act]:
    def times(most: int) -> list[float]:
        return [START + setup.horizon * chance.random() for _ in range(chance.randint(1, most))]

    databases = sorted({database for _, database in setup.databases})
    accounts = [account for account, _ in setup.databases]
    longest = 14 * HOUR if setup.retention_hours > 24 else HOUR
    arguments: dict[Kind, Callable[[], tuple[Any, ...]]] = {
        Kind.REPLAY: lambda: (chance.random(), chance.random(), chance.randint(1, 40)),
        Kind.SEND: lambda: (chance.choice(((), (), ("dead",), ("waiting",), ("again",))),),
        Kind.EDIT: lambda: (chance.random(),),
        Kind.DROP: lambda: (chance.random(),),
        Kind.FORCE: lambda: (chance.randrange(3), chance.choice((None, None, 0.0, 0.3))),
        Kind.REMAP: lambda: (chance.choice(accounts), chance.choice(databases)),
        Kind.LIMITS: lambda: (
            chance.choice((1, 3, 10, 50_000)),
            chance.choice((200, 3000, 16 << 20)),
            chance.random() < 0.5,
        ),
        Kind.RESHARD: lambda: (chance.choice(("split", "merge")), chance.random()),
        Kind.RECREATE: lambda: (chance.random() < 0.5,),
        Kind.RETENTION: lambda: (chance.choice((24, 168)),),
        Kind.CROWD: tuple,
        # short enough that no records expire, which nothing could prevent
        Kind.STANDSTILL: lambda: (chance.choice((60.0, 700.0, 2 * HOUR, longest)),),
        Kind.PLAN: lambda: (chance.choice(setup.plans)[0], chance.choice(MODES)),
        Kind.DISABLE: lambda: (chance.choice(accounts), chance.choice(("account", "key", ""))),
        Kind.GARBAGE: lambda: (chance.choice(_GARBAGE),),
        Kind.REWIND: lambda: (chance.random(), chance.random()),
    }
    return [Act(at, kind, arguments[kind]()) for at in times(_ACTS[kind][0])]
