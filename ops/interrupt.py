"""Sees that Ctrl-C is not lost: Python drops an exception that is raised in a destructor or a callback of native code."""

import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Timer, main_thread

_AGAIN_SECONDS = 0.05


@contextmanager
def raised_again() -> Iterator[None]:
    """Interrupt the main thread again, with a real signal that ends its waiting too, where Python has dropped a KeyboardInterrupt.

    Whatever the interrupted code had at hand is destroyed, and what fails in that is not reported.
    """
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
    except KeyboardInterrupt as interrupt:
        sys.unraisablehook = lambda _: None  # what was interrupted half made may not know how to end
        traceback.clear_frames(interrupt.__traceback__)
        raise
    finally:
        sys.unraisablehook = before
