"""Starts the `sluice` command. To import it takes a second, in which Ctrl-C ends it without a traceback, too."""

import os
import signal
import sys
from contextlib import suppress
from importlib import import_module
from io import TextIOWrapper
from pathlib import Path


def main() -> None:
    """Run the command."""
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))  # INTERRUPTED, which is not imported yet
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as standard error
    if not sys.stdin:  # closed
        sys.stdin = Path(os.devnull).open()  # noqa: SIM115 -- until the process ends
    cli = import_module("ops.cli")
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        cli.main(prog_name="sluice")
    except SystemExit as ended:
        with suppress(OSError):  # of which Python tells as it ends
            sys.stdout.flush()
            # Python would wait for threads. What they still ask AWS for, nobody needs any more.
            os._exit(ended.code if isinstance(ended.code, int) else 0)
        raise


if __name__ == "__main__":
    main()
