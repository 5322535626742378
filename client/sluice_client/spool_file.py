"""One process's events on disk, in the batches in which they are sent.

Once `append` has returned, the event survives the end of the process at any moment, and an orderly shutdown of the machine.
A power failure may lose events that were appended since the last `sync`.

A batch is a range of consecutive events with an id. It is fixed on disk before it is first sent, so every retry has the
same id and the same events, whichever process sends it.

A full disk stops `append`, but not delivery: a batch is fixed in space that is reserved for it, and batches that are settled
are deleted once there is space, or with the whole file once all are.
"""

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from uuid import uuid4

from sluice_client.errors import SpoolError, SpoolFullError
from sluice_client.reserve import Reserve

_CHECKPOINT_WRITES = 4000
"""Writes after which the write-ahead log is copied to the database. The first write afterwards waits for the disk once."""
_MAX_LOG_FRAMES = 65_536
"""Pages of the write-ahead log, 64 MiB, above which writers wait until all of it is copied."""

_FAILURES = (sqlite3.Error, UnicodeDecodeError)
"""What a damaged file raises, too: a message that quotes a damaged name cannot be decoded."""

_SCHEMA = """
    CREATE TABLE IF NOT EXISTS event (seq INTEGER PRIMARY KEY, body BLOB NOT NULL);
    CREATE TABLE IF NOT EXISTS batch (
        last INTEGER PRIMARY KEY, first INTEGER NOT NULL, events INTEGER NOT NULL, bytes INTEGER NOT NULL,
        id TEXT NOT NULL);
"""

_CHECKS = (
    ("PRAGMA quick_check(1)", ("ok",)),
    ("SELECT count(*) FROM batch WHERE length(id) != 32 OR id GLOB '*[^0-9a-f]*'", (0,)),
    (
        "SELECT count(*) FROM batch WHERE events > (SELECT count(*) FROM event WHERE seq BETWEEN first AND last)",
        (0,),
    ),
)
"""Queries that find damage, and what each gives of a sound file."""


@dataclass(frozen=True)
class Limits:
    """How much goes into a batch and into a spool.

    Attributes:
        batch_events: events in a batch.
        batch_bytes: bytes of their JSON texts, separators included; a larger event is a batch of its own.
        spool_bytes: bytes of the JSON texts of all events in one process's spool.
    """

    batch_events: int
    batch_bytes: int
    spool_bytes: int


@dataclass(frozen=True)
class Batch:
    """A fixed range of events.

    Attributes:
        id: unique; never used for other events.
        first: sequence number of its first event.
        last: sequence number of its last event. Numbers in between may be unused.
        events: number of its events.
        bytes: size of their JSON texts, separators included.
    """

    id: str
    first: int
    last: int
    events: int
    bytes: int


class SpoolFile:
    """The events of one process; safe for threads.

    Args:
        path: the SQLite database, which is created if it does not exist.
        limits: limits of its batches and its size.
        on_close: called after the file is closed for good, and deleted if it is empty.

    Attributes:
        path: the SQLite database.
        last: sequence number of the newest event.
        pending_events: number of events that have been neither accepted nor rejected.
        pending_bytes: size of their JSON texts, separators included.

    Raises:
        SpoolError: the database cannot be opened.
    """

    def __init__(self, path: Path, limits: Limits, on_close: Callable[[], None] = lambda: None) -> None:
        self.path = path
        self._limits = limits
        self._on_close = on_close
        # Reentrant: a signal handler may track an event while this thread is in `append`.
        self._lock = threading.RLock()
        self._background = threading.RLock()
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._closed = False
        self._busy = False
        self._writes = 0
        self._sealed_through = self._open_events = self._open_bytes = 0
        self._settled_through = 0
        self._reserve = Reserve(path.with_suffix(".reserve"))
        self.last = self.pending_events = self.pending_bytes = 0
        self._numbers = count(1)
        try:
            self._with_reserve(self._load)
            self._reserve.hold()
        except BaseException:
            self._disconnect()
            raise

    @property
    def open_events(self) -> int:
        """Number of events that are in no batch yet."""
        return self._open_events

    def append(self, body: bytes) -> int:
        """Store an event; return how many events are now in no batch.

        Raises:
            SpoolFullError: there is no room. The event was not stored.
            SpoolError: the file cannot be written. The event was not stored.
        """
        size = len(body) + 1
        with self._writing("write to") as writer:
            if self.pending_bytes + size > self._limits.spool_bytes:
                raise SpoolFullError(
                    f"the spool {self.path.parent} holds {self.pending_bytes} undelivered bytes and may hold "
                    f"{self._limits.spool_bytes}; the event was not stored"
                )
            if not self._reserve.hold():
                raise SpoolError(
                    f"cannot write to the spool {self.path}: the disk is full; the event was not stored"
                )
            if self._open_events and (
                self._open_events >= self._limits.batch_events
                or self._open_bytes + size > self._limits.batch_bytes
            ):
                self._seal(writer)
            was_busy, self._busy = self._busy, True
            try:
                number = next(self._numbers)
                writer.execute("INSERT INTO event VALUES (?, ?)", (number, body))
                # no calls from here on: a signal handler may run after each
                if number > self.last:  # noqa: PLR1730 -- likewise
                    self.last = number
                self._open_events += 1
                self._open_bytes += size
                self.pending_events += 1
                self.pending_bytes += size
                self._writes += 1
            finally:
                self._busy = was_busy
            return self._open_events

    def seal(self) -> None:
        """Fix a batch of the events that are in no batch yet.

        Raises:
            SpoolError: the file cannot be written.
        """
        self._with_reserve(self._seal_now)

    def _seal_now(self) -> None:
        with self._writing("write to") as writer:
            if self._open_events:
                self._seal(writer)

    def oldest(self) -> Batch | None:
        """Return the batch to send next, None if no batch is fixed.

        Raises:
            SpoolError: the file cannot be read.
        """
        if not self.pending_events:
            return None
        with self._reading() as reader:
            for row in reader.execute(
                "SELECT id, first, last, events, bytes FROM batch WHERE last > ? ORDER BY last LIMIT 1",
                (self._settled_through,),
            ):
                return Batch(*row)
        return None

    def events(self, batch: Batch) -> list[bytes]:
        """Return the events' JSON texts in order.

        Raises:
            SpoolError: the file cannot be read.
        """
        with self._reading() as reader:
            rows = reader.execute(
                "SELECT CAST(body AS BLOB) FROM event WHERE seq BETWEEN ? AND ? ORDER BY seq",
                (batch.first, batch.last),
            ).fetchall()
        return [body for (body,) in rows]

    def settle(self, batch: Batch) -> None:
        """Delete the oldest batch and its events, which have been accepted or rejected.

        If the disk is full, they are deleted later. If the process ends before, the next one sends them again, under the same
        id.
        """
        with self._background, self._lock:
            self._settled_through = batch.last
            self.pending_events -= batch.events
            self.pending_bytes -= batch.bytes
            self._writes += 1
            with suppress(SpoolError):
                self._delete_settled()

    def split(self, batch: Batch) -> None:
        """Replace a batch of several events by two halves with new ids.

        Raises:
            SpoolError: the file cannot be written. The batch is still there.
        """
        self._with_reserve(lambda: self._split_now(batch))

    def _split_now(self, batch: Batch) -> None:
        with self._writing("write to") as writer, _transaction(writer):
            [(middle,)] = writer.execute(
                "SELECT seq FROM event WHERE seq BETWEEN ? AND ? ORDER BY seq LIMIT 1 OFFSET ?",
                (batch.first, batch.last, batch.events // 2 - 1),
            ).fetchall()
            writer.execute("DELETE FROM batch WHERE last = ?", (batch.last,))
            for first, last in ((batch.first, middle), (middle + 1, batch.last)):
                writer.execute(
                    "INSERT INTO batch SELECT ?, ?, count(*), sum(length(body) + 1), ? FROM event WHERE seq BETWEEN ? AND ?",
                    (last, first, uuid4().hex, first, last),
                )

    def has_before(self, sequence: int) -> bool:
        """Return whether any event up to this sequence number has not been settled.

        Raises:
            SpoolError: the file cannot be read.
        """
        with self._lock:
            if not self.pending_events:
                return False
            if self._open_events and self._sealed_through < sequence:
                return True
        with self._reading() as reader:
            return bool(
                reader.execute(
                    "SELECT 1 FROM batch WHERE first <= ? AND last > ? LIMIT 1",
                    (sequence, self._settled_through),
                ).fetchall()
            )

    def sync(self) -> None:
        """Flush appended events to the disk, so that a power failure does not lose them. Appending does not wait for it."""
        with self._background:
            if self._closed:
                return
            with suppress(OSError):  # the log exists only while a connection is open
                log = os.open(f"{self.path}-wal", os.O_RDWR | os.O_CLOEXEC)
                try:
                    os.fsync(log)
                finally:
                    os.close(log)
            if self._writes >= _CHECKPOINT_WRITES:
                with suppress(SpoolError):  # the disk is full; the next checkpoint may succeed
                    self._checkpoint()

    def close(self) -> None:
        """Close the file, and delete it if it is empty. It cannot be used afterwards."""
        with self._background, self._lock:
            if self._closed:
                return
            self._closed = True
            self._disconnect()
            if not self.pending_events:
                self._delete_file()
                self._reserve.release()
            self._on_close()

    def before_fork(self) -> None:
        """Close the connections, because SQLite's must not be carried into a child. They are reopened when needed."""
        self._background.acquire()
        self._lock.acquire()
        self._disconnect()

    def after_fork_in_parent(self) -> None:
        """Release the locks that `before_fork` has taken, and open the file: if its lock file was deleted, that keeps it from others."""
        self._lock.release()
        self._background.release()
        with suppress(SpoolError), self._reading():
            pass

    def _load(self) -> None:
        with self._writing("open") as writer:
            self._count(writer)
            # otherwise damage would be found only when its events are to be sent, and hold all that follow
            if self.pending_events and any(
                writer.execute(check).fetchall() != [sound] for check, sound in _CHECKS
            ):
                raise sqlite3.DatabaseError("malformed")

    def _count(self, writer: sqlite3.Connection) -> None:
        """Count what the file holds."""
        [(sealed_through, sealed_bytes, sealed_events)] = writer.execute(
            "SELECT coalesce(max(last), ?1), coalesce(sum(bytes), 0), coalesce(sum(events), 0) FROM batch WHERE last > ?1",
            (self._settled_through,),
        )
        [(last, self._open_events, self._open_bytes)] = writer.execute(
            "SELECT coalesce(max(seq), 0), count(*), coalesce(sum(length(body) + 1), 0) FROM event WHERE seq > ?",
            (sealed_through,),
        )
        self._sealed_through = sealed_through
        self.last = max(last, sealed_through)
        self._numbers = count(self.last + 1)
        self.pending_events = sealed_events + self._open_events
        self.pending_bytes = sealed_bytes + self._open_bytes

    def _with_reserve(self, write: Callable[[], None]) -> None:
        """Write. If that fails, use the reserved space: the disk may be full."""
        try:
            write()
        except SpoolError:
            if not self._reserve.release():
                raise
            write()

    def _delete_settled(self) -> None:
        """Delete what is settled. If the disk is full and everything is, begin a new file, which needs little space."""
        try:
            with self._writing("write to") as writer, _transaction(writer):
                writer.execute("DELETE FROM event WHERE seq <= ?", (self._settled_through,))
                writer.execute("DELETE FROM batch WHERE last <= ?", (self._settled_through,))
        except SpoolError:
            if self.pending_events:
                raise
            self._disconnect()
            self._delete_file()

    def _delete_file(self) -> None:
        for name in ("", "-wal", "-shm"):
            Path(f"{self.path}{name}").unlink(missing_ok=True)

    def _seal(self, writer: sqlite3.Connection) -> None:
        """Fix a batch of all events that are in no batch yet, unless a signal handler has interrupted what changes their number."""
        if self._busy:
            return
        self._busy = True
        try:
            self._seal_open(writer)
        except BaseException:  # KeyboardInterrupt too, which may come after the batch is fixed
            with suppress(sqlite3.Error):
                self._count(writer)
            raise
        finally:
            self._busy = False

    def _seal_open(self, writer: sqlite3.Connection) -> None:
        first, last, events, size = self._sealed_through + 1, self.last, self._open_events, self._open_bytes
        writer.execute("INSERT INTO batch VALUES (?, ?, ?, ?, ?)", (last, first, events, size, uuid4().hex))
        self._sealed_through = last
        self._open_events -= events
        self._open_bytes -= size

    def _checkpoint(self) -> None:
        with self._reading() as reader:
            self._writes = 0
            [(_, frames, _)] = reader.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            if frames > _MAX_LOG_FRAMES:
                with self._lock:
                    reader.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    @contextmanager
    def _writing(self, action: str) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                yield self._writer or self._open_writer()
            except _FAILURES as error:
                raise SpoolError(f"cannot {action} the spool {self.path}: {error}") from error

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._background:
            try:
                if self._reader is None:
                    self._reader = self._connect()
                yield self._reader
            except _FAILURES as error:
                raise SpoolError(f"cannot read the spool {self.path}: {error}") from error

    def _open_writer(self) -> sqlite3.Connection:
        self._writer = self._connect()
        return self._writer

    def _connect(self) -> sqlite3.Connection:
        if self._closed:
            raise sqlite3.ProgrammingError("it is closed")
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        try:
            for pragma in (
                "page_size = 1024",  # each event writes at least a page to the log
                "journal_mode = WAL",
                "synchronous = NORMAL",
                "wal_autocheckpoint = 0",  # a checkpoint would delay the caller of `append`
            ):
                connection.execute(f"PRAGMA {pragma}").fetchall()
            connection.executescript(_SCHEMA)
        except BaseException:
            connection.close()
            raise
        return connection

    def _disconnect(self) -> None:
        for connection in (self._reader, self._writer):
            if connection is not None:
                with suppress(sqlite3.Error):
                    connection.close()
        self._reader = self._writer = None


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
