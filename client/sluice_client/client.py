"""The client: stores events on disk, and starts the threads that send them."""

import atexit
import os
import random
import re
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any

from sluice_client import event
from sluice_client.bell import Bell
from sluice_client.endpoint import MAX_BATCH_BYTES, MAX_BATCH_EVENTS, Endpoint
from sluice_client.errors import ClosedError, SpoolError
from sluice_client.sender import Counts, Rejection, Retries, Sender
from sluice_client.spool_directory import SpoolDirectory
from sluice_client.spool_file import Limits, SpoolFile

_SYNC_SECONDS = 0.5
"""How long an event waits to be flushed to the disk. A power failure before that may lose it."""
_IDLE_SECONDS = 3600.0
"""How often the thread that flushes looks whether there is anything, even if nobody wakes it."""
_EXIT_SECONDS = 5.0
_LONGEST_SECONDS = threading.TIMEOUT_MAX / 2
"""How long threads can wait at once. Callers may wait for ever (`math.inf`)."""
_KEY = re.compile(r"([a-z0-9_]{3,64})\.[a-z0-9-]+\.[A-Za-z0-9_-]+")

_clients: set["Client"] = set()
"""Clients that are not closed."""


@dataclass(frozen=True)
class Statistics:
    """What this process's client has done, and what is left to do.

    Attributes:
        tracked: events that `track` has stored.
        accepted: events that Sluice has confirmed, including those of earlier processes.
        rejected: events that Sluice has rejected.
        pending: stored events that have been neither accepted nor rejected, including those that ended processes have left.
        pending_bytes: size of their JSON texts.
        requests: attempts to send a batch.
        failures: attempts with an unknown outcome.
        last_error: code of the last attempt's error, empty if it succeeded.
    """

    tracked: int
    accepted: int
    rejected: int
    pending: int
    pending_bytes: int
    requests: int
    failures: int
    last_error: str


class _Running:
    """The spool file and the threads of a client, from its first use on. A forked child starts without them."""

    def __init__(self, file: SpoolFile, sender: Sender) -> None:
        self.file = file
        self.sender = sender
        self.tracked = 0
        self._unsynced = False
        # a signal handler could not set a threading.Event whose lock the code that it interrupts holds
        self._bell = Bell()
        self._stopping = False
        self._thread = threading.Thread(target=sender.run, name="sluice-sender", daemon=True)
        self._thread.start()
        threading.Thread(target=self._sync, name="sluice-sync", daemon=True).start()

    def append(self, body: bytes) -> None:
        """Store an event."""
        open_events = self.file.append(body)
        self.tracked += 1
        if not self._unsynced:
            self._unsynced = True
            self._bell.ring()
        if open_events in (1, MAX_BATCH_EVENTS):
            self.sender.ring()

    def stop(self, seconds: float) -> None:
        """Stop the threads; wait at most this long for the current attempt."""
        self._stopping = True
        self._bell.ring()
        self.sender.stop()
        self._thread.join(min(seconds, _LONGEST_SECONDS))

    def _sync(self) -> None:
        while not self._stopping:
            self._bell.wait(_IDLE_SECONDS)
            self._unsynced = False
            time.sleep(_SYNC_SECONDS)
            self.file.sync()


class Client:
    """Delivers events to Sluice, each exactly once.

    `track` stores an event on disk. A thread sends the stored events in batches and retries until Sluice has confirmed
    them. A client is safe for threads and for processes that fork: each process has its own spool file, and another
    process, or the next one, sends what a process leaves behind. Use it as a context manager, or keep it as long as the
    process runs.

    Args:
        endpoint: Sluice's URL, the stack output `ApiUrl`.
        key: the write key.
        spool: directory for events that are not delivered yet, on a local disk. Processes that run as the same user
            should share it. Default: the environment variable SLUICE_SPOOL, else `sluice` in XDG_STATE_HOME or
            `~/.local/state`.
        spool_bytes: how many bytes of events, as JSON, one process may store.
        batch_events: maximum events in a request, up to 500.
        batch_bytes: maximum bytes of their JSON texts, up to 900 KiB.
        batch_seconds: how long an event waits for others.
        timeout: seconds to wait for the endpoint in each attempt.
        retry_seconds: wait after the first failure, and the longest wait.
        on_rejected: called with each event that Sluice rejects, in the sender's thread. Rejections are also logged.
        now: returns UNIX seconds.

    Raises:
        ValueError: `endpoint` is not a URL, `key` is not a write key, or a limit is out of range.
        SpoolError: the spool's directory cannot be created or written.
    """

    def __init__(
        self,
        endpoint: str,
        key: str,
        *,
        spool: str | os.PathLike[str] | None = None,
        spool_bytes: int = 256 * 1024 * 1024,
        batch_events: int = MAX_BATCH_EVENTS,
        batch_bytes: int = MAX_BATCH_BYTES,
        batch_seconds: float = 1.0,
        timeout: float = 10.0,
        retry_seconds: tuple[float, float] = (1.0, 60.0),
        on_rejected: Callable[[Rejection], None] = lambda _: None,
        now: Callable[[], float] = time.time,
    ) -> None:
        account = _KEY.fullmatch(key)
        if not account:
            raise ValueError("this is not a write key: use <account>.<key id>.<mac>")
        if not (1 <= batch_events <= MAX_BATCH_EVENTS and 1 <= batch_bytes <= MAX_BATCH_BYTES):
            raise ValueError(
                f"a batch has 1 to {MAX_BATCH_EVENTS} events and at most {MAX_BATCH_BYTES} bytes"
            )
        # Events tracked for one endpoint and account are never sent to another.
        place = sha256(endpoint.rstrip("/").encode()).hexdigest()[:8]
        self._directory = SpoolDirectory(
            spool_folder(spool) / f"{account[1]}-{place}", Limits(batch_events, batch_bytes, spool_bytes)
        )
        self._new_endpoint = partial(Endpoint, endpoint, key, timeout, now)
        self._new_endpoint()  # checks the URL
        self._batch_seconds = batch_seconds
        self._retries = Retries(
            *retry_seconds,
            random.Random().random,  # noqa: S311 -- jitter is not a secret
        )
        self._on_rejected = on_rejected
        self._now = now
        self._lock = threading.RLock()
        self._running: _Running | None = None
        self._stopped: _Running | None = None
        self._closed = False
        self._held: tuple[SpoolFile, ...] = ()
        _clients.add(self)

    def track(self, table: str, columns: Mapping[str, Any] | None = None, /, **more: Any) -> str:
        """Store an event and return its `event_id`.

        Once it is stored, the event survives the end of the process. Sluice gets it eventually, possibly only after the
        program has started again. The call takes as long as a small write to a file.

        Args:
            table: the table for the event's row.
            columns: the row's columns: JSON values, dates, times, decimals and UUIDs.
            more: further columns.

        Raises:
            InvalidEventError: Sluice would reject the event. It was not stored.
            SpoolFullError: the spool is full. The event was not stored.
            SpoolError: the disk cannot be written, or no thread can be started. The event was not stored.
            ClosedError: the client is closed. The event was not stored.
        """
        event_id, body = event.encode(table, {**(columns or {}), **more}, int(self._now()))
        (self._running or self._start()).append(body)
        return event_id

    def flush(self, timeout: float = 10.0) -> bool:
        """Send what this process has stored, and wait until Sluice has accepted or rejected all of it.

        Args:
            timeout: maximum seconds to wait.

        Returns:
            True if no event is left; False if some are. They stay in the spool and are sent later.

        Raises:
            SpoolError: the disk cannot be read or written.
        """
        running = self._running
        return running is None or self._flush(running, timeout, running.file.last)

    def resume(self) -> None:
        """Send what earlier processes have left behind, without waiting for the first event.

        Raises:
            SpoolError: the disk cannot be read or written.
            ClosedError: the client is closed.
        """
        if self._running is None:
            self._start()

    def close(self, timeout: float = _EXIT_SECONDS) -> bool:
        """Send everything in the spool, then stop. The client cannot be used afterwards. It closes itself at the end of the process.

        Args:
            timeout: maximum seconds to wait.

        Returns:
            True if everything was accepted or rejected; False if events are left for the next process.
        """
        deadline = time.monotonic() + timeout
        with self._lock:
            self._closed = True
            running, self._running = self._running, None
            self._stopped = running or self._stopped
        _clients.discard(self)
        if running is None:
            return True
        try:
            return self._flush(running, timeout, None)
        finally:
            running.stop(max(0.0, deadline - time.monotonic()) + 0.1)

    def statistics(self) -> Statistics:
        """Return what this process's client has done so far."""
        running = self._running or self._stopped
        counts = running.sender.counts if running else Counts()
        pending, pending_bytes = running.sender.pending if running else (0, 0)
        return Statistics(
            tracked=running.tracked if running else 0,
            accepted=counts.accepted,
            rejected=counts.rejected,
            pending=pending,
            pending_bytes=pending_bytes,
            requests=counts.requests,
            failures=counts.failures,
            last_error=counts.last_error,
        )

    def __enter__(self) -> "Client":  # noqa: PYI034 -- Self is not in Python 3.10
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self) -> _Running:
        with self._lock:
            if self._closed:
                raise ClosedError("the client is closed; the event was not stored")
            if self._running is None:
                file = self._directory.own()
                if self._running is not None:
                    file.close()  # type: ignore[unreachable]  # a signal handler was faster
                    return self._running
                sender = Sender(
                    self._new_endpoint(),
                    file,
                    self._directory,
                    self._batch_seconds,
                    self._retries,
                    self._on_rejected,
                )
                sender.adopt()
                try:
                    self._running = _Running(file, sender)
                except RuntimeError as error:
                    # too many threads or, in Python 3.12, the interpreter is ending
                    sender.stop()
                    for held in sender.files:
                        held.close()
                    raise SpoolError(f"cannot start a thread: {error}; the event was not stored") from error
            return self._running

    def _flush(self, running: _Running, timeout: float, target: int | None) -> bool:
        """Send this process's events up to a sequence number, or everything. Return whether nothing of it is left."""
        deadline = time.monotonic() + timeout
        file, sender = running.file, running.sender
        file.seal()
        sender.ring()
        with sender.settled:
            while sender.pending[0] if target is None else file.has_before(target):
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                sender.settled.wait(min(left, _LONGEST_SECONDS))
        return True

    def _before_fork(self) -> None:
        self._lock.acquire()
        self._held = self._running.sender.files if self._running else ()
        for file in self._held:
            file.before_fork()

    def _after_fork_in_parent(self) -> None:
        for file in self._held:
            file.after_fork_in_parent()
        self._lock.release()

    def _after_fork_in_child(self) -> None:
        self._lock = threading.RLock()
        if self._running:
            _inherited.append(self._running)
        self._running = self._stopped = None
        self._directory.abandon()


_inherited: list[_Running] = []
"""In a forked child, what belongs to its parent. It must never be closed or deleted."""
_forking: list[Client] = []


def spool_folder(path: str | os.PathLike[str] | None) -> Path:
    """Return the directory for undelivered events: this one, or the default."""
    chosen = path or os.environ.get("SLUICE_SPOOL")
    if chosen:
        return Path(chosen).absolute()
    try:
        state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state"
    except RuntimeError:  # the user has no home directory
        state = "/var/tmp"  # noqa: S108 -- the directory in it is readable only by this user
    return Path(state).absolute() / "sluice"


def _before_fork() -> None:
    _forking.extend(_clients)
    for client in _forking:
        client._before_fork()  # noqa: SLF001 -- not part of what users see


def _after_fork_in_parent() -> None:
    for client in _forking:
        client._after_fork_in_parent()  # noqa: SLF001
    _forking.clear()


def _after_fork_in_child() -> None:
    for client in list(_clients):
        client._after_fork_in_child()  # noqa: SLF001
    _forking.clear()


def _at_exit() -> None:
    deadline = time.monotonic() + _EXIT_SECONDS
    for client in list(_clients):
        with suppress(Exception):  # the events are on disk
            client.close(max(0.0, deadline - time.monotonic()))


os.register_at_fork(
    before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child
)
atexit.register(_at_exit)
