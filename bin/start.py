# ruff: noqa: INP001 -- no package
"""Starts a command of the Makefile: `python bin/start.py MODULE …` calls the module's `main`.

Ctrl-C ends it with one line and status 130, even while it is imported, which takes a second or two. Characters that the output cannot
encode are escaped.
"""

import signal
import sys
from importlib import import_module
from io import TextIOWrapper
from pathlib import Path
from types import FrameType
from typing import NoReturn

_INTERRUPTED = 130
_AGAIN_SECONDS = 0.01


def main() -> int:
    """Call the command, and return the exit status that it does not set itself."""
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGALRM, _interrupt)
    sys.unraisablehook = _swallowed
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as standard error
    sys.path[0] = str(Path(__file__).parents[1])
    try:
        return _call(sys.argv.pop(1))
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # once more ends it without tidying up
        sys.unraisablehook = lambda _: None  # what is torn down half-way would complain
    sys.stdout.write("interrupted\n")
    return _INTERRUPTED


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    if "multiprocessing" in sys.modules:
        for process in sys.modules["multiprocessing"].active_children():
            process.kill()  # else a pool would wait for its jobs
    raise KeyboardInterrupt


def _swallowed(unraisable: "sys.UnraisableHookArgs") -> None:
    if unraisable.exc_type is KeyboardInterrupt:
        # it came in a destructor, where it interrupts nothing: once more
        signal.setitimer(signal.ITIMER_REAL, _AGAIN_SECONDS)
    else:
        sys.__unraisablehook__(unraisable)


def _call(name: str) -> int:
    import click  # noqa: PLC0415 -- takes a while, too

    command = import_module(name).main
    if not isinstance(command, click.Command):
        return command() or 0
    try:
        return command.main(prog_name=f"bin/start.py {name}", standalone_mode=False) or 0
    except click.Abort as error:
        raise KeyboardInterrupt from error  # click makes that of it
    except click.ClickException as error:
        error.show()
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
