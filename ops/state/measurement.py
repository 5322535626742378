"""Measures undocumented limits of Treasure Data: how long it remembers an id, and how soon queries show new rows.

For each age, it sends a test row under its own id at the beginning and, once the id has that age, a second row under the same id.
If queries show the second row, the id was forgotten. A third row, sent right after the second under a new id, tells when the
second one would be visible.
"""

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from ops import screen
from ops.failure import FORESEEN, Failure, explained
from ops.help_page import DEPLOY
from ops.state.finding import Finding, fault
from shared.clock import Clock

AGES = (60.0, 300.0, 600.0, 1200.0, 1800.0, 2700.0, 3600.0, 4500.0, 5400.0, 7200.0, 10_800.0)
"""The ages of ids to try, in seconds."""
MOST_DELAY = 1800.0
"""How many seconds to wait for a row to become visible."""

_LEAST_MEMORY_MINUTES = 16  # template.yaml's MinValue
_LONGEST_PAUSE = 60.0
_SURE = 60.0  # seconds until a row that was not found is queried once more


@dataclass(slots=True)
class Measured:
    """The results, in seconds.

    Attributes:
        hidden: the latest time at which a new row was still hidden.
        shown: the time at which it was shown; None if it never was.
        kept: ages of ids that were remembered.
        gone: ages of ids that were forgotten.
    """

    hidden: float = 0.0
    shown: float | None = None
    kept: set[float] = field(default_factory=set)
    gone: set[float] = field(default_factory=set)

    @property
    def forgotten(self) -> float | None:
        """The youngest age at which an id was forgotten; None if none was."""
        return min(self.gone, default=None)

    @property
    def remembered(self) -> float:
        """The oldest age at which an id was remembered, below the youngest at which one was forgotten; 0 if none was."""
        return max((age for age in self.kept if self.forgotten is None or age < self.forgotten), default=0.0)


@dataclass
class Measurement:
    """One measurement.

    Attributes:
        administer: invokes AdminFunction.
        database: the database of the test rows.
        mark: the prefix of their names and ids.
        show: receives progress messages.
        first_ask: seconds from a row's import to the first query for it.
        found: the results so far.
    """

    administer: Callable[..., dict[str, Any]]
    clock: Clock
    database: str
    mark: str
    show: Callable[[str], None]
    first_ask: float = 5.0
    found: Measured = field(default_factory=Measured)

    def __post_init__(self) -> None:
        self._time = int(self.clock.now())
        self._order = count()
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._sent: dict[str, float] = {}

    def run(self, ages: Sequence[float]) -> Measured:
        """Measure with ids of these ages, in seconds, ascending; without any, measure only how soon rows are shown.

        An error ends it; what was measured until then is returned.

        Raises:
            Failure: Treasure Data does not accept the rows, or the API key may not query.
        """
        try:
            self._run(ages)
        except (Failure, *FORESEEN) as error:
            if self.found == Measured():
                raise
            self.show(f"{explained(error).message}. Results so far:")
        return self.found

    def _run(self, ages: Sequence[float]) -> None:
        self._send("shown", "shown")
        self._at(self.first_ask, lambda: self._look(0.0))
        for age in ages:
            self._send(f"{age:.0f}-first", f"{age:.0f}")
            self._at(age, lambda age=age: self._repeat(age))  # type: ignore[misc]  # a default binds the age
        while self._due:
            due, _, task = heapq.heappop(self._due)
            self.clock.sleep(max(0.0, due - self.clock.now()))
            task()

    def _at(self, seconds: float, task: Callable[[], None]) -> None:
        heapq.heappush(self._due, (self.clock.now() + seconds, next(self._order), task))

    def _later(self, waited: float, task: Callable[[], None]) -> None:
        self._at(min(max(self.first_ask, waited / 4), _LONGEST_PAUSE), task)

    def _look(self, before: float) -> None:
        """Check whether the first row is shown. `before` is the age, in seconds, at which it last was not."""
        age = self.clock.now() - self._sent["shown"]
        if self._is_shown("shown"):
            self.found.hidden, self.found.shown = before, age
            self.show(f"queries show a new row after {screen.lasting(age)}")
        elif age < MOST_DELAY:
            self.show(f"not shown yet after {screen.lasting(age)}")
            self._later(age, lambda: self._look(age))
        else:
            self.found.hidden = age

    def _repeat(self, age: float) -> None:
        """Send a second row under an id of this age, and a third one under a new id."""
        if self.found.forgotten is not None:
            return
        self.show(f"resending an id that is {screen.lasting(age)} old")
        self._send(f"{age:.0f}-second", f"{age:.0f}")
        self._send(f"{age:.0f}-third", f"{age:.0f}-third")
        self._at(self.first_ask, lambda: self._judge(age))

    def _judge(self, age: float, *, is_last: bool = False) -> None:
        """Check whether the second row of an age is shown, once the third one is. If it is not, check again later."""
        waited = self.clock.now() - self._sent[f"{age:.0f}-third"]
        is_due = self._is_shown(f"{age:.0f}-third")
        is_shown = self._is_shown(f"{age:.0f}-second") if is_due else None
        if is_shown:
            self.found.gone.add(age)
            self.show(f"an id that is {screen.lasting(age)} old is forgotten")
        elif is_shown is False and is_last:
            self.found.kept.add(age)
            self.show(f"an id that is {screen.lasting(age)} old is remembered")
        elif is_shown is False:
            self._at(_SURE, lambda: self._judge(age, is_last=True))
        elif waited < MOST_DELAY:
            self._later(waited, lambda: self._judge(age, is_last=is_last))

    def _send(self, name: str, of_id: str) -> None:
        answer = self._ask("send_probe", name, id=f"{self.mark}-{of_id}")
        if not answer["taken"]:
            raise Failure(
                f"Treasure Data did not accept a test row ({answer['reason']}): try again when it works"
            )
        self._sent[name] = self.clock.now()

    def _is_shown(self, name: str) -> bool | None:
        """Return whether a row is shown; None if that cannot be determined now."""
        answer = self._ask("ask_probe", name)
        if answer["reason"] == "forbidden":
            raise Failure("the API key may not query, which a measurement needs")
        shown: bool | None = answer["shown"]
        return shown

    def _ask(self, do: str, name: str, **more: Any) -> dict[str, Any]:
        mark = f"{self.mark}-{name}"
        return self.administer(do=do, database=self.database, mark=mark, time=self._time, **more)


def measured(found: Measured, assumed: Mapping[str, int]) -> list[Finding]:
    """Compare a measurement with the limits of Treasure Data that the worker assumes, in minutes."""
    delay, memory = assumed["query_delay_minutes"] * 60, assumed["memory_minutes"] * 60
    hidden, remembered = screen.lasting(found.hidden), screen.lasting(found.remembered)
    waits = f"the worker waits {screen.lasting(delay)}"
    if found.shown is not None:
        said = f"queries show new rows after {hidden} to {screen.lasting(found.shown)}; {waits}"
        late = found.shown > delay
    else:
        said, late = f"queries did not show a new row within {hidden}; {waits}", found.hidden > delay
    state = "fault" if late else "unknown" if found.shown is None else "ok"
    said = f"{said}: raise TdQueryDelayMinutes" if late else said
    findings = [Finding("query delay", said, state=state)]
    if found.forgotten is not None and found.forgotten <= memory:
        minutes = int(found.remembered // 60)
        advice = f"set TdMemoryMinutes to {minutes} and run {DEPLOY}, or rows may be duplicated"
        if minutes < _LEAST_MEMORY_MINUTES:
            advice = f"set TdMemoryMinutes to {_LEAST_MEMORY_MINUTES}, its minimum; a late retry may still duplicate rows"
        relied = f"the worker relies on {screen.lasting(memory)}"
        said = f"Treasure Data forgets an id within {screen.lasting(found.forgotten)}, but {relied}: {advice}"
        return [*findings, fault("id memory", said)]
    until = "" if found.forgotten is None else f" and forgets it within {screen.lasting(found.forgotten)}"
    said = f"Treasure Data remembers an id for {remembered}{until}; the worker relies on {screen.lasting(memory)}"
    return [
        *findings,
        Finding("id memory", said, state="ok" if found.remembered >= memory else "unknown"),
    ]
