"""The built browser SDK."""

import pytest

from tests.support import tools


@pytest.fixture(scope="session")
def build() -> str:
    """Install the locked packages and build. Return the build's output, which lists the sizes."""
    installed, lock = tools.SDK / "node_modules/.package-lock.json", tools.SDK / "package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < lock.stat().st_mtime:
        tools.run("npm", "ci", "--no-audit", "--no-fund")
        installed.touch()
    return tools.run("node", "build.js")
