"""Recreates events/: `python -m local.record` drives a real browser through the demo site on the local stack.

Chromium reaches the sites and the gateway under host names, so that origins, referrers and preflights are like those of real
pages. The recording consists of its requests as the gateway received them, the payload 2.0 events that the gateway made from
them, and Kinesis events with the records that the ingest made from those.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from playwright.sync_api import Browser, Page, sync_playwright
from rich.console import Console

from doubles.event_source import EventSourceMapping, event_of
from doubles.kinesis import FREE_NUMBER
from doubles.sqs import MemorySQS, pass_on
from local import recording
from local.accounts import KEYS
from local.recording import EVENTS, RecordedRequest
from local.stack import LocalStack, PartError
from local.website import Website
from ops.console.server import Server
from shared.errors import SluiceError

GATEWAY = "collect.example"
SITES = ("kettle.example", "daily.example", "notes.example", "mistakes.example")
VISITORS: tuple[Mapping[str, Any], ...] = (
    {"locale": "en-US", "viewport": {"width": 1280, "height": 800}},
    {"locale": "ja-JP", "viewport": {"width": 1440, "height": 900}, "timezone_id": "Asia/Tokyo"},
    {"locale": "de-DE", "viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True},
)

BROWSER_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_SHARD = "shardId-000000000000"
_VISITS = 16  # envelopes in the event `visits`
_QUIET_SECONDS = 0.2
_PATIENCE_SECONDS = 60.0

HTTP_EVENTS: Mapping[str, tuple[str, str]] = {
    "pixel": ("open shop", "GET"),
    "pixel-from-script": ("open product", "GET"),
    "preflight": ("cart", "OPTIONS"),
    "event": ("cart", "POST"),
    "events": ("buy", "POST"),
    "key-in-body": ("like", "POST"),
    "events-gzip": ("sync", "POST"),
    "beacon": ("leave shop", "POST"),
}
"""The request to keep for each file name: the first with this step and method."""


class NoBrowserError(SluiceError):
    """There is no Chromium to record with."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """A request and the payload 2.0 event that the gateway made from it, or None if the gateway refused the request."""

    request: RecordedRequest
    event: Mapping[str, Any] | None


@dataclass(slots=True)
class GatewayLog:
    """Reads the gateway's log of requests, step by step.

    Attributes:
        file: the log, one JSON object per line.
        recorded: what was read.
    """

    file: TextIO
    recorded: list[Recorded] = field(default_factory=list)
    _incomplete: str = ""

    def settle(self, step: str, least: int, quiet: float = _QUIET_SECONDS) -> None:
        """Wait until the requests of a step have arrived.

        Args:
            step: what the browser is doing.
            least: minimum number of requests.
            quiet: seconds without another request after which the step is over.

        Raises:
            TimeoutError: too few requests arrived.
        """
        deadline = time.monotonic() + _PATIENCE_SECONDS
        new: list[str] = []
        last = time.monotonic()
        while len(new) < least or time.monotonic() - last < quiet:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{step}: only {len(new)} of {least} requests arrived")
            *lines, self._incomplete = f"{self._incomplete}{self.file.read()}".split("\n")
            if lines:
                new += lines
                last = time.monotonic()
            time.sleep(0.02)
        for document in map(json.loads, new):
            request = RecordedRequest.of(document | {"step": step})
            self.recorded.append(Recorded(request, document["event"]))


def find_browser() -> str:
    """Return the path of a Chromium.

    Raises:
        NoBrowserError: none is on PATH.
    """
    found = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if found is None:
        raise NoBrowserError(
            f"No Chromium found ({', '.join(_BROWSERS)}). Install one (Debian: apt install chromium)."
        )
    return found


@dataclass(frozen=True, slots=True)
class Driver:
    """Drives a browser through the sites.

    Attributes:
        browser: Chromium, which resolves the names of the sites.
        log: the gateway's log.
        dice: decides what visitors do.
    """

    browser: Browser
    log: GatewayLog
    dice: random.Random

    def visit(self, visitor: Mapping[str, Any]) -> None:
        """Visit a random site as a person would."""
        with self._page(visitor) as page:
            self.dice.choice((self._shop, self._shop, self._article, self._app))(page)

    def every_site(self) -> None:
        """Visit each site once."""
        for visit in (self._shop, self._article, self._app):
            with self._page(VISITORS[0]) as page:
                visit(page)

    def make_mistakes(self) -> None:
        """Make each mistake of mistakes.js once."""
        with self._page(VISITORS[0]) as page:
            page.goto("http://mistakes.example/mistakes.html")
            for name in page.evaluate("Object.keys(mistakes)"):
                page.evaluate("async (name) => { await mistakes[name](); }", name)
                self.log.settle(f"mistake: {name}", 1, quiet=0)  # the page has awaited the response

    @contextmanager
    def _page(self, visitor: Mapping[str, Any]) -> Iterator[Page]:
        context = self.browser.new_context(**visitor)
        yield context.new_page()
        context.close()

    def _shop(self, page: Page) -> None:
        self._do("open shop", 1, lambda: page.goto("http://kettle.example/shop.html"))
        if self.dice.random() < 0.5:
            page.fill("input[name=q]", self.dice.choice(("tea & cups", "鉄瓶", "größe 12", "100% wool?")))
            self._do("search", 1, lambda: page.click("text=Search"))
        product = page.locator("ul.cards a").nth(self.dice.randrange(4))
        self._do("open product", 2, product.click)  # the shop's beacon and the product's pixel
        self._do("cart", 2, lambda: page.click("#cart"))  # a preflight, then the event
        if self.dice.random() < 0.7:
            self._do("buy", 1, lambda: page.click("#buy"))
        self._do("back to shop", 1, lambda: page.click("nav a"))
        self._do("leave shop", 1, lambda: page.goto("about:blank"))

    def _article(self, page: Page) -> None:
        self._do("open article", 1, lambda: page.goto("http://daily.example/article.html"))
        for _ in range(self.dice.randrange(1, 5)):
            page.mouse.wheel(0, 400)
            page.wait_for_timeout(60)
        if self.dice.random() < 0.6:
            self._do("like", 1, lambda: page.click("#like"))
        self._do("leave article", 1, lambda: page.goto("about:blank"))

    def _app(self, page: Page) -> None:
        page.goto("http://notes.example/app.html")
        for _ in range(self.dice.randrange(2, 40)):
            page.click("#note")
        self._do("sync", 1, lambda: page.click("#sync"))

    def _do(self, step: str, requests: int, action: Callable[[], object]) -> None:
        action()
        self.log.settle(step, requests)


def record(folder: Path, visits: int, say: Callable[[str], None]) -> None:
    """Write a recording and the events to a folder.

    Args:
        folder: the target folder, normally events/.
        visits: number of visits, besides one to each site and all mistakes.
        say: prints progress.

    Raises:
        NoBrowserError: there is no Chromium.
        PartError: the local stack did not start.
        TimeoutError: the browser sent fewer requests than expected.
    """
    executable = find_browser()
    with tempfile.TemporaryDirectory() as scratch:
        requests = Path(scratch, "gateway.jsonl")
        requests.touch()
        with (
            requests.open() as file,
            LocalStack(Path(scratch, "stack"), shards=1, record=requests) as stack,
            Server(Website(f"http://{GATEWAY}", KEYS)) as site,
            sync_playwright() as playwright,
        ):
            browser = playwright.chromium.launch(
                executable_path=executable,
                args=[*BROWSER_ARGUMENTS, _resolver_rules(stack.addresses.gateway, site.url)],
            )
            log = GatewayLog(file)
            driver = Driver(browser, log, random.Random(1))  # noqa: S311 -- the same visits every time
            driver.every_site()
            for number in range(visits):
                driver.visit(VISITORS[number % len(VISITORS)])
                say(f"visit {number + 1} of {visits}")
            before = len(_records(stack))
            driver.make_mistakes()
            after = len(_records(stack))
            _produce_directly(stack)
            browser.close()
            records = _records(stack)
            arn, queue_arn = stack.resources.stream_arn, stack.resources.queue_arn
    folder.mkdir(parents=True, exist_ok=True)
    recording.write((recorded.request for recorded in log.recorded), folder / recording.REQUESTS.name)
    _write_events(folder / "http", http_events(log.recorded))
    # In another stack, their own sequence numbers could belong to other records: they get some that no stack uses.
    members = [
        EventSourceMapping(event_source_arn=arn).record(
            _SHARD, item | {"SequenceNumber": str(FREE_NUMBER + place)}
        )
        for place, item in enumerate(records, start=1)
    ]
    ranges = {"visits": (0, _VISITS), "mistakes": (before, after), "other-producers": (after, None)}
    _write_events(
        folder / "kinesis", {name: event_of(members[slice(*place)]) for name, place in ranges.items()}
    )
    _write_events(folder / "sqs", {"overflow": _queue_event(records[_VISITS], queue_arn)})
    say(f"{len(log.recorded)} requests recorded")


def http_events(recorded: Sequence[Recorded]) -> dict[str, Mapping[str, Any]]:
    """Return the payload 2.0 events to keep, by file name: one of each kind and one of each mistake."""
    chosen: dict[str, Mapping[str, Any]] = {}
    for item in recorded:
        if item.event is None:
            continue
        request = item.request
        for name, place in HTTP_EVENTS.items():
            if place == (request.step, request.method):
                chosen.setdefault(name, item.event)
        kind, _, mistake = request.step.partition(": ")
        if kind == "mistake" and request.method != "OPTIONS":
            chosen[f"mistake-{mistake.lower().replace(' ', '-')}"] = item.event
    return chosen


def _resolver_rules(gateway: str, site: str) -> str:
    """Return the Chromium argument that resolves the names of the sites and the gateway."""
    addresses = dict.fromkeys(SITES, site) | {GATEWAY: gateway}
    rules = [f"MAP {name}:80 {address.removeprefix('http://')}" for name, address in addresses.items()]
    return f"--host-resolver-rules={', '.join(rules)}"


def _records(stack: LocalStack) -> list[Any]:
    """Return the stream's records."""
    kinesis = stack.resources.client("kinesis")
    iterator = kinesis.get_shard_iterator(
        StreamName=stack.resources.stream, ShardId=_SHARD, ShardIteratorType="TRIM_HORIZON"
    )
    records: list[Any] = kinesis.get_records(ShardIterator=iterator["ShardIterator"], Limit=10_000)["Records"]
    return records


def _queue_event(record: Mapping[str, Any], queue_arn: str) -> Mapping[str, Any]:
    """Return the event with the message that the ingest would have queued if the stream had rejected a record."""
    sqs = MemorySQS(record["ApproximateArrivalTimestamp"].timestamp)
    url = sqs.create_queue(QueueName="overflow")["QueueUrl"]
    texts = {"partition_key": record["PartitionKey"], "refused": "true"}
    attributes = {name: {"DataType": "String", "StringValue": text} for name, text in texts.items()}
    sqs.send_message(
        QueueUrl=url, MessageBody=b64encode(record["Data"]).decode(), MessageAttributes=attributes
    )
    events: list[Mapping[str, Any]] = []
    pass_on(sqs, url, queue_arn, events.append)
    return events[0]


def _produce_directly(stack: LocalStack) -> None:
    """Put records on the stream as other producers would."""
    kinesis, stream = stack.resources.client("kinesis"), stack.resources.stream
    batch = {
        "account": "app",
        "events": [{"table": "imports", "line": n, "amount": n * 1.5} for n in range(3)],
    }
    mixed = {
        "account": "app",
        "events": [{"table": "imports", "time": "2026-01-31T09:00:00+09:00"}, {"line": 7}],
    }
    for data in (
        json.dumps(batch).encode(),
        json.dumps(mixed).encode(),
        b"neither an envelope nor JSON",
        b"\x98\x01 an envelope that was cut off",
        b'{"account": "app", "events": "none"}',
    ):
        kinesis.put_record(StreamName=stream, Data=data, PartitionKey="app/0")


def _write_events(folder: Path, events: Mapping[str, Mapping[str, Any]]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, event in events.items():
        (folder / f"{name}.json").write_text(json.dumps(event, indent=2, ensure_ascii=False) + "\n")


def main() -> None:
    """Recreate the recording."""
    parser = argparse.ArgumentParser(
        prog="python -m local.record", description="Record a browser on the demo site."
    )
    parser.add_argument("--visits", type=int, default=40, help="number of visits (default: %(default)s)")
    parser.add_argument(
        "--to", type=Path, default=EVENTS, metavar="FOLDER", help="where to write (default: events/)"
    )
    options = parser.parse_args()
    console = Console(stderr=True)
    try:
        record(options.to, options.visits, console.print)
    except (NoBrowserError, PartError, TimeoutError) as error:
        console.print(str(error), style="red", markup=False, soft_wrap=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
