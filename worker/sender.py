"""The sender: sends what waits, every minute, and on request.

It finds spans through the ledger's worklist, and has many take their turns in parallel. Rows go to a database only after the database has
answered a probe, or accepted rows of this function instance; one import that fails closes it again for the rest of the run.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import chain, islice
from typing import Any

from shared.clock import Clock
from shared.errors import HeldError, UnavailableError
from shared.telemetry import Telemetry, about
from worker.admission import SPANS_AT_ONCE, Admission
from worker.deadline import Deadline
from worker.executor import Executors
from worker.forget.cut import Forgetting
from worker.health import DatabaseHealth
from worker.inquiry import Inquiries, Run
from worker.ledger import WORKLIST_KEYS, Ledger
from worker.selection import Selection
from worker.span import Place, Span
from worker.states import USUAL_AGAIN_SECONDS, State
from worker.turn import UNSETTLED_SECONDS, Turn, Turns, shuffled

LEFT_SECONDS = 1800.0
"""How long a span that waits for failing databases alone is not read again while they fail. Then an account may have another database."""

_RUN_SECONDS = 60.0  # between two runs
_ASK_SECONDS = 5.0  # for which chunks to ask about are collected
_MOST_NAMED = 100  # databases in a log line
_MOST_LEFT = 200_000
_PAUSE_SECONDS = 0.1  # before spans that wait for a database have another turn


@dataclass(slots=True)
class Report:
    """The numbers of selected rows by what a run did with them; each row is counted once.

    Attributes:
        delivered: sent, or found in Treasure Data.
        kept: still waiting or dead.
        dead: have become dead.
        dropped: given up, as an operator decided.
        copies: are copies of rows that count elsewhere.
        complete: everything selected had its turn.
    """

    delivered: int = 0
    kept: int = 0
    dead: int = 0
    dropped: int = 0
    copies: int = 0
    complete: bool = True


@dataclass(slots=True)
class _Progress:
    """How far a run has come.

    Attributes:
        asking: turns that need answers.
        ask_at: UNIX seconds at which to ask for them at the latest.
    """

    run: Run
    asking: list[Turn] = field(default_factory=list)
    ask_at: float = float("inf")
    report: Report = field(default_factory=Report)


@dataclass(eq=False)
class Sender:
    """Sends what waits."""

    _ledger: Ledger
    _turns: Turns
    _inquiries: Inquiries
    _forgetting: Forgetting
    _health: DatabaseHealth
    _executors: Executors
    _clock: Clock
    _telemetry: Telemetry
    # until when a span waits, and the mask of the databases that it waits for
    _left: dict[Place, tuple[float, int]] = field(default_factory=dict, init=False)
    _bits: dict[str, int] = field(default_factory=dict, init=False)

    def run(self, deadline: Deadline, selection: Selection | None = None) -> Report:
        """Handle every selected chunk, as far as the time allows; by default those that wait."""
        selection, now = selection or Selection(), self._clock.now()
        admission = Admission(self._health, self._executors, deadline, self._bits)
        run = Run(deadline, selection, self._forgetting.persons(), admission)
        progress = _Progress(run)
        places = shuffled(selection.places(self._ledger, now), now)
        waiting = self._pass(progress, map(partial(Turn, run), places))
        while waiting and not deadline.near:
            self._clock.sleep(_PAUSE_SECONDS)
            waiting = self._pass(progress, iter(waiting))
        for turn in (*waiting, *progress.asking):
            _count(turn, progress.report)
        progress.report.complete &= not (waiting or progress.asking or deadline.near)
        if selection == Selection():
            self._report_oldest(deadline)
        self._telemetry.info("sent", **asdict(progress.report), failing=admission.closed()[:_MOST_NAMED])
        return progress.report

    def _report_oldest(self, deadline: Deadline) -> None:
        """Report the age of the oldest waiting row, which raises an alarm. What was put again counts once it waits for unusually long.

        Without time to look at more of a key of the worklist, the next span counts.
        """
        now = self._clock.now()
        keys = (self._ledger.work("waiting", number) for number in range(WORKLIST_KEYS))
        oldest = (next((span for span in work if _counts(span, now) or deadline.near), None) for work in keys)
        age = max((now - span.planned_at / 1000 for span in filter(None, oldest)), default=0.0)
        self._telemetry.gauge("OldestWaitingSeconds", max(0, round(age)))

    def _pass(self, progress: _Progress, turns: Iterator[Turn]) -> list[Turn]:
        """Run turns in parallel; return those that must wait for their database."""
        waiting = defaultdict[str, deque[Turn]](deque)  # by the database that they wait for
        ready, under_way = deque[Turn](), 0

        def end(turn: Turn) -> None:
            progress.report.complete &= turn.complete
            if turn.asks:
                progress.asking.append(turn)
                progress.ask_at = min(progress.ask_at, self._clock.now() + _ASK_SECONDS)
            elif turn.waits_for:
                waiting[turn.waits_for].append(turn)
            else:
                _count(turn, progress.report)

        with self._executors() as executor:
            while True:
                while under_way < SPANS_AT_ONCE and (
                    job := self._next_job(progress, chain(_popped(ready), turns), end, not under_way)
                ):
                    executor.submit(job)
                    under_way += 1
                if not under_way:
                    return [*ready, *chain.from_iterable(waiting.values())]
                done = executor.wait(1.0)
                under_way -= done is not None
                if isinstance(done, Turn):
                    end(done)
                elif done is not None:
                    ready.extend(done)
                if not isinstance(done, Turn) or done.selected or not done.waits_for:
                    ready.extend(_with_room(progress.run.admission, waiting, is_idle=done is None))

    def _next_job(
        self,
        progress: _Progress,
        turns: Iterator[Turn],
        end: Callable[[Turn], None],
        is_idle: bool,  # noqa: FBT001 -- internal
    ) -> Callable[[], Any] | None:
        """Return what to do next: a turn, or to ask for what earlier turns need; None if nothing can begin now."""
        if progress.run.deadline.near:
            return None
        while self._clock.now() < progress.ask_at and (turn := next(turns, None)) is not None:
            is_busy = turn.run.admission.is_busy(turn.waits_for)  # others use the database that it waits for
            if not is_busy and not self._is_left(turn):
                return partial(self._take_turn, turn)
            turn.asks = False  # what there was to ask is answered
            end(turn)
        if progress.asking and (is_idle or self._clock.now() >= progress.ask_at):
            asking, progress.asking, progress.ask_at = progress.asking, [], float("inf")
            progress.run.noted = 0
            return partial(self._find_out, progress.run, asking)
        return None

    def _find_out(self, run: Run, turns: list[Turn]) -> list[Turn]:
        """Find out what turns have noted; return these turns."""
        doubts = [doubt for turn in turns for doubt in turn.doubts.values()]
        wanted = {one: times for turn in turns for one, times in turn.wanted.items()}
        for turn in turns:
            turn.doubts, turn.wanted = {}, {}
        self._inquiries.carry_out(run, doubts, wanted)
        return turns

    def _take_turn(self, turn: Turn) -> Turn:
        with about(span=turn.place.name):
            try:
                self._turns.take(turn)
            except (UnavailableError, HeldError) as error:
                self._telemetry.warning("a span has to wait", error=type(error).__name__, reason=str(error))
                turn.complete = False
            except Exception as error:  # noqa: BLE001 -- one span's surprise must not keep the others from their turns
                self._telemetry.unforeseen("a span cannot be sent", error)
                turn.complete = False
        self._note_left(turn)
        if turn.waits_for and all(turn.span.entry(key) == entry for key, entry in turn.selected.items()):
            turn.selected = {}  # as if it had not begun: a hundred thousand spans may wait for a database, and do not fit into memory
            del turn.span
        return turn

    def _is_left(self, turn: Turn) -> bool:
        """Return whether all chunks of a span wait for databases that are closed or being probed, as far as this instance knows."""
        until, left = self._left.get(turn.place, (0.0, 0))
        if self._clock.now() >= until or turn.run.selection != Selection():
            return False
        awaited = turn.run.admission.awaited(left)
        if awaited is None:
            return False
        turn.waits_for = awaited
        turn.complete &= bool(awaited)
        return True

    def _note_left(self, turn: Turn) -> None:
        """Note a span whose chunks all wait for closed databases, so that an outage does not have each run read every waiting span."""
        self._left.pop(turn.place, None)
        if turn.closed and turn.run.selection == Selection():
            if len(self._left) >= _MOST_LEFT:
                self._left.clear()
            mask = turn.run.admission.mask(turn.closed)
            self._left[turn.place] = self._clock.now() + LEFT_SECONDS, mask


def _popped(turns: deque[Turn]) -> Iterator[Turn]:
    while turns:
        yield turns.popleft()


def _with_room(admission: Admission, waiting: dict[str, deque[Turn]], *, is_idle: bool) -> Iterator[Turn]:
    """Yield turns that waited for databases that others may use now: two of each, so that soon many have their turns at once.

    If nothing has happened for a second, yield two of each in any case: another database of theirs may have room.
    """
    for database, turns in list(waiting.items()):
        if is_idle or not admission.is_busy(database):
            for turn in islice(_popped(turns), 2):
                turn.waits_for = turn.waits_for if not is_idle else ""
                yield turn
        if not turns:
            del waiting[database]


_COUNTED = {State.DELIVERED: "delivered", State.DEAD: "dead", State.DROPPED: "dropped", State.COPY: "copies"}


def _count(turn: Turn, report: Report) -> None:
    """Count the selected rows by their states now, those of a chunk that was split by its halves."""
    for key, before in turn.selected.items():
        span, is_there = turn.span, key.planned in turn.span.chunks  # or it was cut anew
        for leaf in span.leaves(key) if is_there else ():
            state = span.entry(leaf).state
            name = "kept" if state is before.state else _COUNTED.get(state, "kept")
            setattr(report, name, getattr(report, name) + span.rows(leaf))


def _counts(span: Span, now: float) -> bool:
    """Return whether a span has rows that wait for longer than they usually do."""
    states, age = span.states(), now - span.planned_at / 1000
    if not span.settled and age < UNSETTLED_SECONDS + _RUN_SECONDS:
        return False  # its worker is at work; or was killed, and this run or the next one sends its rows
    is_long = age > USUAL_AGAIN_SECONDS
    return State.WAITING in states or (is_long and (State.AGAIN in states or bool(span.copies)))
