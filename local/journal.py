"""What a part of the local stack has carried out, kept in a file so that it survives the part's death.

Each request that changed something is appended before it is answered, with the time at which it was carried out. A part
that starts again carries them out again, at the same times and in the same order, and so has the same state. What was not
appended was not answered either.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import msgpack

from doubles.http_server import Request


class RecordedClock:
    """The machine's clock, which stands still while a request is carried out.

    Attributes:
        at: UNIX seconds at which it stands still; None if it does not.
    """

    def __init__(self) -> None:
        self.at: float | None = None

    def now(self) -> float:
        """Return UNIX seconds."""
        return time.time() if self.at is None else self.at

    def sleep(self, seconds: float) -> None:
        """Wait, for the interface of clocks; nothing that is carried out waits."""
        time.sleep(seconds)


class Journal:
    """A file of requests.

    Args:
        path: of the file; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = -1

    def requests(self) -> Iterator[tuple[float, Request]]:
        """Yield what the file has, each with its time; an incomplete end, of a part that was killed, is cut off.

        Call it to its end before `append`.
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
        """Keep a request that was carried out at a time. The process may be killed as soon as this returns."""
        os.write(
            self._file, msgpack.packb((at, request.method, request.target, request.headers, request.body))
        )
