"""Runs the browser SDK's own JavaScript checks: its build, types and tests."""

import pytest

from tests.support.tools import SDK, in_turn, needs_node, run

pytestmark = [needs_node, in_turn, pytest.mark.usefixtures("build")]


def test_the_build_is_small_and_reproducible(build: str) -> None:
    """After gzip -9 the whole script has at most 4,000 bytes and the core 2,500. The same bytes keep integrity hashes valid."""
    first = (SDK / "dist/manifest.json").read_bytes()
    run("node", "build.js")

    assert first == (SDK / "dist/manifest.json").read_bytes()
    assert ("4000 allowed" in build, "2500 allowed" in build) == (True, True)


def test_the_sources_and_the_published_types_agree() -> None:
    """The TypeScript compiler accepts both under `strict`, and holds a page to the tables and columns that its site declares."""
    run("npm", "run", "--silent", "types")


def test_the_built_scripts_pass_their_node_tests() -> None:
    """The tests cover delivery, commands, privacy, hostile pages, seeded visits, debugging and the package."""
    names = ("delivery", "commands", "privacy", "hostile", "chaos", "debug", "package")
    run("node", "--test", *(f"test/{name}.test.js" for name in names))


def test_real_browsers_neither_lose_nor_duplicate_events() -> None:
    """The tests run Chromium and Firefox against the real ingest, with failures."""
    run("node", "--test", "--test-concurrency=2", "test/chromium.test.js", "test/firefox.test.js")
