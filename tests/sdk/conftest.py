"""The built browser SDK."""

import pytest

from tests.support import node


@pytest.fixture(scope="session")
def build() -> str:
    """Install the locked packages and build. Return the build's output, which lists the sizes."""
    installed, lock = node.SDK / "node_modules/.package-lock.json", node.SDK / "package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < lock.stat().st_mtime:
        node.run("npm", "ci", "--no-audit", "--no-fund")
        installed.touch()
    return node.run("node", "build.js")
