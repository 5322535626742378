"""Explores how the steps of a few invocations can interleave, with limited preemptions and faults.

A step is a call of a service. The invocations are greenlets. Before a step, another invocation may run instead (a preemption), and
a fault may strike the step itself. `Exploration` goes through all decisions depth first. If two runs reach the same state, their
continuations are the same, so the second run stops there and counts the first run's continuations.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from hashlib import blake2b
from typing import Any, Protocol

from greenlet import getcurrent, greenlet

__all__ = ["Choice", "Clock", "Cut", "Decisions", "Exploration", "FaultKind", "Scheduler"]


class FaultKind(Enum):
    """What happens to a step."""

    KILLED_BEFORE = "killed before"
    KILLED_AFTER = "killed after"
    FAILS = "fails"
    UNHEARD = "takes effect, no answer"
    LATE = "fails, and takes effect when all have ended"
    HOUR = "an hour passes"
    THREE_HOURS = "three hours pass"


_PASSING_TIME = {FaultKind.HOUR: 3000.0, FaultKind.THREE_HOURS: 10_800.0}
_OF_WRITES = tuple(FaultKind)
_OF_SENDS = tuple(kind for kind in FaultKind if kind not in _PASSING_TIME)
_OF_READS = (FaultKind.KILLED_BEFORE, FaultKind.FAILS, *_PASSING_TIME)  # the others are the same


class Cut(BaseException):
    """The run ends here, because its continuation is known."""


class _Killed(BaseException):
    """The invocation was killed."""


class Decisions(Protocol):
    """Decides what happens before and at each step."""

    def preempts(self, step: int, state: Callable[[], bytes]) -> bool:
        """Return whether another invocation runs instead.

        Args:
            step: the step's number in the run.
            state: returns a digest of everything that determines the continuation.

        Raises:
            Cut: the continuation is known.
        """

    def fault(self, step: int, kinds: Sequence[FaultKind], state: Callable[[], bytes]) -> FaultKind | None:
        """Return the fault that strikes the step, one of `kinds`, if any.

        Raises:
            Cut: the continuation is known.
        """


@dataclass(frozen=True, slots=True)
class Choice:
    """One interleaving: the steps before which another invocation runs, and at most one fault."""

    preemptions: tuple[int, ...] = ()
    fault_at: tuple[int, FaultKind] | None = None

    def preempts(self, step: int, _state: Callable[[], bytes]) -> bool:
        """See `Decisions`."""
        return step in self.preemptions

    def fault(self, step: int, kinds: Sequence[FaultKind], _state: Callable[[], bytes]) -> FaultKind | None:
        """See `Decisions`."""
        if self.fault_at is None:
            return None
        at, kind = self.fault_at
        return kind if at == step and kind in kinds else None


@dataclass
class Clock:
    """The time of a run, in UNIX seconds."""

    time: float

    def now(self) -> float:
        """Return the time."""
        return self.time

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.time += seconds


class Scheduler:
    """Runs invocations step by step.

    Args:
        decisions: decides what happens before and at each step.
        clock: the run's clock.
        world: returns a digest of all services.
        check: called after each step.

    Attributes:
        steps: the number of steps taken so far.
        free: while True, calls are not steps: no preemptions and no faults.
        is_cut: whether the run was cut.
    """

    def __init__(
        self, decisions: Decisions, clock: Clock, world: Callable[[], bytes], check: Callable[[], None]
    ) -> None:
        self.decisions = decisions
        self.steps = 0
        self.free = False
        self.is_cut = False
        self._clock = clock
        self._world = world
        self._check = check
        self._histories: dict[greenlet, bytes] = {}
        self._times: dict[greenlet, float] = {}
        self._suspended: list[greenlet] = []
        self._sending: set[greenlet] = set()
        self._late: list[Callable[[], Any]] = []
        self._missed = b""  # the history of the invocation whose call takes effect late

    def run(self, jobs: Iterable[Callable[[], Any]]) -> None:
        """Run jobs until all have ended, or the run is cut."""
        self._suspended = [greenlet(self._job(job)) for job in jobs]
        self._histories = {one: bytes([number]) for number, one in enumerate(self._suspended)}
        while self._suspended and not self.is_cut:
            self._suspended.pop(0).switch()
        for action in self._late if not self.is_cut else ():
            with suppress(Exception):
                action()
            self._check()
        self._suspended.clear()
        self._histories.clear()

    def _job(self, job: Callable[[], Any]) -> Callable[[], None]:
        def run() -> None:
            try:
                job()
            except _Killed:
                return
            except Cut:
                self.is_cut = True

        return run

    def note(self, seen: object) -> None:
        """Add to the running invocation's history something that it learned and may act on."""
        me = getcurrent()
        if me in self._histories:
            self._histories[me] = _digest(self._histories[me], repr(seen).encode())

    def _note_time(self) -> None:
        me = getcurrent()
        if self._times.get(me) != self._clock.time:
            self._times[me] = self._clock.time
            self.note(self._clock.time)

    def step(  # noqa: C901 -- a list of what may happen
        self, action: Callable[[], Any], error: Exception, *, is_send: bool = False, is_read: bool = False
    ) -> Any:
        """Take one step. No time passes before a send, because the invocation has just checked the clock.

        Raises:
            Exception: what the action raises, or `error`.
        """
        if self.free:
            return action()
        if self.is_cut:
            raise Cut
        number = self.steps
        self.steps += 1
        self._note_time()
        if self._suspended and self.decisions.preempts(number, lambda: self._state(b"p", is_send=is_send)):
            self._give_way(is_send=is_send)
        kinds = _OF_SENDS if is_send else _OF_READS if is_read else _OF_WRITES
        kind = self.decisions.fault(number, kinds, lambda: self._state(b"f", is_send=is_send))
        if kind is FaultKind.KILLED_BEFORE:
            raise _Killed
        if kind is FaultKind.LATE:
            self._late.append(action)
            self._missed = self._histories[getcurrent()]
        if kind in {FaultKind.FAILS, FaultKind.LATE}:
            self.note(kind)
            raise error.with_traceback(None)
        self._let_pass(_PASSING_TIME.get(kind, 0.0) if kind else 0.0)
        try:
            answer = action()
        except Exception as raised:
            self.note(raised)
            raise
        if not is_read:
            self._check()
        if kind is FaultKind.KILLED_AFTER:
            raise _Killed
        if kind is FaultKind.UNHEARD:
            self.note(kind)
            raise error.with_traceback(None)
        self.note(
            {name: answer[name] for name in answer if name != "Body"} if isinstance(answer, dict) else answer
        )
        self._note_time()
        return answer

    def _let_pass(self, seconds: float) -> None:
        if seconds:
            # Lambda has meanwhile ended the invocations that were about to send
            self._suspended = [one for one in self._suspended if one not in self._sending]
            self._clock.time += seconds

    def _give_way(self, *, is_send: bool) -> None:
        me = getcurrent()
        self._suspended.append(me)
        if is_send:
            self._sending.add(me)
        if me.parent is not None:
            me.parent.switch()
        self._sending.discard(me)
        self._note_time()

    def _state(self, point: bytes, *, is_send: bool) -> bytes:
        """Return a digest of the services, each invocation's history, and the order in which the invocations will run."""
        queue = b"".join(self._histories[one] + bytes([one in self._sending]) for one in self._suspended)
        mine = self._histories[getcurrent()] + self._missed
        return _digest(point, bytes([is_send]), self._world(), mine, queue)


def _digest(*parts: bytes) -> bytes:
    return blake2b(b"".join(parts), digest_size=16).digest()


@dataclass(slots=True)
class _Node:
    """A decision on the current path."""

    key: bytes
    options: int
    option: int = 0
    interleavings: int = 0


@dataclass
class Exploration:
    """Goes through all decisions depth first, as the `Decisions` of one run after another.

    Args:
        preemptions: the maximum in one run; None for no limit.
        faults: the maximum in one run, 0 or 1.

    Attributes:
        interleavings: their total number, once all are covered.
        runs: the number of runs so far.
    """

    preemptions: int | None
    faults: int = 1
    interleavings: int = 0
    runs: int = 0
    _path: list[_Node] = field(default_factory=list)
    _known: dict[bytes, int] = field(default_factory=dict)
    _depth: int = 0
    _below: int = 1
    _preempted: list[int] = field(default_factory=list)
    _fault: tuple[int, FaultKind] | None = None

    def begin(self) -> None:
        """Begin the next run."""
        self.runs += 1
        self._depth, self._below = 0, 1
        self._preempted, self._fault = [], None

    def end(self) -> bool:
        """End the run. Return whether any runs are left."""
        found = self._below
        while self._path:
            node = self._path[-1]
            node.interleavings += found
            node.option += 1
            if node.option < node.options:
                return True
            found = self._known[node.key] = node.interleavings
            self._path.pop()
            if not self._path:
                self.interleavings = found
        return False

    @property
    def counted(self) -> int:
        """The number of interleavings covered so far, between two runs."""
        return self.interleavings or sum(node.interleavings for node in self._path)

    @property
    def choice(self) -> Choice:
        """The decisions of the current run, which reproduce it."""
        return Choice(tuple(self._preempted), self._fault)

    def preempts(self, step: int, state: Callable[[], bytes]) -> bool:
        """See `Decisions`."""
        options = 2 if self.preemptions is None or len(self._preempted) < self.preemptions else 1
        if not self._decide(state, options):
            return False
        self._preempted.append(step)
        return True

    def fault(self, step: int, kinds: Sequence[FaultKind], state: Callable[[], bytes]) -> FaultKind | None:
        """See `Decisions`."""
        options = 1 if self._fault or not self.faults else 1 + len(kinds)
        option = self._decide(state, options)
        if not option:
            return None
        self._fault = step, kinds[option - 1]
        return kinds[option - 1]

    def _decide(self, state: Callable[[], bytes], options: int) -> int:
        if self._depth < len(self._path):
            node = self._path[self._depth]
        else:
            left = -1 if self.preemptions is None else self.preemptions - len(self._preempted)
            node = _Node(f"{left} {self._fault is None} ".encode() + state(), options)
            if node.key in self._known:
                self._below = self._known[node.key]
                raise Cut
            self._path.append(node)
        self._depth += 1
        return node.option
