"""docs/deploying.md is right about creating and deleting a stack."""

import re
import subprocess
from pathlib import Path

import click

from ops.cli import main
from ops.cost.estimate import Setup, Workload, total
from ops.cost.prices import US_EAST_1
from tests.support.sam import ROOT, template

_PAGE = (ROOT / "docs" / "deploying.md").read_text()


def _commands(section: str) -> list[str]:
    """Return the commands of a section; a command that continues after a backslash is one."""
    blocks = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip()]


def test_a_first_deployment_takes_at_most_four_commands() -> None:
    """Each numbered step is one command to copy, with nothing to export."""
    section = _PAGE.partition("## First deployment\n")[2].partition("\n### ")[0]
    steps = re.split(r"^\d+\. ", section, flags=re.MULTILINE)[1:]

    assert len(_commands(section)) <= 4
    assert [1] * len(steps) == [len(_commands(step)) for step in steps]


def test_the_page_states_what_an_idle_stack_and_the_alarms_cost() -> None:
    """The monthly cost in dollars comes before the first command."""
    before = _PAGE.partition("## First deployment")[0]
    said = r"without traffic costs about \$(\d+) .* with `Network=external`, about \$(\d+)"
    (idle,) = re.findall(said, before)
    (alarms,) = re.findall(r"The alarms\s+read (\d+) metrics, which cost \$(\d+\.\d\d) a month", _PAGE)
    costs = [total(Workload(1), Setup(network=name), US_EAST_1) for name in ("managed", "external")]

    assert [f"{cost:.0f}" for cost in costs] == [*idle]
    assert (str(Setup().alarms), f"{Setup().alarms * US_EAST_1['alarms']:.2f}") == alarms


def test_the_pages_commands_and_parameters_exist() -> None:
    """Every `sluice` command on the page is a command of the CLI, and each parameter that it sets is in the template."""
    text, known = "\n".join(_commands(_PAGE)), main.commands
    pattern = r"(?:^|&& |/|whl )sluice ([a-z]+(?: (?!-)[a-z]+)?)"
    named = set(re.findall(pattern, text, re.MULTILINE))
    parameters = set(re.findall(r"`?\b([A-Z][A-Za-z]+)=", _PAGE)) - {"STACK", "PATH", "OutputKey"}

    assert {"accounts apply", "deploy", "doctor", "keys issue", "preflight", "remove", "setup"} <= named
    assert [] == [
        name
        for name in named
        for word, *rest in [name.split()]
        if word not in known or (isinstance(known[word], click.Group) and rest[0] not in known[word].commands)
    ]
    assert parameters <= template()["Parameters"].keys()


def test_the_sluice_command_runs_from_any_folder(tmp_path: Path) -> None:
    """The page puts `bin/sluice` on the PATH, so it must find its repository, also through links."""
    (tmp_path / "one").symlink_to(ROOT / "bin" / "sluice")
    (tmp_path / "other").symlink_to("one")
    command = [str(tmp_path / "other"), "--help"]
    done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)

    assert "preflight" in done.stdout
