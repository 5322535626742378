"""Turns signals into exceptions, so that a command cleans up however it is stopped."""

import signal
import sys
from types import FrameType


def exit_on_signals() -> None:
    """Exit on SIGTERM and SIGHUP as on Ctrl-C: by an exception, so that context managers stop what they started.

    SIGINT is restored too, because a shell sets it to be ignored in commands that it starts in the background.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _exit)


def _exit(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)
