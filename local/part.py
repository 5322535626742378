"""One process of the local stack, as seen by the process that starts it."""

import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shared.errors import SluiceError

_LOG_LINES = 12


class PartError(SluiceError):
    """A part did not become ready, or exited. The message gives its name, the reason and the end of its log."""


class Part:
    """A Python module that runs as a separate process and reports through a `local.parent_watch.ParentWatch`."""

    def __init__(
        self, name: str, arguments: Sequence[str], environment: Mapping[str, str], folder: Path
    ) -> None:
        """Start the process.

        Args:
            name: shown to people.
            arguments: the module, as for `python -m`, and its arguments.
            environment: its complete environment.
            folder: where to write its log, `<name>.log`.
        """
        self.name = name
        self.log = folder / f"{name}.log"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 -- our own modules
                [sys.executable, "-m", *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=dict(environment),
                cwd=Path(__file__).parents[1],
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process is running."""
        return self._process.poll() is None

    def ready(self, seconds: float) -> dict[str, Any]:
        """Wait until the part is ready, and return the facts that it reports.

        Raises:
            PartError: it exited, or is not ready after that many seconds.
        """
        line = self._line(time.monotonic() + seconds)
        if not line.endswith(b"\n"):
            state = (
                f"exited {self._ending(1)} before it was ready"
                if self._exited(1)
                else f"is not ready after {seconds:g} s"
            )
            raise PartError(f"{self.name} {state}{self._log_end()}")
        facts: dict[str, Any] = json.loads(line)
        return facts

    def check(self) -> None:
        """Return if the process is still running.

        Raises:
            PartError: it exited.
        """
        if self._exited(0):
            raise PartError(f"{self.name} exited {self._ending(0)}{self._log_end()}")

    def stop(self) -> None:
        """Ask the process to exit. Call `wait` afterwards."""
        if self._process.poll() is None:
            self._process.terminate()
        if self._process.stdin:
            self._process.stdin.close()

    def wait(self, seconds: float) -> None:
        """Wait for the process to exit, and kill it after that many seconds."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()

    def tail(self, lines: int = _LOG_LINES) -> list[str]:
        """Return the last lines of the log."""
        return self.log.read_text(errors="replace").splitlines()[-lines:]

    def _line(self, deadline: float) -> bytes:
        line, out = b"", self._process.stdout
        if out is None:
            return line
        with selectors.DefaultSelector() as selector:
            selector.register(out, selectors.EVENT_READ)
            while not line.endswith(b"\n") and selector.select(max(0.0, deadline - time.monotonic())):
                piece = os.read(out.fileno(), 65536)
                if not piece:
                    break
                line += piece
        return line

    def _exited(self, seconds: float) -> bool:
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _ending(self, seconds: float) -> str:
        status = self._process.wait(seconds)
        return f"with status {status}" if status >= 0 else f"on signal {-status}"

    def _log_end(self) -> str:
        lines = self.tail()
        return (
            "; its log ends:\n" + "\n".join(f"  {line}" for line in lines) if lines else "; its log is empty"
        )
