"""Turns signals into exceptions, so that a command cleans up however it is stopped."""

import signal
import sys
from types import FrameType


def exit_on_signals() -> None:
    """Make SIGTERM and SIGHUP raise an exception, as Ctrl-C does, so that context managers stop what they started.

    This also restores SIGINT, because shells make commands that they start in the background ignore it.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _exit)


def _exit(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)
