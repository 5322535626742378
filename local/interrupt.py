"""Ends a command in order, whoever wants it ended."""

import signal
import sys
from types import FrameType


def exit_on_signals() -> None:
    """Let SIGTERM and SIGHUP unwind the stack as Ctrl-C does, so that context managers end what they started.

    SIGINT is Ctrl-C even where a shell started the command in the background and had it ignored.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _exit)


def _exit(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)
