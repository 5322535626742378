"""Failures of `setup`, `deploy`, `doctor` and `status` name a command or a page that helps."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from ops.cli import main
from ops.help_page import DEPLOYING, TROUBLESHOOTING, with_page
from ops.state import finding
from ops.state.finding import NO_ACTION, Finding, fault
from tests.support.sam import ROOT


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", sorted({*finding._PAGES.values(), DEPLOYING, TROUBLESHOOTING}))
def test_each_page_exists(page: str) -> None:
    """A message never names a section that is not there."""
    file, _, fragment = page.partition("#")

    assert fragment in anchors(ROOT / file)


@given(st.text(min_size=1), st.text(min_size=1))
def test_each_fault_names_a_command_or_a_page(what: str, said: str) -> None:
    """This holds whatever the check found."""
    line = fault(what, said).line

    assert "`" in line or "docs/" in line


def test_a_message_that_names_a_command_stays_as_it_is() -> None:
    """The command is what to do, so no page is added."""
    assert "run `sluice status`" == with_page("run `sluice status`", TROUBLESHOOTING)
    assert f"It broke. See {TROUBLESHOOTING}." == with_page("It broke", TROUBLESHOOTING)


@pytest.mark.parametrize("state", ["ok", "fault", "holding", "waiting"])
def test_a_verdict_names_a_command_or_a_page_unless_nothing_has_to_be_done(state: str) -> None:
    """A healthy stack needs none, and neither does one that recovers on its own."""
    slow = Finding("stream", "it is slow", state=state)
    resting = Finding("stream", "it is slow", NO_ACTION, state)

    assert (state != "ok") == ("docs/" in slow.verdict)
    assert "docs/" not in resting.verdict


@pytest.mark.parametrize("command", ["setup", "deploy", "doctor", "status"])
def test_each_command_s_failure_names_a_command_or_a_page(command: str) -> None:
    """A region that is empty, although there are credentials, is one."""
    environment = {
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "",
        "AWS_DEFAULT_REGION": "",
    }
    result = CliRunner(mix_stderr=False).invoke(main, [command, "--stack", "sluice-dev"], env=environment)

    assert 1 == result.exit_code, f"{result.output}{result.stderr}"
    assert "no region" in result.stderr
    assert "`" in result.stderr or "docs/" in result.stderr
