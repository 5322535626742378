"""Sees that Ctrl-C ends a command, whatever the main thread does at that moment.

Python runs a signal's handler between two of its own instructions, and drops what the handler raises in a destructor or in a callback
of native code. A signal that comes just before the main thread begins to wait in the operating system is heard only when that wait
ends, which for an HTTP answer may take minutes.
"""

import signal
import socket
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread, current_thread, main_thread
from types import FrameType
from typing import cast

_UNHEARD_SECONDS = 0.05


@contextmanager
def interruptible(*also: signal.Signals) -> Iterator[None]:
    """Let Ctrl-C raise KeyboardInterrupt in the block, sent again until its handler has run and Python has not dropped the exception.

    Whatever the interrupted code had at hand is destroyed, and what fails in that is not reported. Outside the main thread, and where
    who started the command has SIGINT ignored, nothing is changed.

    Args:
        also: what else interrupts as Ctrl-C does. If anything does, then Ctrl-C does too where it was ignored.
    """
    is_ours = also or signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not is_ours or current_thread() is not main_thread():
        yield
        return
    hook = sys.unraisablehook
    interrupt = _Interrupt(hook)
    handlers = {number: signal.signal(number, interrupt.handle) for number in (signal.SIGINT, *also)}
    waked = signal.set_wakeup_fd(interrupt.fileno(), warn_on_full_buffer=False)
    sys.unraisablehook = interrupt.report
    try:
        yield
    except KeyboardInterrupt as interrupted:
        sys.unraisablehook = lambda _: None  # what was interrupted half made may not know how to end
        traceback.clear_frames(interrupted.__traceback__)
        raise
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(waked)
        sys.unraisablehook = hook
        interrupt.close()


class _Interrupt:
    """Raises KeyboardInterrupt in the main thread; a thread of its own sees that this is heard.

    Args:
        hook: reports what else Python drops.
    """

    def __init__(self, hook: "Callable[[sys.UnraisableHookArgs], object]") -> None:
        self._hook = hook
        self._heard = False
        self._ended = Event()
        self._received, self._sent = socket.socketpair()
        self._sent.setblocking(False)  # noqa: FBT003 -- it takes no keyword
        self._thread = Thread(target=self._repeat, name="interrupt", daemon=True)
        self._thread.start()

    def fileno(self) -> int:
        """Return where Python writes a signal's number as soon as it comes, also while the main thread waits."""
        return self._sent.fileno()

    def handle(self, _number: int, _frame: FrameType | None) -> None:
        """Interrupt the main thread."""
        self._heard = True
        raise KeyboardInterrupt

    def report(self, dropped: "sys.UnraisableHookArgs") -> None:
        """Report what Python drops; if that is the KeyboardInterrupt, raise it again."""
        if issubclass(dropped.exc_type, KeyboardInterrupt):
            self._heard = False
            self._sent.send(bytes([signal.SIGINT]))
        else:
            self._hook(dropped)

    def close(self) -> None:
        """Repeat nothing any more."""
        self._ended.set()
        self._sent.close()
        self._thread.join()
        self._received.close()

    def _repeat(self) -> None:
        main = cast("int", main_thread().ident)
        while numbers := self._received.recv(64):
            while self._is_unheard(numbers):
                signal.pthread_kill(main, signal.SIGINT)

    def _is_unheard(self, numbers: bytes) -> bool:
        if not any(signal.getsignal(number) == self.handle for number in numbers):
            return False  # another handler's
        return not self._ended.wait(_UNHEARD_SECONDS) and not self._heard
