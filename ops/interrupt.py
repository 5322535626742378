"""Sees that Ctrl-C is not lost: Python drops an exception that is raised in a destructor or a callback of native code."""

import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Timer, current_thread, main_thread
from types import FrameType

_DROPPED_SECONDS = 0.05
_UNHEARD_SECONDS = 3.0


@contextmanager
def raised_again(*also: signal.Signals) -> Iterator[None]:
    """Interrupt the main thread again, with a real signal that ends its waiting too, until a Ctrl-C has ended the block.

    That is at once where Python reports a dropped KeyboardInterrupt, and after three seconds where nobody knows what became of it.
    Whatever the interrupted code had at hand is destroyed, and what fails in that is not reported.

    Args:
        also: what else interrupts as Ctrl-C does. If anything does, then Ctrl-C does too where the shell has it ignored.
    """
    hook = sys.unraisablehook
    timers: list[Timer] = []

    def again(seconds: float) -> None:
        timer = Timer(seconds, signal.pthread_kill, (main_thread().ident, signal.SIGINT))
        timer.daemon = True
        timers.append(timer)
        timer.start()

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        again(_UNHEARD_SECONDS)
        raise KeyboardInterrupt

    def report(dropped: "sys.UnraisableHookArgs") -> None:
        if issubclass(dropped.exc_type, KeyboardInterrupt):
            again(_DROPPED_SECONDS)
        else:
            hook(dropped)

    handlers = {}
    # otherwise the shell, or who calls the command, has decided
    is_ours = also or signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_ours and current_thread() is main_thread():
        handlers = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, *also)}
    sys.unraisablehook = report
    try:
        yield
    except KeyboardInterrupt as interrupted:
        sys.unraisablehook = lambda _: None  # what was interrupted half made may not know how to end
        traceback.clear_frames(interrupted.__traceback__)
        raise
    finally:
        for timer in timers:
            timer.cancel()
        for number, handler in handlers.items():
            signal.signal(number, handler)
        sys.unraisablehook = hook
