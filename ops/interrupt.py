"""Makes Ctrl-C stop a command reliably, whatever the main thread is doing.

Python runs signal handlers between bytecode instructions, and drops an exception that a handler raises in a destructor or in a
callback of native code. A signal that arrives just before the main thread starts to wait in the operating system is not handled
until the wait ends, which may take minutes for an HTTP response.
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
    """Make Ctrl-C raise KeyboardInterrupt in the block: the signal is repeated until its handler has run and the exception stands.

    After an interrupt, the objects of the interrupted frames are destroyed, and errors in their destructors are not reported. This
    changes nothing outside the main thread, or if SIGINT was ignored when the command started.

    Args:
        also: other signals that interrupt in the same way. If there are any, Ctrl-C interrupts even if it was ignored.
    """
    is_ours = also or signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not is_ours or current_thread() is not main_thread():
        yield
        return
    hook = sys.unraisablehook
    interrupt = _Interrupt(hook)
    handlers = {number: signal.signal(number, interrupt.handle) for number in (signal.SIGINT, *also)}
    wakeup_fd = signal.set_wakeup_fd(interrupt.fileno(), warn_on_full_buffer=False)
    sys.unraisablehook = interrupt.report
    try:
        yield
    except KeyboardInterrupt as interrupted:
        sys.unraisablehook = lambda _: None  # destructors of half-built objects may fail
        traceback.clear_frames(interrupted.__traceback__)
        raise
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup_fd)
        sys.unraisablehook = hook
        interrupt.close()


class _Interrupt:
    """Raises KeyboardInterrupt in the main thread. A second thread repeats the signal until it has been handled.

    Args:
        hook: reports the other exceptions that Python drops.
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
        """Return the file to which Python writes a signal's number on arrival, even while the main thread waits."""
        return self._sent.fileno()

    def handle(self, _number: int, _frame: FrameType | None) -> None:
        """Interrupt the main thread."""
        self._heard = True
        raise KeyboardInterrupt

    def report(self, dropped: "sys.UnraisableHookArgs") -> None:
        """Report an exception that Python dropped; if it is the KeyboardInterrupt, make the thread send the signal again."""
        if issubclass(dropped.exc_type, KeyboardInterrupt):
            self._heard = False
            self._sent.send(bytes([signal.SIGINT]))
        else:
            self._hook(dropped)

    def close(self) -> None:
        """Stop the thread."""
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
