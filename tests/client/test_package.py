"""The client's package as it is published."""

import ast
import sys
import tomllib
from pathlib import Path

import sluice_client

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "client/pyproject.toml").read_text())["project"]


def test_the_version_and_the_license_match_the_repository() -> None:
    """The package's version equals the one that the client sends, and it contains the repository's license."""
    assert PROJECT["version"] == sluice_client.__version__
    assert (ROOT / "LICENSE").read_text() == (ROOT / "client/LICENSE").read_text()


def test_only_the_standard_library_is_imported() -> None:
    """The package has no dependencies."""
    imported = set()
    for path in (ROOT / "client/sluice_client").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {name.name.partition(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add((node.module or "").partition(".")[0])

    assert ([], {"sluice_client"}) == (PROJECT["dependencies"], imported - sys.stdlib_module_names)
