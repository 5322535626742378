"""docs/deploying.md is right about creating and deleting a stack."""

import re
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest

from ops.cli import main
from ops.cost.estimate import Setup, Workload, total
from ops.cost.prices import US_EAST_1
from tests.support.modes import Mode
from tests.support.sam import ROOT, template

_PAGE = (ROOT / "docs" / "deploying.md").read_text()


def _section(title: str) -> str:
    return _PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0]


def _commands(section: str) -> list[str]:
    """Return the commands of a section; a command that continues after a backslash is one."""
    blocks = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    return [
        line.strip() for block in blocks for line in block.replace("\\\n", " ").splitlines() if line.strip()
    ]


def test_a_first_deployment_takes_at_most_four_commands() -> None:
    """Each numbered step is one command to copy, with nothing to export."""
    section = _section("First deployment").partition("\n### ")[0]
    steps = re.split(r"^\d+\. ", section, flags=re.MULTILINE)[1:]

    assert len(_commands(section)) <= 4
    assert [1] * len(steps) == [len(_commands(step)) for step in steps]


@pytest.mark.parametrize(
    ("said", "setup"),
    [
        (r"stack without traffic costs about \$(\d+)", {}),
        (r"`Network=external`, about \$(\d+)", {"network": "external"}),
    ],
)
def test_the_page_states_the_cost_of_an_idle_stack(said: str, setup: dict[str, Any]) -> None:
    """The monthly cost in dollars comes before the first command."""
    before = _PAGE.partition("## First deployment")[0]
    found = re.search(said, before)
    cost = total(Workload(1), Setup(**setup), US_EAST_1)

    assert found is not None
    assert round(cost) == int(found[1])


def test_the_pages_sluice_commands_exist() -> None:
    """Every `sluice` command on the page is a command of the CLI."""
    named = set(
        re.findall(
            r"(?:^|&& |/|whl )sluice ([a-z]+(?: (?!-)[a-z]+)?)", "\n".join(_commands(_PAGE)), re.MULTILINE
        )
    )
    known = main.commands

    assert {"accounts apply", "deploy", "doctor", "keys issue", "preflight", "setup"} <= named
    assert [] == [
        name
        for name in named
        for word, *rest in [name.split()]
        if word not in known or (isinstance(known[word], click.Group) and rest[0] not in known[word].commands)
    ]


def test_the_sluice_command_runs_from_any_folder(tmp_path: Path) -> None:
    """The page puts `bin/sluice` on the PATH, so it must find its repository."""
    done = subprocess.run(
        [str(ROOT / "bin" / "sluice"), "--help"], cwd=tmp_path, check=True, capture_output=True, text=True
    )

    assert "preflight" in done.stdout


def test_every_likely_failure_has_commands() -> None:
    """Each failure has a heading that people search for, and a command to run."""
    parts = re.split(r"^### ", _section("When a deploy fails"), flags=re.MULTILINE)[1:]
    titles = {part.partition("\n")[0] for part in parts}

    assert {
        "ROLLBACK_COMPLETE",
        "UPDATE_ROLLBACK_FAILED",
        "CloudFront verification",
        "Public endpoints",
        "Quotas",
        "DNS",
    } <= titles
    without = {part.partition("\n")[0] for part in parts if "```sh" not in part}
    assert {
        "CloudFront verification",
        "Treasure Data",
    } >= without  # a parameter, and a command of another section


def test_the_page_removes_a_stack_with_one_command() -> None:
    """The command works in every stage; another test checks that it deletes all that prod retains."""
    assert ["sluice remove --stack sluice-dev"] == _commands(_section("Removing a stack"))


def test_the_page_states_what_the_alarms_cost() -> None:
    """AWS charges for each metric that an alarm reads."""
    said = re.search(r"The alarms\s+read (\d+) metrics, which cost \$([\d.]+) a month", _PAGE)

    assert said is not None
    assert (Setup().alarms, Setup().alarms * US_EAST_1["alarms"]) == (
        int(said[1]),
        pytest.approx(float(said[2])),
    )


def test_other_stages_retain_only_versions() -> None:
    """Everything that costs money is deleted with the stack."""
    kept = {
        name
        for name, resource in Mode({"Stage": "stg"}).resources().items()
        if resource.get("DeletionPolicy", "Delete") != "Delete"
    }
    assert [] == [name for name in kept if not name.startswith("IngestFunctionVersion")]


def test_the_pages_parameters_exist() -> None:
    """Each parameter that the page sets is in the template."""
    set_there = set(re.findall(r"`?\b([A-Z][A-Za-z]+)=", _PAGE)) - {
        "STACK",
        "PATH",
        "OutputKey",
    }

    assert set_there <= template()["Parameters"].keys()
