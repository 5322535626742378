"""Values that are slow to read: refreshed in the background, at a limited rate, and only while they are requested."""

import threading
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass

import click

from ops.background import in_background
from ops.failure import FORESEEN, explained
from shared.clock import Clock


@dataclass(frozen=True, slots=True)
class Reading[T]:
    """A value at a point in time.

    Attributes:
        value: the last value that was read; None before the first.
        at: when reading it began, UNIX seconds.
        error: why the latest refresh failed; empty if it succeeded.
    """

    value: T | None = None
    at: float = 0.0
    error: str = ""


@dataclass
class Refreshed[T]:
    """A value that is refreshed when it is older than some seconds, in the background. Threads may share it.

    Reading it takes at most a `share` of the time, so slow values are refreshed less often.
    """

    get: Callable[[], T]
    seconds: float
    clock: Clock
    _: KW_ONLY
    share: float = 0.5
    start: Callable[[Callable[[], None]], None] = in_background

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._reading: Reading[T] = Reading()
        self._due = float("-inf")
        self._runs = False
        self._was_got = threading.Event()

    def first(self) -> T:
        """Read the value now.

        Raises: what `get` raises.
        """
        began = self.clock.now()
        value = self.get()
        self._put(Reading(value, began), began)
        return value

    def latest(self) -> Reading[T]:
        """Return the last reading without waiting. If it is too old, start a refresh."""
        with self._lock:
            is_due = not self._runs and self.clock.now() >= self._due
            self._runs = self._runs or is_due
        if is_due:
            self.start(self.refresh)
        return self._reading

    def wait(self, seconds: float) -> None:
        """Start a refresh, and wait for the first one to end, at most for a time."""
        self.latest()
        self._was_got.wait(seconds)

    def expire(self) -> None:
        """Make the next request start a refresh."""
        with self._lock:
            self._due = float("-inf")

    def refresh(self) -> None:
        """Refresh the value now. If that fails, the reading says why."""
        began = self.clock.now()
        try:
            self._put(Reading(self.get(), began), began)
        except Exception as error:  # noqa: BLE001 -- shown in the reading; the next refresh may succeed
            is_foreseen = isinstance(error, (click.ClickException, *FORESEEN))
            said = explained(error).message if is_foreseen else f"{type(error).__name__}: {error}"
            self._put(Reading(self._reading.value, self._reading.at, said), began)

    def _put(self, reading: Reading[T], began: float) -> None:
        now = self.clock.now()
        with self._lock:
            self._reading, self._runs = reading, False
            self._was_got.set()
            self._due = now + max(self.seconds, (now - began) * (1 / self.share - 1))
