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
from chaos.trouble import APART, DATABASE_KINDS, DRAWN, HOUR, Kind, Window
from shared.tracking_plan import MODES, Mode

START = 1_780_000_000.0
"""When every schedule begins, UNIX seconds."""

_DAY = 24 * HOUR
_APART_SHARE = 0.15  # of the schedules


@dataclass(frozen=True, slots=True)
class Act:
    """An operator's action: when (UNIX seconds), what, and the arguments for `Pipeline.act`."""

    at: float
    kind: Kind
    arguments: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Setup:
    """What is constant for a whole schedule."""

    shards: int  # the number of shards at the start
    databases: tuple[tuple[str, str], ...]  # each account with its database at the start
    retention_hours: int  # the stream's retention
    horizon: float  # seconds until everything recovers
    duplicate_status: int = 200  # the status with which Treasure Data answers a repeated unique_id
    job_seconds: float = 0.0  # the duration of Treasure Data's queries
    tables_exist: bool = True  # whether databases and tables exist from the start
    may_query: bool = True  # whether the API key may query
    chunk_max_rows: int = 50_000  # the maximum number of rows in a chunk at the start
    children_wait: bool = True  # whether the event source drains a shard before its children
    batch_size: int = 100  # the maximum number of records in one invocation
    worker_seconds: float = 120.0  # the worker's time-out
    index_lag: float = 0.0  # seconds by which the ledger's index lags behind its table
    # accounts with a tracking plan, each with its mode at the start
    plans: tuple[tuple[str, Mode], ...] = ()
    archive_days: int = 2  # days for which rows are kept after their delivery
    watch_every: float = 0.0  # seconds between two watermarks; 0 for a drawn number
    is_long: bool = False  # it lasts for weeks, with hours between two sweeps
    # the maximum seconds for which the event source waits for a batch to fill; None for a drawn number
    window: int | None = None


@dataclass(frozen=True, slots=True)
class Schedule:
    """A whole schedule."""

    seed: int  # the seed that it was drawn from; it also determines chances and latencies during the run
    setup: Setup  # what is constant
    sent: tuple[Sent, ...]  # the requests
    windows: tuple[Window, ...] = ()  # when trouble may strike
    acts: tuple[Act, ...] = field(default=())  # the operators' actions

    @property
    def events(self) -> int:
        """Number of events."""
        return sum(len(sent.events) for sent in self.sent)

    @property
    def end(self) -> float:
        """When everything recovers, UNIX seconds."""
        return START + self.setup.horizon


_FOR_DAYS: dict[Kind, float] = {
    **dict.fromkeys((Kind.TD_BROKEN_DATABASE, Kind.TD_FORBIDDEN_DATABASE, Kind.TD_REJECTS_TABLE), 9 * _DAY),
    **dict.fromkeys((Kind.TD_REFUSED, Kind.TD_OUTAGE, Kind.REDIS_DOWN, Kind.REDIS_HALF), 9 * _DAY),
    **dict.fromkeys((Kind.KINESIS_LISTING, Kind.S3_GONE, Kind.S3_DAMAGED), 9 * _DAY),
    **dict.fromkeys((Kind.KINESIS_DOWN, Kind.KINESIS_READ), 16 * HOUR),
    **dict.fromkeys((Kind.S3_DELETE_REFUSED, Kind.KINESIS_AUTO), 40 * _DAY),
    Kind.QUEUE_OFF: 12 * _DAY,  # the queue keeps messages for 14
}
"""Kinds that last for up to so long in schedules of weeks. Others would hold the stream for longer than it keeps records."""


def with_companions(kind: Kind) -> tuple[Kind, ...]:
    """Return a kind with the other kinds that it needs to show an effect."""
    return kind, *(Kind[name] for name in kind.companions)


def draw(seed: int, events: int, kinds: tuple[Kind, ...] | None = None) -> Schedule:
    """Return the schedule of a seed, with so many events, and what goes wrong.

    None draws the kinds too: one with its companions, or a mixture of up to thirty; beside it, those of APART.
    """
    chance, apart = random.Random(f"{seed}/schedule"), random.Random(f"{seed}/apart")
    if kinds is None:
        # even seeds take the kinds in turn, one at a time; odd seeds draw a mixture
        focus = DRAWN[seed // 2 % len(DRAWN)]
        count = chance.choice((2, 4, 8, 16, 30))
        mixture = chance.sample(DRAWN, count)
        kinds = with_companions(focus) if seed % 2 == 0 else (focus, *mixture)
        kinds += tuple(kind for kind in APART if apart.random() < _APART_SHARE)
    chosen = dict.fromkeys(kinds)
    setup = _setup(seed, chance, chosen)
    accounts = [account for account, _ in setup.databases]
    times, is_crowded = (START + 5, START + setup.horizon * 0.9), Kind.CROWD in chosen
    sent = generate(chance, events, accounts, times, _weights(chosen), is_crowded=is_crowded)
    planned = dict(setup.plans)
    sent = [strayed(one, STRAYS) if one.account in planned else one for one in sent]
    anchors = [one.at for one in sent] or [START]
    windows: list[Window] = []
    acts: list[Act] = []
    density = chance.choice((1, 1, 2, 4))
    for kind in chosen:
        source = apart if kind in APART else chance
        is_single = kind in {Kind.CROWD, *APART} or (setup.is_long and kind in _FOR_DAYS)
        for _ in range(1 if is_single else density):
            if kind.seconds:
                windows += _windows(source, kind, kind.seconds, setup, anchors)
            elif kind.most:
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
    if chance.random() < 0.5 and Kind.PLAN not in kinds:
        return ()
    return ((chance.choice(accounts), chance.choice(("quarantine", "quarantine", "observe"))),)


def _windows(
    chance: random.Random, kind: Kind, seconds: tuple[float, float], setup: Setup, anchors: list[float]
) -> list[Window]:
    (shortest, longest), windows = seconds, []
    for _ in range(chance.randint(1, kind.most)):
        if setup.is_long:
            longest = _FOR_DAYS.get(kind, longest)
        length = shortest * (longest / shortest) ** chance.random()
        # trouble without traffic shows nothing, so it begins about when something is sent
        begin = max(START, chance.choice(anchors) - min(HOUR, length * chance.random() * 0.5))
        strength = chance.choice(kind.chances)
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
    times = [START + setup.horizon * chance.random() for _ in range(chance.randint(1, kind.most))]
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
    }
    return [Act(at, kind, arguments[kind]()) for at in times]
