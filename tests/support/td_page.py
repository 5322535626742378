"""A shop's page that loads one of Treasure Data's browser SDKs from npm, in a real browser, with a real ingest."""

import json
import threading
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgpack
from playwright.sync_api import Browser, sync_playwright

from doubles.gateway import Gateway
from doubles.http_server import HttpServer, Request, Response
from ingest.request import parse_query
from local.record import BROWSER_ARGUMENTS
from shared import rows
from tests.support import chromium, tools
from tests.support.ingest import KEY, START, Site
from tests.support.tls_front import TlsFront

ORIGIN = "https://www.shop.example"
COLLECTOR = "collect.shop.example"
"""A name in the shop's own domain, because browsers drop third-party cookies."""
SITE_COLLECTOR = "ssc.shop.example"
"""The same collector under the name that the SDK expects for the server that sets the shop's cookies."""

_HTML = b"""<!doctype html><html><head><meta charset="utf-8"><title>T &amp; \xc3\xa9 \xf0\x9f\x8e\x89</title>
<link rel="icon" href="data:,"><meta name="description" content="desc"><script src="/td.js"></script></head>
<body><a id="lnk" class="c" href="/next" target="_blank">next</a><button id="btn" name="b">go</button></body></html>"""
_OWN = {"time", "event_id", "received_at", "bot"}
_SECONDS = 60.0


class Visit:
    """A visit to a page with an SDK, given by its package's name, and a new ingest."""

    def __init__(self, browser: Browser, sdk: str) -> None:
        self.sdk = tools.package(f"{sdk}/dist/td.min.js").read_bytes()
        self.site = Site((ORIGIN,), visitor_cookies="on")
        self.requests: list[tuple[str, str, str, bytes]] = []
        self.errors: list[str] = []
        self.page = browser.new_context().new_page()
        self.page.on("console", lambda said: self.errors.extend([said.text] * (said.type == "error")))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))

    def open(self, settings: str) -> None:
        """Open the page and start the SDK with additional settings, given as JavaScript."""
        self.page.goto(f"{ORIGIN}/p?utm_source=s&utm_medium=m&q=1&gclid=g1#f")
        self.run(
            "window.td = new Treasure({database: 'shop', logging: false, useServerSideCookie: true,"
            f" sscDomain: 'shop.example', sscServer: () => '{SITE_COLLECTOR}', writeKey: {json.dumps(KEY)},"
            f" ...{settings}}})"
        )

    def call(self, method: str, *arguments: str) -> Any:
        """Call a method of the SDK with arguments given as JavaScript. Return what its success callback gets; its error callback raises."""
        listed = "".join(f"{argument}, " for argument in arguments)
        return self.run(
            "return await new Promise((done, fail) => "
            f"td.{method}({listed}done, error => fail(new Error('{method}: ' + (error && error.message || error)))))"
        )

    def run(self, script: str) -> Any:
        """Run JavaScript in the page."""
        return self.page.evaluate(f"async () => {{{script}}}")

    def cookies(self) -> dict[str, str]:
        """Return the browser's cookies."""
        return {cookie["name"]: cookie["value"] for cookie in self.page.context.cookies()}

    def record(self, method: str, target: str, headers: list[tuple[str, str]], body: bytes, *_: Any) -> None:
        """Remember a request to the gateway."""
        kind = next((text for name, text in headers if name.lower() == "content-type"), "")
        self.requests.append((method, target, kind, body))

    def sent(self) -> list[tuple[str, dict[str, Any]]]:
        """Return table and record of each request that sent a record, as the SDK wrote it; one content type asks for the visitor's IP address as well."""
        found = []
        for method, target, kind, body in self.requests:
            parts = urlsplit(target)
            database, _, table = parts.path.rpartition("/")
            if method == "OPTIONS" or not database.endswith("/shop"):
                continue
            data = body or b64decode(dict(parse_query(parts.query))["data"])
            text = data.decode("utf-8", "surrogatepass")  # versions 1 and 2 write surrogate pairs
            value = json.loads(text.encode("utf-16", "surrogatepass").decode("utf-16"))
            record = value["events"][0] if "events" in value else value
            found.append((table, {"td_ip": "td_ip", **record} if kind.endswith(".js+json") else record))
        return found

    def arrived(self, count: int) -> list[tuple[str, dict[str, Any]]]:
        """Return tables and rows as soon as there are `count` rows."""
        for _ in range(round(_SECONDS / 0.01)):
            if len(self.site.rows()) >= count:
                break
            self.page.wait_for_timeout(10)
        return self.site.rows()

    def expected(self) -> list[tuple[str, dict[str, Any]]]:
        """Return tables and columns that what was sent is to become, without those that every row has, sorted."""
        user_agent = self.run("return navigator.userAgent")
        known = {
            "td_ip": "127.0.0.1",
            "td_browser": "Chrome",
            "td_browser_version": user_agent.partition("Chrome/")[2].partition(" ")[0],
            "td_os": "Linux",
            "td_os_version": None,
            "td_global_id": self.cookies().get("_td_global"),
        }
        arrival, found = rows.Arrival(int(START * 1000)), []
        for table, record in self.sent():
            filled = record | {name: value for name, value in known.items() if record.get(name) == name}
            found.append((table, msgpack.unpackb(rows.encode(filled, arrival, str))))
        return columns_of(found)


type Street = Callable[[str], Visit]
"""Begins a visit, which lasts until the next one."""


@contextmanager
def street(folder: Path) -> Iterator[Street]:
    """Serve pages and ingest over HTTPS under their names, and run a browser that resolves them."""
    executable, lock, visits = chromium.path(), threading.Lock(), list[Visit]()

    def show(request: Request) -> Response:
        is_script = request.target == "/td.js"
        kind = "text/javascript" if is_script else "text/html; charset=utf-8"
        return Response(200, visits[-1].sdk if is_script else _HTML, (("content-type", kind),))

    def handle(event: dict[str, Any], context: Any) -> Any:
        with lock:
            return visits[-1].site.handler(event, context)

    def record(*request: Any) -> None:
        visits[-1].record(*request)

    with (
        HttpServer(show) as pages,
        Gateway(handle, record=record) as gateway,
        TlsFront(gateway.port, folder) as collector,
        TlsFront(pages.port, folder) as site,
    ):
        ports = {COLLECTOR: collector.port, SITE_COLLECTOR: collector.port, "www.shop.example": site.port}
        names = "".join(f"MAP {name} 127.0.0.1:{port}," for name, port in ports.items())
        with sync_playwright() as playwright:
            resolving = f"--host-resolver-rules={names}MAP * ~NOTFOUND"
            # ignoring errors of certificates also covers requests that outlive their page
            options = [*BROWSER_ARGUMENTS, "--ignore-certificate-errors", resolving]
            browser = playwright.chromium.launch(executable_path=executable, args=options)

            def begin(sdk: str) -> Visit:
                visits.append(Visit(browser, sdk))
                return visits[-1]

            yield begin
            browser.close()


def columns_of(found: list[tuple[str, dict[str, Any]]]) -> list[tuple[str, dict[str, Any]]]:
    """Return tables and rows without the columns that every row has, in an order that does not depend on which request was faster."""
    kept = [(table, {name: value for name, value in row.items() if name not in _OWN}) for table, row in found]
    return sorted(kept, key=lambda pair: (pair[0], json.dumps(pair[1], sort_keys=True)))
