"""Which packages may import which."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HOUSE = {
    "shared": set(),
    "ingest": {"shared"},
    "worker": {"shared"},
    "ops": {"shared", "worker"},
    "doubles": {"shared"},
    "local": {"shared", "ingest", "worker", "ops", "doubles"},
}


def imports(path: Path) -> set[str]:
    """Return the top-level packages that a module imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    return found


@pytest.mark.parametrize("package", HOUSE)
def test_packages_import_only_what_they_may(package: str) -> None:
    """A package imports only the packages that CONTRIBUTING.md allows."""
    forbidden = {*HOUSE, "tests", "benchmarks", "chaos"} - HOUSE[package] - {package}

    assert {} == {
        str(path.relative_to(ROOT)): found
        for path in (ROOT / package).rglob("*.py")
        if (found := imports(path) & forbidden)
    }
