"""Where to find help: `sluice --help` shows what everybody needs first, then the rest by purpose; a failure names a command or a page."""

import re

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from ops.cli import SECTIONS, main
from ops.help_page import TROUBLESHOOTING, with_page
from ops.moment import TimeOption
from ops.state.finding import NO_ACTION, Finding, fault
from tests.support.commands import all_commands
from tests.support.sam import ROOT


def shown() -> list[str]:
    """Return the lines of `sluice --help`."""
    return CliRunner(mix_stderr=False).invoke(main, ["--help"], prog_name="sluice").output.splitlines()


def test_each_command_is_shown_once_by_its_purpose() -> None:
    """No command is missing, and none has two purposes. The first section has the five that everybody needs every day."""
    lines = shown()
    begin = lines.index("Every day:") + 1
    first = [line.split()[0] for line in lines[begin : lines.index("Watch:")] if line[2:3].strip()]

    assert ["status", "doctor", "find", "accounts", "keys"] == first
    assert sorted(main.commands) == sorted(str(one.name) for several in SECTIONS.values() for one in several)
    assert main.list_commands(click.Context(main)) == [
        line.split()[0] for line in lines if line[2:3].strip() and line.split()[0] in main.commands
    ]


@pytest.mark.parametrize("line", ["remove", "certify", "sdk publish"])
def test_what_needs_a_deployed_stack_does_not_offer_the_local_one(line: str) -> None:
    """Neither its help nor its error names --local."""
    runner = CliRunner(env={"SLUICE_STACK": ""})
    helped, unnamed = (runner.invoke(main, words.split()) for words in (f"{line} -h", line))

    assert (0, 2) == (helped.exit_code, unnamed.exit_code)
    assert "--stack NAME" in unnamed.output
    assert "--local" not in helped.output + unnamed.output


def test_descriptions_are_not_cut() -> None:
    """Each description is a whole sentence, on as many lines as it needs, also in groups."""
    text = " ".join(" ".join(shown()).split())
    for command in main.commands.values():
        sentence = " ".join((command.help or "").partition("\n\n")[0].split()).partition(". ")[0]
        assert sentence in text
        if isinstance(command, click.Group):
            listed = CliRunner().invoke(main, [str(command.name), "--help"], prog_name="sluice").output
            assert "..." not in listed.partition("Commands:")[2], command.name


def test_times_in_descriptions_are_accepted() -> None:
    """What an option that takes a time or a duration gives as an example can be typed like that."""
    params = [one for _, command in all_commands() for one in command.params]
    timed = [one for one in params if isinstance(one, click.Option) and isinstance(one.type, TimeOption)]
    examples = [(one, text) for one in timed for text in re.findall(r"such as ([^.]+)\.", one.help or "")]

    assert examples
    for option, text in examples:
        assert isinstance(option.type.convert(text, option, None), float)


def test_each_command_is_in_the_file_of_its_name() -> None:
    """A command's file is named like it, or like its group, and `ops/commands/` has nothing else."""
    expected = {f"{path.split()[0]}.py" for path, _ in all_commands()}

    assert expected | {"__init__.py"} == {path.name for path in (ROOT / "ops/commands").glob("*.py")}


@given(st.text(min_size=1), st.text(min_size=1))
def test_each_fault_names_a_command_or_a_page(what: str, said: str) -> None:
    """This holds whatever the check found. A message that names a command is what to do, so no page is added."""
    line = fault(what, said).line

    assert "`" in line or "docs/" in line
    assert "run `sluice status`" == with_page("run `sluice status`", TROUBLESHOOTING)
    assert f"It broke. See {TROUBLESHOOTING}." == with_page("It broke", TROUBLESHOOTING)


@pytest.mark.parametrize("state", ["ok", "fault", "holding", "waiting"])
def test_a_verdict_names_a_command_or_a_page_unless_nothing_has_to_be_done(state: str) -> None:
    """A healthy stack needs none, and neither does one that recovers on its own."""
    slow = Finding("stream", "it is slow", state=state)
    resting = Finding("stream", "it is slow", NO_ACTION, state)

    assert (state != "ok") == ("docs/" in slow.verdict)
    assert "docs/" not in resting.verdict
