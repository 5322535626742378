"""Serves the console's page and the local stack's page with the example data, and keeps docs/images fresh: `make screenshots` runs it."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from local.page_server import Beside, local_page
from local.record import BROWSER_ARGUMENTS, find_browser
from local.website import Website
from ops.console.server import ConsolePage, Server

ROOT = Path(__file__).parents[2]
_EXAMPLE = ROOT / "tests/support/console_example.json"
"""Answers with something of everything, so that every part of the pages is shown."""
NOW, STATE, LOCAL, EVENTS = map(json.loads(_EXAMPLE.read_text()).get, ("now", "state", "local", "events"))
"""The time, in UNIX seconds, the console's state, what the local stack adds to it or shows differently, and events."""
IMAGES = ROOT / "docs/images"
DIGEST = IMAGES / "sources.sha256"
"""What the images were made from: `digest()` at that time."""


class Pages:
    """A console and a local stack's page that show every kind of content, and remember the drops that are requested."""

    def __init__(self) -> None:
        self.dropped: list[Mapping[str, Any]] = []

    def _drop(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        self.dropped.append(asked)
        return {}

    @contextmanager
    def served(self) -> Iterator[tuple[str, str]]:
        """Serve both and yield their addresses."""
        actions = {"/drop": self._drop, "/redrive": lambda _: {}}
        events = {"/events.json": lambda one: EVENTS if one.get("after") == "0" else EVENTS | {"events": []}}
        console = ConsolePage({"/state.json": lambda _: STATE, **events}, actions, token="tok")
        site = Beside(Website("http://127.0.0.1:9", {"shop": "shop.k.m"}))
        local = local_page(site, {"/state.json": lambda _: STATE | LOCAL, **events}, actions, lambda *_: {})
        with Server(console) as first, Server(local) as second:
            yield f"{first.url}/#token=tok", f"{second.url}/"


def digest() -> str:
    """Return a digest of everything that the images show: the pages' sources and the example data."""
    sources = [*ROOT.glob("ops/console/page/*"), *ROOT.glob("local/page/*"), _EXAMPLE]
    digests = {path.relative_to(ROOT): hashlib.sha256(path.read_bytes()).hexdigest() for path in sources}
    lines = [f"{path} {digests[path]}\n" for path in sorted(digests)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def take() -> None:
    """Take a screenshot of each page into docs/images, and note what it was made from."""
    IMAGES.mkdir(exist_ok=True)
    with Pages().served() as urls, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=list(BROWSER_ARGUMENTS))
        for name, url in zip(("console", "local"), urls, strict=True):
            size = {"width": 1280, "height": 1000}
            page = browser.new_page(viewport=size, timezone_id="UTC", locale="en-GB")
            page.clock.set_fixed_time(NOW)
            page.goto(url)
            page.wait_for_selector("#events li")
            page.wait_for_function("document.querySelectorAll('#tables tbody tr').length > 1")
            page.screenshot(path=IMAGES / f"{name}.png")
        browser.close()
    DIGEST.write_text(f"{digest()}\n")


if __name__ == "__main__":
    take()
