"""The browser SDK's own checks, which are JavaScript: its build, its types, its tests."""

import pytest

from tests.support.node import SDK, in_turn, needed, run

pytestmark = [needed, in_turn, pytest.mark.usefixtures("build")]


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
    names = ("delivery", "commands", "privacy", "hostile", "chaos", "debug", "package")
    run("node", "--test", *(f"test/{name}.test.js" for name in names))


def test_real_browsers() -> None:
    """In real browsers, against the real ingest, no trouble loses or doubles an event."""
    run("node", "--test", "--test-concurrency=2", "test/chromium.test.js", "test/firefox.test.js")
