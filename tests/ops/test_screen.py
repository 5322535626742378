"""Output in a pipe or to a full disk, and answers from a pipe."""

import io
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import click
import pytest

from doubles.clock import ManualClock
from ops import screen
from ops.cli import main
from ops.failure import Failure
from tests.support.sluice import until


def test_progress_in_a_pipe_is_a_line_every_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A log shows that a long command is alive, also while nothing happens. Hidden progress, as of JSON output for scripts, prints nothing."""
    clock, said = ManualClock(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", said)
    monkeypatch.setattr(screen, "time", SimpleNamespace(monotonic=clock.now))
    assert 10.0 == screen._LINE_SECONDS
    monkeypatch.setattr(screen, "_LINE_SECONDS", 0.001)
    with screen.progress("hidden", hidden=True) as show:
        show(description="hidden", completed=5)
    with screen.progress("sending", hidden=False, unit="rows") as show:
        clock.sleep(70)
        until(lambda: said.getvalue().count("sending: 0 rows, after 1 min 10 s\n") > 1)
        show(description="still sending", completed=10_000)
        until(lambda: "still sending: 10,000 rows, after 1 min 10 s\n" in said.getvalue())

    assert "hidden" not in said.getvalue()


def test_a_secret_can_be_piped(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody types it, so nothing warns that it is seen. An empty answer is none."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("secret\n"))
    answer = screen.ask("Key", "`--file` gives it", yes=False, hidden=True)

    assert ("secret", "Key: ") == (answer, capsys.readouterr().err)
    with pytest.raises(Failure, match=r"there was no answer to: Key\. `--file` gives it"):
        screen.ask("Key", "`--file` gives it", yes=False, hidden=True)


@pytest.mark.parametrize("is_terminal", [True, False])
def test_what_is_printed_beside_a_progress_bar_has_lines_of_its_own(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *, is_terminal: bool
) -> None:
    """On a terminal they appear above the bar; in a pipe they stay in the pipe."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: is_terminal)
    with screen.progress("searching", hidden=False):
        screen.say("found")
        sys.stdout.write("more\n")
    out, err = capsys.readouterr()

    assert ("" if is_terminal else "found\nmore\n") == out
    assert (is_terminal, is_terminal) == ("\x1b[2Kfound\n" in err, "\x1b[2Kmore\n" in err)


def show(kind: str) -> None:
    """Print something in one way."""
    if kind.startswith("-") or " " in kind:
        with main.make_context("sluice", kind.split()) as context:
            main.invoke(context)
        return
    with screen.explained_output():
        match kind:
            case "table":
                screen.show_table(["sku"], [["kettle"]])
            case style:
                screen.say("kettle", style)


@pytest.mark.parametrize("kind", ["", "red", "table", "--help", "--version", "status --help"])
def test_output_that_nobody_takes_ends_the_command(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """If its reader left, silently and with the code of a tool that SIGPIPE ends; if the disk is full, with one line."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as left, Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", left)
        with pytest.raises(click.exceptions.Exit) as unread:
            show(kind)
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(Failure, match=r"^the output cannot be written: No space left on device$"):
            show(kind)

    assert 141 == unread.value.exit_code


def test_a_short_number_has_three_digits_and_no_exponent() -> None:
    """Also where it is rounded up to the next letter."""
    assert ["0.21", "999", "1 k", "130 k", "1 M", "2.5 G"] == [
        screen.short(number) for number in (0.21, 999.4, 999.6, 129_999, 999_950, 2.5e9)
    ]


def test_a_folder_that_takes_no_files_is_named() -> None:
    """Also one that exists, which a file system may not let anyone write to."""
    with pytest.raises(Failure, match=r"^no file can be written to /proc: .+ Name another folder with --to$"):
        screen.check_folder(Path("/proc"))


def test_a_table_in_a_pipe_has_no_blanks_behind_its_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """It has its full width, however wide that is."""
    name = "k" * 100
    screen.show_table(["sku", "note"], [[name, ""], ["a", "b"]])

    assert [f"sku{' ' * 99}note", name, f"a{' ' * 101}b"] == capsys.readouterr().out.splitlines()
