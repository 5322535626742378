"""A command in a terminal of 80 columns and 24 lines."""

import fcntl
import os
import pty
import struct
import subprocess
import termios
from collections.abc import Callable


def shown(start: Callable[[int], subprocess.Popen[bytes]]) -> tuple[int, bytes, bytes]:
    """Start a command whose standard output is a terminal; return its exit code, and what it wrote there and on standard error."""
    screen, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    running = start(terminal)
    os.close(terminal)
    seen = b""
    try:
        while piece := os.read(screen, 65_536):
            seen += piece
    except OSError:  # raised once the terminal is closed
        os.close(screen)
    _, said = running.communicate(timeout=60)
    return running.returncode, seen, said
