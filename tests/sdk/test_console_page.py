"""The console's page and the local stack's page in real browsers: legible, accessible and usable by keyboard."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.console_pages import Pages
from tests.support.tools import SDK, in_turn, lacking, needs_node, package, run

pytestmark = [needs_node, in_turn]

SCRIPT = Path(__file__).parents[1] / "support/console_page.mjs"
BUTTONS = ("Redrive 12,482 rows of news", "Drop 1 row")
PATHS = {
    "chrome": ("/usr/bin/chromium", "/usr/bin/google-chrome"),
    "firefox": ("/usr/bin/firefox-esr", "/usr/bin/firefox"),
}


@pytest.fixture(scope="module", params=["chrome", "firefox"])
def looked(request: pytest.FixtureRequest, build: str) -> tuple[list[dict[str, Any]], Pages]:
    """A browser's findings by page, theme and width."""
    assert build
    if not any(Path(path).exists() for path in PATHS[request.param]):
        lacking(f"{request.param} is not installed")
    pages = Pages()
    with pages.served() as urls:
        axe = package("axe-core/axe.min.js")
        found = run("node", str(SCRIPT), request.param, str(SDK), str(axe), *urls)
    return json.loads(found), pages


def test_both_pages_pass_the_accessibility_check(looked: tuple[list[dict[str, Any]], Pages]) -> None:
    """They pass at 1280 and 390 pixels, light and dark. Nothing is wider than the screen, and no script fails."""
    found, _ = looked

    assert 8 == len({(one["url"], one["isDark"], one["width"]) for one in found})
    assert [] == [problem for one in found for problem in (*one["violations"], *one["errors"])]
    assert [] == [one["overflow"] for one in found if one["overflow"] > 0]


def test_all_controls_are_reachable_by_keyboard(looked: tuple[list[dict[str, Any]], Pages]) -> None:
    """Each filter, event, table and button shows an outline while it has the focus."""
    keyboards = [one["keyboard"] for one in looked[0] if "keyboard" in one]

    assert 2 == len(keyboards)
    for keyboard in keyboards:
        names = " | ".join(keyboard["seen"])
        for name in ("Pause", "Account", "Table", "Containing", "Counts by table", *BUTTONS):
            assert name in names
        assert [] == keyboard["unseen"]


def test_a_drop_must_be_confirmed_with_a_word(looked: tuple[list[dict[str, Any]], Pages]) -> None:
    """Enter alone does nothing, and Escape cancels. The request names exactly the rows that were shown."""
    found, pages = looked
    drops = [one["drop"] for one in found if "drop" in one]
    account = "shop_with_a_rather_long_name"
    expected = {"kind": "dead", "account": account, "reason": "column_limit", "rows": 1}

    safe = {"opened": True, "guarded": True, "escaped": True, "confirmed": True, "violations": []}
    assert [safe] * 2 == drops
    # a browser may repeat a request by itself if the connection closes without a response; dropping rows twice changes nothing
    assert [expected] * max(2, len(pages.dropped)) == pages.dropped


def test_events_can_be_filtered_and_the_page_can_pause(looked: tuple[list[dict[str, Any]], Pages]) -> None:
    """A filter selects by a column's value, or refused, rejected and unplanned events. The latest event comes first."""
    used = [one["used"] for one in looked[0] if "used" in one]

    for one in used:
        assert ["shop/orders"] == one["byColumn"]
        assert "news/article_views" == one["all"][0]
        assert ["refused request", "shop/oders", "shop/Page Views"] == one["bad"]
        assert ("true", True) == (one["paused"][0], one["paused"][1].startswith("Paused"))
