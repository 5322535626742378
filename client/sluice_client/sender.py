"""Sends the events in the spool until all are accepted or rejected."""

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from sluice_client.bell import Bell
from sluice_client.endpoint import MAX_BATCH_TABLES, Endpoint, Refused, Settled, Unacceptable, Unknown
from sluice_client.errors import SpoolError
from sluice_client.spool_directory import SpoolDirectory
from sluice_client.spool_file import Batch, SpoolFile

_log = logging.getLogger("sluice_client")

_ADOPT_SECONDS = 10.0
"""How often to look for files that other processes have left behind."""


@dataclass(frozen=True)
class Rejection:
    """An event that Sluice rejected. It will not become a row and is not sent again.

    Attributes:
        event: the event as it was sent; if the disk has damaged it, its text as `unreadable`.
        code: Sluice's error code. The meaning of a code never changes.
        message: for a person.
    """

    event: Mapping[str, Any]
    code: str
    message: str


@dataclass(frozen=True)
class Retries:
    """How long to wait between attempts. The wait doubles with each failure and has jitter.

    Attributes:
        first_seconds: the wait after the first failure.
        longest_seconds: the longest wait, unless the response's `Retry-After` asks for more.
        jitter: returns a number from 0 to 1.
    """

    first_seconds: float
    longest_seconds: float
    jitter: Callable[[], float]


@dataclass(frozen=True)
class Counts:
    """What the sender has done so far.

    Attributes:
        accepted: events that Sluice has confirmed.
        rejected: events that Sluice has rejected.
        requests: attempts to send a batch.
        failures: attempts with an unknown outcome.
        last_error: code of the last attempt's error, empty if it succeeded.
    """

    accepted: int = 0
    rejected: int = 0
    requests: int = 0
    failures: int = 0
    last_error: str = ""


@dataclass
class Sender:
    """Sends batches one after another, in one thread.

    Attributes:
        endpoint: receives the batches.
        own: this process's spool file.
        directory: where other processes may have left theirs.
        batch_seconds: how long an event waits for others.
        retries: how long to wait after failures.
        on_rejected: called with each rejected event in the sender's thread; called again if the process ends at that moment.
        clock: returns monotonic seconds.
        counts: what the sender has done.
        settled: notified when a batch is settled, and when the sender stops.
    """

    endpoint: Endpoint
    own: SpoolFile
    directory: SpoolDirectory
    batch_seconds: float
    retries: Retries
    on_rejected: Callable[[Rejection], None]
    clock: Callable[[], float] = time.monotonic
    counts: Counts = field(default_factory=Counts)
    settled: threading.Condition = field(default_factory=threading.Condition)
    _bell: Bell = field(default_factory=Bell)
    _adopted: list[SpoolFile] = field(default_factory=list)
    _failures: int = 0
    _retry_at: float = 0.0
    _adopt_at: float = 0.0
    _seal_at: float | None = None
    _stopping: bool = False

    def ring(self) -> None:
        """Wake the sender, because there may be something to do."""
        self._bell.ring()

    def stop(self) -> None:
        """Stop after the current attempt, and close the files."""
        self._stopping = True
        self._bell.ring()

    def run(self) -> None:
        """Send until `stop`."""
        try:
            while not self._stopping:
                try:
                    wait = self.step()
                except SpoolError as error:
                    wait = self._fail(Unknown("spool", str(error)))
                except Exception as error:  # noqa: BLE001 -- the thread must survive, or nothing is sent any more
                    _log.exception("the sender failed")
                    wait = self._fail(Unknown(type(error).__name__, str(error)))
                if wait:
                    self._bell.wait(wait)
        finally:
            self.endpoint.close()
            for file in self.files:
                file.close()
            self._notify()

    @property
    def files(self) -> tuple[SpoolFile, ...]:
        """This process's spool file, and those that it has taken over."""
        return (self.own, *self._adopted)

    @property
    def pending(self) -> tuple[int, int]:
        """Number and bytes of the events that are left to send: this process's, and those that ended processes have left."""
        files = self.files
        return sum(file.pending_events for file in files), sum(file.pending_bytes for file in files)

    def adopt(self) -> None:
        """Take over the files that ended processes have left."""
        self._adopt_at = self.clock() + _ADOPT_SECONDS
        self._adopted.extend(self.directory.orphans())

    def step(self) -> float:
        """Do the next thing; return the seconds until there is something else to do.

        Raises:
            SpoolError: a spool file cannot be read or written.
        """
        now = self.clock()
        if self._adopt_at <= now:
            self.adopt()
        if self._retry_at > now:
            return min(self._retry_at, self._adopt_at) - now
        if self._seal_at is None and self.own.open_events:
            self._seal_at = now + self.batch_seconds
        if self._seal_at is not None and self._seal_at <= now:
            self.own.seal()
            self._seal_at = None
        for file in self.files:
            if file is not self.own:
                file.seal()
            if batch := file.oldest():
                return self._send(file, batch)
        for file in self._adopted:
            file.close()
        self._adopted.clear()
        return min(self._adopt_at if self._seal_at is None else self._seal_at, self._adopt_at) - now

    def _send(self, file: SpoolFile, batch: Batch) -> float:
        events = file.events(batch)
        if batch.events > MAX_BATCH_TABLES:
            tables = {str(_parsed(event).get("table")) for event in events}
            if len(tables) > MAX_BATCH_TABLES:  # so it was never sent, because its events never change
                file.split(batch)
                return 0.0
        answer = self.endpoint.send(batch.id, events)
        self.counts = replace(self.counts, requests=self.counts.requests + 1)
        match answer:
            case Unknown():
                return self._fail(answer)
            case Unacceptable(code, message) if batch.events > 1:
                # Only the content decides this, so no earlier attempt was accepted either.
                _log.warning(
                    "a batch of %d events was rejected and is split in two: %s: %s",
                    batch.events,
                    code,
                    message,
                )
                file.split(batch)
                return 0.0
            case Unacceptable(code, message):
                self._settle(events, Settled([Refused(0, code, message)]))
            case Settled():
                self._settle(events, answer)
        file.settle(batch)
        self._failures = 0
        self._notify()
        return 0.0

    def _settle(self, events: list[bytes], answer: Settled) -> None:
        """Count a batch's events, and report the rejected ones."""
        for refused in answer.refused:
            rejection = Rejection(_parsed(events[refused.index]), refused.code, refused.message)
            _log.error(
                "an event for table %s was rejected: %s: %s (event_id %s)",
                rejection.event.get("table"),
                refused.code,
                refused.message,
                rejection.event.get("event_id"),
            )
            try:
                self.on_rejected(rejection)
            except Exception:  # noqa: BLE001 -- whatever the caller's function raises
                _log.exception("on_rejected failed")
        self.counts = replace(
            self.counts,
            accepted=self.counts.accepted + len(events) - len(answer.refused),
            rejected=self.counts.rejected + len(answer.refused),
            last_error="",
        )

    def _fail(self, answer: Unknown) -> float:
        """Log and count a failed attempt; return the seconds until the next one."""
        level = logging.ERROR if answer.needs_operator else logging.WARNING
        if answer.reason == self.counts.last_error:
            level = logging.DEBUG
        retries = self.retries
        longest = min(retries.first_seconds * 2.0 ** min(self._failures, 30), retries.longest_seconds)
        wait = max(longest * (0.5 + retries.jitter() / 2), answer.after)
        _log.log(
            level,
            "events were not delivered; they are kept, and the next attempt is in %.0f s: %s: %s",
            wait,
            answer.reason,
            answer.message,
        )
        self._failures += 1
        self._retry_at = self.clock() + wait
        self.counts = replace(self.counts, failures=self.counts.failures + 1, last_error=answer.reason)
        return wait

    def _notify(self) -> None:
        with self.settled:
            self.settled.notify_all()


def _parsed(event: bytes) -> Mapping[str, Any]:
    """Return an event from its JSON text. One that cannot be read must not hold all that follow."""
    with suppress(ValueError, RecursionError):
        parsed = json.loads(event)
        if isinstance(parsed, dict):
            return parsed
    return {"unreadable": event.decode(errors="replace")}
