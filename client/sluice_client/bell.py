"""Wakes a thread that waits for a limited time."""

import os
import select


class Bell:
    """Rings for one thread, from any.

    The time that it waits does not depend on the system's clock. That of Python's own locks does before Python 3.11.
    """

    def __init__(self) -> None:
        self._out, self._in = os.pipe()
        os.set_blocking(self._out, False)
        os.set_blocking(self._in, False)
        self._poll = select.poll()
        self._poll.register(self._out, select.POLLIN)

    def ring(self) -> None:
        """Wake the thread, or spare it its next wait."""
        try:
            os.write(self._in, b"!")
        except OSError:  # it has been rung thousands of times, or is closed
            return

    def wait(self, seconds: float) -> None:
        """Wait until it rings, at most so long."""
        if self._poll.poll(max(0.0, seconds) * 1000):
            os.read(self._out, 65536)

    def __del__(self) -> None:
        os.close(self._out)
        os.close(self._in)
