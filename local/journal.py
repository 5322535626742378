"""A log of the requests that a part of the local stack has executed, so that its state survives a crash.

Each request that changes something is appended, with the time of its execution, before it is answered. A part that restarts
executes the log again, in the same order and at the same times, and so has the same state. A request that is not in the log was
not answered either.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import msgpack

from doubles.http_server import Request


class RecordedClock:
    """The machine's clock, which is stopped while a request is executed.

    Attributes:
        at: the time at which it is stopped, UNIX seconds; None if it runs.
    """

    def __init__(self) -> None:
        self.at: float | None = None

    def now(self) -> float:
        """Return UNIX seconds."""
        return time.time() if self.at is None else self.at

    def sleep(self, seconds: float) -> None:
        """Wait. The interface of clocks requires this; no request waits."""
        time.sleep(seconds)


class Journal:
    """A file of requests.

    Args:
        path: the file, which need not exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = -1

    def requests(self) -> Iterator[tuple[float, Request]]:
        """Yield the requests in the file, each with its time. An incomplete end, left by a kill, is cut off.

        Exhaust this before you call `append`.
        """
        complete = 0
        if self._path.exists():
            with self._path.open("rb") as file:
                unpacker = msgpack.Unpacker(file, max_buffer_size=0)
                try:
                    for at, method, target, headers, body in unpacker:
                        yield at, Request(method, target, tuple(map(tuple, headers)), body)
                        complete = unpacker.tell()
                except (ValueError, msgpack.exceptions.UnpackException):
                    pass
            os.truncate(self._path, complete)
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def append(self, at: float, request: Request) -> None:
        """Append a request that was executed at a time. Once this returns, the request survives a kill of the process."""
        os.write(
            self._file, msgpack.packb((at, request.method, request.target, request.headers, request.body))
        )
