"""The browser SDK's own checks, which are JavaScript: its build, its types, its tests."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SDK = Path(__file__).parents[2] / "sdk"

pytestmark = [
    pytest.mark.skipif(
        shutil.which("node") is None and not os.environ.get("CI"), reason="Node.js is not installed"
    ),
    pytest.mark.xdist_group("sdk"),  # they share node_modules and the build
]


def run(*command: str) -> str:
    """Return what a command prints in the SDK's folder; fail with it where the command does."""
    done = subprocess.run(command, cwd=SDK, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(f"{' '.join(command)}\n{done.stdout[-20_000:]}\n{done.stderr[-5_000:]}", pytrace=False)
    return done.stdout


@pytest.fixture(scope="module", autouse=True)
def build() -> str:
    """Install what the lock names, build, and return the sizes."""
    installed, lock = SDK / "node_modules/.package-lock.json", SDK / "package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < lock.stat().st_mtime:
        run("npm", "ci", "--no-audit", "--no-fund")
        installed.touch()
    return run("node", "build.js")


def test_the_scripts_are_small(build: str) -> None:
    """The whole script takes at most 4,000 bytes after gzip -9 and the core 2,500; the build prints both."""
    assert "4000 allowed" in build
    assert "2500 allowed" in build


def test_the_build_is_reproducible() -> None:
    """Building again makes the same bytes, so that an integrity hash stays true."""
    first = (SDK / "dist/manifest.json").read_bytes()
    run("node", "build.js")

    assert first == (SDK / "dist/manifest.json").read_bytes()


def test_types() -> None:
    """The sources' types and the published ones agree, under `strict`."""
    run("node_modules/.bin/tsc", "-p", "tsconfig.json")


def test_the_built_scripts() -> None:
    """Node's tests of the built scripts pass: delivery, commands, privacy, harmlessness, seeded visits, package."""
    names = ("delivery", "commands", "privacy", "hostile", "chaos", "package")
    run("node", "--test", *(f"test/{name}.test.js" for name in names))


def test_real_browsers() -> None:
    """In real browsers, against the real ingest, no trouble loses or doubles an event."""
    run("node", "--test", "--test-concurrency=2", "test/chromium.test.js", "test/firefox.test.js")
