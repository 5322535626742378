"""The version of the command."""

import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def sluice_version() -> str:
    """Return the installed version, or the clone's."""
    try:
        return version("sluice")
    except PackageNotFoundError:
        project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
        return str(project["version"])
