"""Measures what forgetting costs: the sender with nobody and with many persons to forget, and a search of many objects.

Services are in memory. Each call to S3 and to DynamoDB, and each import, takes as long as on AWS.
"""

import hashlib
import json
import random
import time
from typing import Any

import msgpack

from benchmarks.report import Report
from doubles.http_server import Request, Response
from shared.clock import SystemClock
from tests.support.delivery import Delivery
from worker.chain import ChainId
from worker.executor import Threads
from worker.forget.requests import RequestDocument
from worker.index import Index
from worker.record import START
from worker.span import LATER, ChunkKey, Group, RowSender, Span
from worker.span_object import Chunk, encode
from worker.states import Entry, State

PERSONS = 10_000
CHUNKS, CHUNK_ROWS = 40, 10_000
OBJECTS, OBJECT_ROWS = 1000, 1000
IMPORT_SECONDS = 0.3
AWS_SECONDS = 0.02
_BEGAN = 1_700_000_000
_SHOP = RowSender("shop")
_VIEWS = ChunkKey(Group(_SHOP, "views"), 0)


class Taking:
    """A Treasure Data that accepts every import and discards it."""

    def handle(self, request: Request) -> Response:
        """Answer one request."""
        digest = hashlib.md5(request.body, usedforsecurity=False).hexdigest()
        document = {"md5_hex": digest, "elapsed_time": 0}
        return Response(200, json.dumps(document).encode(), delay=IMPORT_SECONDS)


def run(report: Report) -> None:
    """Measure, and report a table."""
    report.say(
        f"Services in memory take {AWS_SECONDS * 1000:.0f} ms a call, and {IMPORT_SECONDS * 1000:.0f} ms an import of"
        f" {CHUNK_ROWS:,} rows. All persons are of the account whose rows are sent or searched; none of them has a row."
    )
    rows = []
    for persons in (0, PERSONS):
        made = _delivery()
        _store(made, CHUNKS, CHUNK_ROWS, State.WAITING)
        _forget(made, persons)
        began, spent = time.perf_counter(), time.process_time()
        delivered = made.send().delivered
        seconds, spent = time.perf_counter() - began, time.process_time() - spent
        each = f"{spent / CHUNKS * 1e3:.0f} ms a chunk"
        rows.append([f"{delivered:,} rows sent, {persons:,} persons", f"{seconds:.1f} s", each])
    made = _delivery()
    _store(made, OBJECTS, OBJECT_ROWS, State.DELIVERED)
    _forget(made, PERSONS)
    began, spent = time.perf_counter(), time.process_time()
    search, objects = made.sender_wiring.forget, 0
    for hour in list(made.objects.hours()):
        asked = {"do": "forget", "hour": hour, "after": ""}
        objects += search.run(asked, made.deadline(900_000))["objects"]
    seconds, spent = time.perf_counter() - began, time.process_time() - spent
    each = f"{spent / objects * 1e3:.1f} ms an object"
    rows.append([f"{objects:,} objects of {OBJECT_ROWS:,} rows searched", f"{seconds:.1f} s", each])
    report.table(("what", "wall", "CPU"), rows)
    requests = made.sender_wiring.forget_requests.document().requests
    size = len(RequestDocument(requests).encode())
    report.say(f"The document with {PERSONS:,} requests has {size / 1e6:.1f} MB.")
    report.ratio("forget_objects_per_second", objects / seconds)


def _delivery() -> Delivery:
    clock: Any = SystemClock()
    made = Delivery(clock=clock, executors=Threads)
    made.map(shop="shop")
    made.td = Taking()  # type: ignore[assignment]  # only handle() is used
    return made.start()


def _store(made: Delivery, count: int, size: int, state: State) -> None:
    """Store spans of one chunk each, whose rows have addresses that no other row has."""
    chances = random.Random(1)
    payload = b"".join(
        msgpack.packb(
            {
                "time": _BEGAN + number % 3600,
                "event_id": f"{number:08x}-{chances.getrandbits(96):024x}",
                "received_at": _BEGAN * 1000 + number,
                "td_url": f"https://shop.example/kettles/{number % 500}?utm_source=letter",
                "td_user_agent": "Mozilla/5.0 (X11; Linux x86_64; rv:141.0) Gecko/20100101 Firefox/141.0",
                "td_client_id": f"{chances.getrandbits(128):032x}",
                "email": f"{chances.getrandbits(40):x}@example.com",
            }
        )
        for number in range(size)
    )
    for number in range(count):
        encoded = encode([Chunk(_VIEWS, [payload], size)], Index(), time.time())
        found = Span(
            *(ChainId.edit(f"{state}{number}"), START, START, START, _BEGAN * 1000),
            chunks={_VIEWS: size},
            destinations={_SHOP: LATER},
            object=encoded.ref,
        ).with_entries({_VIEWS: Entry(state, at=_BEGAN * 1000)}, settled=True)
        made.objects.put(found, encoded.data)
        made.ledger.append(found)


def _forget(made: Delivery, persons: int) -> None:
    """Request that persons be forgotten. From now on, each call to S3 and DynamoDB takes a while."""
    values = [f"{number}@nowhere.example" for number in range(persons)]
    asked = {"do": "note", "account": "shop", "column": "email", "values": values}
    if persons:
        made.sender_wiring.forget.run(asked, made.deadline())
    made.start()
    for client in (made.s3, made.dynamodb):
        for call in ("get_object", "put_object", "get_item", "update_item", "query"):
            client.before[call] = lambda _: time.sleep(AWS_SECONDS)
