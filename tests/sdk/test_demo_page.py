"""The demo page that uses the browser SDK."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page as Tab
from playwright.sync_api import sync_playwright

from doubles.gateway import Gateway
from local.page_server import Beside
from local.record import BROWSER_ARGUMENTS
from local.up import snippet
from local.website import Website
from ops.console.server import Server
from tests.support import chromium
from tests.support.ingest import KEY, Site
from tests.support.tools import in_turn, needs_node

pytestmark = [needs_node, in_turn]

_SECONDS = 60.0


@pytest.fixture
def site() -> Site:
    """A new ingest."""
    return Site()


@pytest.fixture
def tab(build: str, site: Site) -> Iterator[Tab]:
    """The demo page, open in a browser."""
    assert "sluice.js" in build
    executable = chromium.path()
    with Gateway(site.handler) as gateway:
        pages = Website(gateway.url, {}, snippet=snippet(gateway.url, KEY))
        with Server(Beside(pages)) as server, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=executable, args=list(BROWSER_ARGUMENTS))
            tab = browser.new_page()
            tab.goto(f"{server.url}/site/guide.html")
            yield tab
            browser.close()


def told(site: Site, tab: Tab, count: int) -> list[tuple[str, Any]]:
    """Wait for `count` rows. Return the table and the most telling column of each, sorted."""
    for _ in range(round(_SECONDS / 0.05)):
        if len(site.rows()) >= count:
            break
        tab.wait_for_timeout(50)
    telling = {"pageviews": "td_title", "events": "event", "visits_planned": "season"}
    return sorted((table, row[telling[table]]) for table, row in site.rows())


def test_the_page_records_a_visit(site: Site, tab: Tab) -> None:
    """Page views, the time on a page, the map, the form and a planned visit become rows. Typed text does not."""
    tab.click("text=The pond")
    tab.click("text=Open the map")
    tab.click("text=Plan a visit")
    tab.fill("input", "someone@example.com")
    tab.click("text=Send me")

    assert [
        ("events", "leave"),
        ("events", "map_opened"),
        ("events", "submit"),
        ("pageviews", "The gate – Stone & Moss"),
        ("pageviews", "The pond – Stone & Moss"),
        ("visits_planned", "autumn"),
    ] == told(site, tab, 6)
    assert "someone@example.com" not in str(site.rows())


def test_without_a_build_the_page_says_what_to_do(tmp_path: Path) -> None:
    """If `make sdk` was not run, the page names the command and sends nothing."""
    said = snippet("http://127.0.0.1:1", KEY, tmp_path)
    assert re.search("This page cannot send events: .*`make sdk`", said)
