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


def extra(name: str, line: str) -> str:
    """Return how to run a command line with an extra that is not installed."""
    wheel = f"sluice-{sluice_version()}-py3-none-any.whl"
    return f"run `uvx --from '{wheel}[{name}]' {line}` instead, or in a clone `uv tool install '.[{name}]'`"
