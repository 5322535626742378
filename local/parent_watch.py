"""What ties a part of the local stack to the process that started it, seen from the part.

A part's standard output is a pipe on which it says once, in one line of JSON, that it is ready; what it prints
afterwards goes to standard error, its log. Its standard input is a pipe that nobody writes to: it ends with the
starter, however that ends, so no part outlives the stack.
"""

import io
import json
import os
import select
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType


class ParentWatch:
    """The two pipes to the starter. Make it first: printing and signals are in order from then on."""

    def __init__(self) -> None:
        self._ended = threading.Event()
        self._signals, self._signalled = os.pipe()
        self._answer = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(line_buffering=True)
        signal.signal(
            signal.SIGINT, signal.SIG_IGN
        )  # Ctrl-C is for the starter, which ends the parts in order
        signal.signal(signal.SIGTERM, self._on_signal)
        threading.Thread(target=self._watch, daemon=True, name="parent").start()

    def ready(self, **facts: object) -> None:
        """Say that this part serves now, and what others must know of it."""
        self._answer.write(json.dumps(facts) + "\n")
        self._answer.close()

    def wait(self, beat: Callable[[], None] = lambda: None, seconds: float | None = None) -> None:
        """Return when this part is to end; until then call `beat` every that many seconds."""
        while not self._ended.wait(seconds):
            beat()

    def _watch(self) -> None:
        select.select([0, self._signals], [], [])  # nobody writes to 0: readable is ended
        self._ended.set()

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        os.write(
            self._signalled, b"!"
        )  # setting the event here could wait for its lock, which this thread may hold
