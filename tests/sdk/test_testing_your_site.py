"""The examples in docs/testing-your-site.md, run as readers would run them."""

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.accounts import KEYS
from local.outages import Outages
from local.record import BROWSER_ARGUMENTS
from local.stack import LocalStack
from local.up import page_of
from local.website import Website
from ops.console.server import Server
from tests.support import chromium, tools
from tests.support.sam import ROOT

pytestmark = [tools.in_turn, tools.needs_node]

PAGE = (ROOT / "docs/testing-your-site.md").read_text()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a running local stack's page."""
    with LocalStack(tmp_path_factory.mktemp("site") / "stack") as stack:
        site = Website(stack.addresses.gateway, KEYS)
        with Server(page_of(stack, site, Outages(stack))) as server:
            yield server.url


def example(name: str, **instead: str) -> str:
    """Return an example's text with some expressions replaced."""
    found = re.search(rf"<!-- example: {re.escape(name)} -->\n\n```\w+\n(.*?)```", PAGE, re.DOTALL)
    assert found
    text = found[1]
    for before, after in instead.items():
        assert before in text
        text = text.replace(before, after)
    return text


def run(page: str, folder: Path, *command: str) -> None:
    """Run a command in a folder, with the variables that the page names."""
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    tools.run(*command, folder=folder, environment=environment | {"SLUICE": page, "SITE": f"{page}/site"})


def test_the_puppeteer_example_passes(page: str, tmp_path: Path, build: str) -> None:
    """It runs on the demo site."""
    assert build
    executable = chromium.path()
    launch = f"puppeteer.launch({{ executablePath: '{executable}', args: {list(BROWSER_ARGUMENTS)} }})"
    text = example("events.test.mjs", **{"'puppeteer'": "'puppeteer-core'", "puppeteer.launch()": launch})
    (tmp_path / "events.test.mjs").write_text(text)
    (tmp_path / "node_modules").symlink_to(tools.SDK / "node_modules")

    run(page, tmp_path, "node", "--test", "events.test.mjs")


def test_the_pytest_example_passes(page: str, tmp_path: Path) -> None:
    """It runs on the demo site."""
    arguments = f"executable_path={chromium.path()!r}, args={list(BROWSER_ARGUMENTS)}"
    text = example("test_events.py", **{"launch()": f"launch({arguments})"})
    (tmp_path / "test_events.py").write_text(text)
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -p no:cacheprovider\n")

    run(page, tmp_path, sys.executable, "-m", "pytest", "-q", "test_events.py")
