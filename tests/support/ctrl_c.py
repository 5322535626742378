"""Ctrl-C, as a person presses it."""

import signal
import subprocess

_AGAIN_SECONDS = 5


def press[Text: (str, bytes)](running: subprocess.Popen[Text], timeout: float = 60) -> tuple[Text, Text]:
    """Press Ctrl-C, and once more if Python did not hear it, as just before its main thread waits; return what the command has printed."""
    running.send_signal(signal.SIGINT)
    try:
        return running.communicate(timeout=_AGAIN_SECONDS)
    except subprocess.TimeoutExpired:
        running.send_signal(signal.SIGINT)
        return running.communicate(timeout=timeout)
