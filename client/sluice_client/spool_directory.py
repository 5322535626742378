"""The spool files of all processes that send to one endpoint, and which process owns which.

A process owns a spool file while it holds the lock on the lock file beside it. The system releases the lock when the
process ends, however it ends. The next process that starts, or one that is running, takes over what it has left behind.
"""

import fcntl
import logging
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from uuid import uuid4

from sluice_client.errors import SpoolError
from sluice_client.spool_file import Limits, SpoolFile

_DAMAGED = ("malformed", "not a database", "unsupported file format", "no such column", "can't decode")
"""What SQLite, or Python of SQLite's message, says of a damaged file."""

_log = logging.getLogger("sluice_client")


class SpoolDirectory:
    """A directory of spool files.

    Args:
        path: created if it does not exist, readable only by this user.
        limits: limits of each file.

    Raises:
        SpoolError: the directory cannot be created or written.
    """

    def __init__(self, path: Path, limits: Limits) -> None:
        self.path = path
        self._limits = limits
        self._locks: set[int] = set()
        try:
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise SpoolError(
                f"cannot create the spool {path}: {error}; pass another directory as `spool`"
            ) from error
        if not os.access(path, os.W_OK | os.X_OK):
            raise SpoolError(f"cannot write to the spool {path}; pass another directory as `spool`")

    def own(self) -> SpoolFile:
        """Return a spool file for this process: one that no process owns, with the events in it, or a new one.

        Raises:
            SpoolError: the file cannot be created.
        """
        for file in self.orphans():
            return file
        while True:
            path = self.path / f"{uuid4().hex}.lock"
            try:
                lock = _lock(path, os.O_CREAT)
            except OSError as error:
                raise SpoolError(f"cannot write to the spool {self.path}: {error}") from error
            if lock is not None:
                return self._open(path, lock)

    def orphans(self) -> Iterator[SpoolFile]:
        """Take over the files that no process owns, one at a time, and yield each."""
        for database in self.path.glob("*.sqlite"):
            path = database.with_suffix(".lock")
            if not path.exists() and not _is_open(database):  # somebody has deleted it
                with suppress(OSError):  # the disk is full: later
                    path.touch(0o600)
        for path in sorted(self.path.glob("*.lock")):
            lock = None
            with suppress(OSError):  # its owner has just deleted it
                lock = _lock(path)
            if lock is None:
                continue
            try:
                yield self._open(path, lock)
            except SpoolError as error:
                if any(sign in str(error) for sign in _DAMAGED):
                    self._put_away(path, error)

    def abandon(self) -> None:
        """Release all files in a forked child: they belong to its parent."""
        for lock in self._locks:
            os.close(lock)  # the parent still holds it
        self._locks.clear()

    def _open(self, path: Path, lock: int) -> SpoolFile:
        def release() -> None:
            if not database.exists():
                path.unlink(missing_ok=True)
            self._locks.discard(lock)
            os.close(lock)

        database = path.with_suffix(".sqlite")
        self._locks.add(lock)
        try:
            return SpoolFile(database, self._limits, release)
        except SpoolError:
            release()
            raise

    def _put_away(self, path: Path, error: SpoolError) -> None:
        database = path.with_suffix(".sqlite")
        kept = path.with_suffix(f".corrupt-{int(time.time())}")
        with suppress(OSError):  # another process was faster
            database.rename(kept)
            Path(f"{database}-shm").unlink(missing_ok=True)
            if Path(f"{database}-wal").exists():
                Path(f"{database}-wal").rename(f"{kept}-wal")
            path.unlink(missing_ok=True)
            _log.error("a spool file is corrupt and was kept as %s: %s", kept, error)


def _is_open(database: Path) -> bool:
    """Return whether a process has a database open, or it is gone."""
    try:
        with closing(
            sqlite3.connect(f"{database.absolute().as_uri()}?mode=rw", uri=True, timeout=0)
        ) as alone:
            alone.execute("PRAGMA locking_mode = EXCLUSIVE")
            alone.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError:
        return True
    except sqlite3.DatabaseError:
        return False  # it is damaged
    return False


def _lock(path: Path, flags: int = 0) -> int | None:
    """Lock a file and return its descriptor, None if another process holds the lock or has deleted the file.

    Raises:
        OSError: the file cannot be opened.
    """
    lock = os.open(path, os.O_RDWR | os.O_CLOEXEC | flags, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(lock), path.stat()):
            return lock
    except OSError:
        pass
    os.close(lock)
    return None
