"""Space on the disk that is kept for the moment when the disk is full."""

import os
from contextlib import suppress
from pathlib import Path

RESERVE_BYTES = 64 * 1024


class Reserve:
    """A file that takes up space until it is needed.

    Args:
        path: the file. One that an earlier process has left is used.

    Attributes:
        is_held: whether the space is reserved.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.is_held = path.exists() and path.stat().st_size == RESERVE_BYTES

    def hold(self) -> bool:
        """Reserve the space unless it is reserved; return whether it is."""
        if not self.is_held:
            try:
                self._path.write_bytes(os.urandom(RESERVE_BYTES))  # a file system might compress zeros
                self.is_held = True
            except OSError:
                self.release()
        return self.is_held

    def release(self) -> bool:
        """Give the space back; return whether there was any."""
        was_held, self.is_held = self.is_held, False
        with suppress(OSError):
            self._path.unlink(missing_ok=True)
        return was_held
