"""Failures of `setup`, `deploy`, `doctor` and `status` name a command or a page that helps."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from ops.cli import main
from ops.diagnosis import check_result
from ops.diagnosis.check_result import fault
from ops.help_page import DEPLOYING, TROUBLESHOOTING, with_page
from ops.state.verdict import Health, Verdict
from tests.support.sam import ROOT


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", sorted({*check_result._PAGES.values(), DEPLOYING, TROUBLESHOOTING}))
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


@pytest.mark.parametrize("health", Health)
def test_a_verdict_names_a_command_or_a_page_unless_nothing_has_to_be_done(health: Health) -> None:
    """A healthy stack needs none, and neither does one that recovers on its own."""
    resting = Verdict(health, "it is slow", "No action needed: delivery resumes on its own.").line

    assert (health is not Health.HEALTHY) == ("docs/" in Verdict(health, "it is slow").line)
    assert "docs/" not in resting


@pytest.mark.parametrize("command", ["setup", "deploy", "doctor", "status"])
def test_each_command_s_failure_names_a_command_or_a_page(command: str) -> None:
    """A stack's name that no region can be found for is one."""
    environment = {
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        "AWS_REGION": "",
    }
    environment |= {"AWS_DEFAULT_REGION": ""}
    result = CliRunner(mix_stderr=False).invoke(main, [command, "--stack", "sluice-dev"], env=environment)

    assert 1 == result.exit_code, f"{result.output}{result.stderr}"
    assert "`" in result.stderr or "docs/" in result.stderr
