"""Wakes a thread that waits with a timeout."""

import os
import select


class Bell:
    """Wakes one thread; any thread may ring it.

    The timeout does not depend on the system's clock. Before Python 3.11, the timeouts of Python's own locks do.
    """

    def __init__(self) -> None:
        self._out, self._in = os.pipe()
        os.set_blocking(self._out, False)
        os.set_blocking(self._in, False)
        self._poll = select.poll()
        self._poll.register(self._out, select.POLLIN)

    def ring(self) -> None:
        """Wake the thread. If it is not waiting, its next wait ends at once."""
        try:
            os.write(self._in, b"!")
        except OSError:  # it has been rung thousands of times, or is closed
            return

    def wait(self, seconds: float) -> None:
        """Wait for a ring, at most this long."""
        if self._poll.poll(max(0.0, seconds) * 1000):
            os.read(self._out, 65536)

    def __del__(self) -> None:
        os.close(self._out)
        os.close(self._in)
