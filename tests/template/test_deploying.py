"""docs/deploying.md is right about creating and deleting a stack."""

import re

from tests.support.modes import Mode
from tests.support.sam import ROOT, template

_PAGE = (ROOT / "docs" / "deploying.md").read_text()
_PROD = Mode({"Stage": "prod"})


def _section(title: str) -> str:
    return _PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0]


def test_the_first_row_is_ten_steps_away_or_fewer() -> None:
    """The steps are numbered, and each has something to copy."""
    steps = re.split(r"^\d+\. ", _section("First deployment"), flags=re.MULTILINE)[1:]

    assert 1 <= len(steps) <= 10
    assert [] == [step for step in steps if "```sh" not in step]


def test_the_page_deletes_everything_prod_retains() -> None:
    """Each retained resource has an output, and the page deletes what it names."""
    kept = {
        name for name, found in _PROD.resources().items() if found.get("DeletionPolicy", "Delete") != "Delete"
    }
    kept = {name for name in kept if not name.startswith("IngestFunctionVersion")}  # goes with its function
    named = {str(output["Value"]): name for name, output in _PROD.outputs().items()}
    values = {str({"Ref": name}): name for name in kept}
    values |= {str({"Fn::GetAtt": [name, "Id"]}): name for name in kept}
    removed = _section("Removing a stack")

    found = {values[value]: output for value, output in named.items() if value in values}
    assert kept == found.keys()
    assert [] == [output for output in found.values() if output not in removed]


def test_other_stages_retain_only_versions() -> None:
    """Everything that costs money is deleted with the stack."""
    kept = {
        name
        for name, resource in Mode({"Stage": "stg"}).resources().items()
        if resource.get("DeletionPolicy", "Delete") != "Delete"
    }
    assert [] == [name for name in kept if not name.startswith("IngestFunctionVersion")]


def test_the_pages_parameters_exist() -> None:
    """Each parameter that the page sets is one of the template's."""
    set_there = set(re.findall(r"`?\b([A-Z][A-Za-z]+)=", _PAGE)) - {
        "KEY",
        "STACK",
        "ARCH",
        "PATH",
        "OutputKey",
    }

    assert set_there <= template()["Parameters"].keys()
