"""The pipeline as a state machine: whatever happens in whatever order, the promises hold in the end."""

import os
from typing import override

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from chaos.access import ACTIONS
from chaos.functions import Functions
from chaos.pipeline import Pipeline
from chaos.schedule import Act, Schedule, Setup
from chaos.traffic import ACCOUNT_KEYS, TABLES, Sent
from chaos.trouble import DATABASE_KINDS, Kind, Window
from chaos.verdict import judge
from chaos.world import World

ACCOUNTS = ("acct_0", "acct_1", "acct_2")
DATABASES = ("db_a", "db_b", "db_a")
_DURATIONS = st.sampled_from([2.0, 30.0, 200.0, 1200.0])
_EVERYWHERE = [
    kind
    for kind in Kind
    if kind
    not in {
        *(
            Kind.TIMEOUT,
            Kind.REPLAY,
            Kind.SEND,
            Kind.EDIT,
            Kind.DROP,
            Kind.FORCE,
            Kind.REMAP,
            Kind.LIMITS,
            Kind.RESHARD,
            Kind.RECREATE,
            Kind.STANDSTILL,
        ),
        *(Kind.PLAN, Kind.DISABLE, Kind.GARBAGE, Kind.REWIND, Kind.KINESIS_LONG_OUTAGE),
        Kind.KINESIS_UNREADABLE,
        *(Kind.TD_TABLE_MISSING, Kind.UNASKABLE, Kind.TD_LONG_OUTAGE, Kind.REDIS_LONG_OUTAGE),
        *DATABASE_KINDS,
        *(Kind.TD_REJECTS_TABLE, Kind.REDIS_HALF, Kind.ACCESS_DENIED),
    }
]
_TARGETED = st.one_of(
    st.tuples(
        st.sampled_from(DATABASE_KINDS),
        st.sampled_from(DATABASES),
    ),
    st.tuples(st.just(Kind.TD_REJECTS_TABLE), st.sampled_from(TABLES)),
    st.tuples(st.just(Kind.ACCESS_DENIED), st.sampled_from(ACTIONS)),
    st.tuples(st.just(Kind.REDIS_HALF), st.sampled_from([ACCOUNT_KEYS.of(name) for name in ACCOUNTS])),
    st.tuples(st.sampled_from(_EVERYWHERE), st.just("")),
)


class PipelineMachine(RuleBasedStateMachine):
    """Clients, time, trouble and operators in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 0

    @initialize(
        shards=st.integers(1, 3),
        tables_exist=st.booleans(),
        batch_size=st.sampled_from([2, 10, 1000]),
        seed=st.integers(0, 1 << 16),
    )
    def begin(self, *, shards: int, tables_exist: bool, batch_size: int, seed: int) -> None:
        """Set the pipeline up."""
        setup = Setup(
            shards=shards,
            databases=tuple(zip(ACCOUNTS, DATABASES, strict=True)),
            retention_hours=168,
            horizon=0,
            tables_exist=tables_exist,
            batch_size=batch_size,
        )
        self.world = World(Schedule(seed, setup, ()))
        self.pipeline = Pipeline(self.world, Functions(self.world))
        self.pipeline.begin()

    @rule(
        account=st.sampled_from(ACCOUNTS),
        tables=st.lists(st.sampled_from(TABLES), min_size=1, max_size=5),
        dialect=st.sampled_from(["events", "batch", "mobile", "pixel", "stream"]),
        visitor=st.sampled_from("abc"),
    )
    def send(self, account: str, tables: list[str], dialect: str, visitor: str) -> None:
        """A client sends a request."""
        if dialect == "pixel":
            tables = tables[:1]
        if dialect == "mobile":
            tables = tables[:1] * len(tables)
        events = tuple((self.number + index, table) for index, table in enumerate(tables))
        self.number += len(events)
        self.pipeline.send(Sent(self.world.simulation.now, account, visitor, dialect, events))

    @rule(seconds=st.sampled_from([0.05, 1.0, 15.0, 150.0, 2000.0, 5000.0]))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        simulation = self.world.simulation
        simulation.run(simulation.now + seconds)

    @rule(trouble=_TARGETED, seconds=_DURATIONS, chance=st.sampled_from([0.1, 0.5, 1.0]))
    def trouble(self, trouble: tuple[Kind, str], seconds: float, chance: float) -> None:
        """Something goes wrong for a while."""
        kind, target = trouble
        if kind is Kind.KILL:
            chance *= 0.05  # if every effect killed its process, nothing would ever happen
        now = self.world.simulation.now
        self.world.open(Window(kind, now, now + seconds, chance, target))

    @rule(
        act=st.one_of(
            st.tuples(
                st.just(Kind.REPLAY), st.tuples(st.floats(0, 0.99), st.floats(0, 0.99), st.integers(1, 9))
            ),
            st.just((Kind.SEND, ((),))),
            st.just((Kind.SEND, (("dead",),))),
            st.tuples(st.just(Kind.EDIT), st.tuples(st.floats(0, 0.99))),
            st.tuples(st.just(Kind.DROP), st.tuples(st.floats(0, 0.99))),
            st.just((Kind.GARBAGE, (b"\xff",))),
            st.tuples(st.just(Kind.REWIND), st.tuples(st.floats(0, 0.99), st.floats(0, 0.99))),
            st.tuples(st.just(Kind.DISABLE), st.tuples(st.sampled_from(ACCOUNTS), st.booleans())),
            st.tuples(st.just(Kind.REMAP), st.tuples(st.sampled_from(ACCOUNTS), st.sampled_from(DATABASES))),
            st.tuples(
                st.just(Kind.LIMITS),
                st.tuples(st.sampled_from([1, 3]), st.sampled_from([200, 5000]), st.booleans()),
            ),
            st.tuples(
                st.just(Kind.RESHARD), st.tuples(st.sampled_from(["split", "merge"]), st.floats(0, 0.99))
            ),
            st.tuples(st.just(Kind.STANDSTILL), st.tuples(st.sampled_from([60.0, 4000.0]))),
        )
    )
    def operate(self, act: tuple[Kind, tuple[object, ...]]) -> None:
        """An operator does something, or nothing runs for a while."""
        self.pipeline.act(Act(self.world.simulation.now, *act))

    @rule()
    def audit(self) -> None:
        """The balance adds up at any moment."""
        self.pipeline.audit.look()
        assert self.pipeline.audit.faults == []

    @override
    def teardown(self) -> None:
        """After all faults have ended, every promise has been kept."""
        if not hasattr(self, "pipeline"):
            return
        self.pipeline.finish()
        verdict = judge(self.pipeline)
        self.world.close()
        assert not verdict.violations, verdict


PipelineMachine.TestCase.settings = settings(
    max_examples=int(os.environ.get("CHAOS_EXAMPLES", "12")),
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestPipeline = PipelineMachine.TestCase
