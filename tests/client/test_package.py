"""The client's package as it is published."""

import tomllib
from pathlib import Path

import sluice_client

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "client/pyproject.toml").read_text())["project"]


def test_the_project_says_what_the_package_is() -> None:
    """Its version is the one that the client sends, its license the repository's, and it has no dependencies."""
    assert (sluice_client.__version__, []) == (PROJECT["version"], PROJECT["dependencies"])
    assert (ROOT / "LICENSE").read_text() == (ROOT / "client/LICENSE").read_text()
