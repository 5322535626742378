"""One process of the local stack, as seen by the process that starts it."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ops.background import within
from shared.errors import SluiceError

_LOG_LINES = 12
_REVIVE_SECONDS = 1.0


class PartError(SluiceError):
    """A part did not become ready, or exited. The message gives its name, the reason and the end of its log."""


class Part:
    """A Python module that runs as a separate process and reports through a `local.parent_watch.ParentWatch`.

    Attributes:
        name: shown to people.
        log: its log.
        restarts: how often it was restarted.
        ended: how it last ended, as text; empty if it never did.
    """

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        folder: Path,
        *,
        port: int | None = None,
    ) -> None:
        """Start the process.

        Args:
            name: shown to people.
            arguments: the module, as for `python -m`, and its arguments.
            environment: its complete environment.
            folder: where to write its log, `<name>.log`.
            port: passed on as `--port`; 0 is any free port, which the part reports and keeps when it restarts.
        """
        self.name = name
        self.log = folder / f"{name}.log"
        self.restarts = 0
        self.ended = ""
        self._arguments = arguments
        self._environment = dict(environment)
        self._port = port
        self._paused_until = 0.0
        self._started = 0.0
        self._process = self._launch("wb")

    def _launch(self, mode: str) -> subprocess.Popen[bytes]:
        self._started = time.monotonic()
        port = [] if self._port is None else ["--port", str(self._port)]
        with self.log.open(mode) as log:
            return subprocess.Popen(  # noqa: S603 -- our own modules
                [sys.executable, "-m", *self._arguments, *port],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=self._environment,
                cwd=Path(__file__).parents[1],
                start_new_session=True,
            )

    def revive(self) -> str:
        """Restart the part if it has exited and is not paused. Return how it ended; empty if it was not restarted.

        A part that exits right after its start is restarted a moment later.
        """
        now = time.monotonic()
        if self.running or now < max(self._paused_until, self._started + _REVIVE_SECONDS):
            return ""
        self.ended = self._ending(0)
        self._close()
        self.restarts += 1
        self._process = self._launch("ab")
        return self.ended

    def pause(self, seconds: float) -> None:
        """Kill the process. `revive` restarts it after that many seconds."""
        self._paused_until = time.monotonic() + seconds
        self.kill()

    def kill(self) -> None:
        """Kill the process and its children with SIGKILL, and wait until it has ended."""
        process = self._process  # another thread may revive the part in between
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # each part leads its own session
        process.wait()

    @property
    def is_paused(self) -> bool:
        """Whether it is paused and will be restarted."""
        return not self.running and time.monotonic() < self._paused_until

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
        out = self._process.stdout
        line = None if out is None else within(seconds, out.readline)
        if not line or not line.endswith(b"\n"):
            state = (
                f"exited {self._ending(1)} before it was ready"
                if self._exited(1)
                else f"is not ready after {seconds:g} s"
            )
            raise PartError(f"{self.name} {state}{self._log_end()}")
        facts: dict[str, Any] = json.loads(line)
        if self._port is not None:
            self._port = facts.get("port", self._port)
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
        """Wait for the process to exit, and kill it and its children after that many seconds."""
        if not self._exited(seconds):
            self.kill()
        self._close()

    def _close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                pipe.close()

    def tail(self, lines: int = _LOG_LINES) -> list[str]:
        """Return the last lines of the log."""
        return self.log.read_text(errors="replace").splitlines()[-lines:]

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


def listens(process: "subprocess.Popen[bytes]", port: int, seconds: float) -> bool:
    """Wait until a process listens on a port of this machine. Return False if it exits first or the time is up."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.01)
        else:
            return process.poll() is None  # otherwise another process listens there
    return False
