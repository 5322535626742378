"""Ties a part of the local stack to the process that started it. The part uses this; `local.part` is the other end.

The part's standard output is a pipe. On it the part reports once, as one line of JSON, that it is ready; after that, its
output goes to standard error, which is its log. Its standard input is a pipe that nobody writes to. The pipe closes
when the parent process ends, however it ends, so no part outlives the stack.
"""

import io
import json
import os
import select
import signal
import sys
import threading
from collections.abc import Callable


class ParentWatch:
    """The two pipes to the parent process. Create it first: it also redirects output and installs signal handlers."""

    def __init__(self) -> None:
        self._ended = threading.Event()
        self._signals, self._signalled = os.pipe()
        self._answer = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(line_buffering=True)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, and it stops the parts
        # Python writes to the pipe as soon as the signal comes; a handler may have to wait until the main thread runs again
        os.set_blocking(self._signalled, False)
        signal.set_wakeup_fd(self._signalled)
        signal.signal(signal.SIGTERM, lambda *_: None)
        threading.Thread(target=self._watch, daemon=True, name="parent watch").start()

    def ready(self, **facts: object) -> None:
        """Report that this part is ready, with the facts that other parts need."""
        self._answer.write(json.dumps(facts) + "\n")
        self._answer.close()

    def wait(self, beat: Callable[[], None] = lambda: None, seconds: float | None = None) -> None:
        """Block until this part must end. With `seconds`, call `beat` at that interval."""
        while not self._ended.wait(seconds):
            beat()

    def _watch(self) -> None:
        select.select([0, self._signals], [], [])  # nobody writes to 0, so readable means closed
        self._ended.set()
