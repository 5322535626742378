"""Sees that Ctrl-C is not lost: Python drops an exception that is raised in a destructor or a callback of native code."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Timer, main_thread

_AGAIN_SECONDS = 0.05


@contextmanager
def raised_again() -> Iterator[None]:
    """Interrupt the main thread again, with a real signal that ends its waiting too, where Python has dropped a KeyboardInterrupt."""
    before = sys.unraisablehook

    def hook(dropped: "sys.UnraisableHookArgs") -> None:
        if not issubclass(dropped.exc_type, KeyboardInterrupt):
            before(dropped)
            return
        again = Timer(_AGAIN_SECONDS, signal.pthread_kill, (main_thread().ident, signal.SIGINT))
        again.daemon = True
        again.start()

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before
