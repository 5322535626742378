"""The ingest's CPU per request, against handlers that do less or did it before.

`bare` puts the same bytes on the stream through boto3 and answers: no key, no rows, no verdict. `direct` is the earlier
architecture: it uploads each event to Treasure Data through td-client.
"""

import gzip
import json
import os
from collections.abc import Callable
from contextlib import redirect_stdout
from io import BytesIO
from pathlib import Path
from typing import Any
from unittest import mock

import boto3
import msgpack
import tdclient

from benchmarks import services
from benchmarks.measure import cpu_seconds
from benchmarks.report import Report, times
from local.http_api import Request, event_of
from shared import write_key

ROUNDS, REPEATS = 5, 40

_PAGE = {
    "td_url": "https://www.shop.example/kettles?sort=price",
    "td_title": "Kettles",
    "td_referrer": "https://search.example/",
    "td_client_id": "0190f1a2-7a5b-7c3d-8e4f-5a6b7c8d9e0f",
    "td_screen": "1920x1080",
    "td_language": "en",
    "price": 12.5,
    "position": 3,
}


def run(report: Report) -> None:
    """Measure, and add tables and ratios."""
    lines = []
    for name, seconds in measure().items():
        bare, direct = seconds["sluice"] / seconds["bare"], seconds["sluice"] / seconds["direct"]
        each = [f"{seconds[way] * 1e6:.0f} µs" for way in ("sluice", "bare", "direct")]
        lines.append([name, *each, times(bare), times(direct)])
        report.ratio(f"ingest_vs_bare ({name})", bare)
        report.ratio(f"ingest_vs_direct ({name})", direct)
    head = (
        "request",
        "sluice",
        "bare boto3 put",
        "td-client per event",
        "sluice / bare",
        "sluice / td-client",
    )
    report.table(head, lines)


def measure() -> dict[str, dict[str, float]]:
    """Return, for a pixel and for ten events in JSON, the CPU seconds of each handler."""
    key = write_key.sign("shop", "k1", services.SECRETS["k1"])
    headers = (
        ("Host", "collect.example"),
        ("User-Agent", "Mozilla/5.0"),
        ("Content-Type", "application/json"),
    )
    events = [
        _PAGE | {"table": "pageviews", "time": 1_795_000_000 + n, "event_id": f"e{n}"} for n in range(10)
    ]
    pixel = Request("GET", f"/pixel.gif?k={key}&t=pageviews&page=home&position=3", headers)
    posted = Request(
        "POST", "/v1/events", (*headers, ("X-Write-Key", key)), json.dumps({"events": events}).encode()
    )
    with (
        services.running() as url,
        mock.patch.dict(os.environ, _environment(url)),
        Path(os.devnull).open("w") as nowhere,
        redirect_stdout(nowhere),  # metrics are lines on standard output
    ):
        handler = _handler()
        return {
            "one pixel": _compare(handler, _event(pixel), [{"page": "home", "position": "3"}], url),
            "ten events": _compare(handler, _event(posted), events, url),
        }


def _event(request: Request) -> dict[str, Any]:
    return event_of(request, request_id="benchmark", now=1_795_000_000.0)


def _environment(url: str) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "benchmark",
        "AWS_SECRET_ACCESS_KEY": "benchmark",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "STREAM_NAME": "events",
        "OVERFLOW_QUEUE_URL": f"{url}/queue",
        "WRITE_KEY_SECRET": "keys",
        "STAGE": "benchmark",
        "POWERTOOLS_SERVICE_NAME": "ingest",
        "POWERTOOLS_METRICS_NAMESPACE": "Sluice",
    }


def _handler() -> Callable[[Any, Any], Any]:
    from ingest.app import build  # noqa: PLC0415 -- it is built from the environment that was just set

    return build(os.environ)


def _compare(handler: Callable[[Any, Any], Any], event: Any, events: list[Any], url: str) -> dict[str, float]:
    stream = boto3.client("kinesis", endpoint_url=url)
    data = b"".join(msgpack.packb(one) for one in events)
    client = tdclient.Client(apikey="1/" + "a" * 40, endpoint=url)

    def sluice() -> None:
        answer = handler(event, None)
        if answer["statusCode"] != 200:
            raise RuntimeError(answer)

    def bare() -> dict[str, Any]:
        stream.put_record(StreamName="events", Data=data, PartitionKey="shop/1")
        return {"statusCode": 200, "body": "{}"}

    def direct() -> dict[str, Any]:
        for one in events:
            body = gzip.compress(msgpack.packb(one | {"time": 1_795_000_000}))
            client.import_data("shop", "pageviews", "msgpack.gz", BytesIO(body), len(body))
        return {"statusCode": 200, "body": "{}"}

    return cpu_seconds({"sluice": sluice, "bare": bare, "direct": direct}, ROUNDS, REPEATS)
