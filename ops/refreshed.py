"""Values that take long to get: got in the background, only so often, and only while somebody asks for them."""

import threading
from collections.abc import Callable
from dataclasses import dataclass

import click

from ops.failure import FORESEEN, explained
from shared.clock import Clock


@dataclass(frozen=True, slots=True)
class Reading[T]:
    """A value as it was.

    Attributes:
        value: the last one that could be got; None before the first.
        at: UNIX seconds at which it was asked for.
        error: why a newer one could not be got; empty if it could.
    """

    value: T | None = None
    at: float = 0.0
    error: str = ""


class Refreshed[T]:
    """A value that is got again when it is old. Threads may share it.

    Args:
        get: gets it.
        seconds: how old it may be.
        clock: tells the time.
        share: the part of the time that getting it may take, so that a value that takes long is got less often.
        start: runs a job in the background.
    """

    def __init__(
        self,
        get: Callable[[], T],
        seconds: float,
        clock: Clock,
        *,
        share: float = 0.5,
        start: Callable[[Callable[[], None]], None] | None = None,
    ) -> None:
        self._get = get
        self._seconds = seconds
        self._clock = clock
        self._share = share
        self._start = start or in_background
        self._lock = threading.Lock()
        self._reading: Reading[T] = Reading()
        self._due = float("-inf")
        self._runs = False
        self._was_got = threading.Event()

    def first(self) -> T:
        """Get the value now.

        Raises: what `get` raises.
        """
        began = self._clock.now()
        value = self._get()
        self._put(Reading(value, began), began)
        return value

    def latest(self) -> Reading[T]:
        """Return the value as it was last got, at once; if that is too long ago, start to get it again."""
        with self._lock:
            is_due = not self._runs and self._clock.now() >= self._due
            self._runs = self._runs or is_due
        if is_due:
            self._start(self.refresh)
        return self._reading

    def wait(self, seconds: float) -> None:
        """Start to get the value, and wait until it was got or could not be, but not longer than that."""
        self.latest()
        self._was_got.wait(seconds)

    def expire(self) -> None:
        """Let the value be got again soon."""
        with self._lock:
            self._due = float("-inf")

    def refresh(self) -> None:
        """Get the value now; if it cannot be got, the reading says why."""
        began = self._clock.now()
        try:
            self._put(Reading(self._get(), began), began)
        except Exception as error:  # noqa: BLE001 -- the next one may succeed; this one is shown
            is_foreseen = isinstance(error, (click.ClickException, *FORESEEN))
            said = explained(error).message if is_foreseen else f"{type(error).__name__}: {error}"
            self._put(Reading(self._reading.value, self._reading.at, said), began)

    def _put(self, reading: Reading[T], began: float) -> None:
        now = self._clock.now()
        with self._lock:
            self._reading, self._runs = reading, False
            self._was_got.set()
            self._due = now + max(self._seconds, (now - began) * (1 / self._share - 1))


def in_background(job: Callable[[], None]) -> None:
    """Run a job in a thread, which ends with the process."""
    threading.Thread(target=job, daemon=True).start()
