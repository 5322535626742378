"""Measures what forgetting costs: the sender with nobody and with many persons to forget, and a search of many objects.

Services are in memory. Each call to S3 and to DynamoDB, and each import, takes as long as on AWS.
"""

import hashlib
import json
import random
import time
from collections.abc import Mapping
from statistics import median
from typing import Any

import msgpack

from benchmarks.report import Report, times
from doubles.http_server import Request, Response
from shared.clock import SystemClock
from tests.support.delivery import Delivery
from worker.chain import ChainId
from worker.executor import Threads
from worker.forget.requests import RequestDocument
from worker.index import EMPTY
from worker.record import START
from worker.span import LATER, ChunkKey, Group, RowSender, Span, milliseconds
from worker.span_object import Chunk, encode
from worker.states import Entry, State

PERSONS = 10_000
ROUNDS = 5
CHUNKS, CHUNK_ROWS = 16, 10_000
OBJECTS, OBJECT_ROWS = 1000, 1000
IMPORT_SECONDS = 0.3
AWS_SECONDS = 0.02
_SHOP = RowSender("shop")
_VIEWS = ChunkKey(Group(_SHOP, "views"), 0)
_SENT = {
    "0 persons": (0, 0.0),
    f"{PERSONS:,} persons, rows received after the requests": (PERSONS, 60.0),
    f"{PERSONS:,} persons, rows received before": (PERSONS, -60.0),
}
"""The number of persons, and when the rows that are sent were received: seconds after the requests."""


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
        f" {CHUNK_ROWS:,} rows. All persons are of the account whose rows are sent or searched; none of them has a row, and"
        f" no two rows have the same address. In each of {ROUNDS} rounds, senders in one process take turns to send {CHUNKS} chunks;"
        " the table has the medians of their CPU times and of the ratios to the first."
    )
    senders = {name: _delivery(persons) for name, (persons, _) in _SENT.items()}
    spent = [_send(senders, turn) for turn in range(ROUNDS + 1)][1:]  # the first one warms up
    rows, first = [], next(iter(senders))
    for name in senders:
        seconds = median(one[name] for one in spent) / CHUNKS
        ratio = median(one[name] / one[first] for one in spent)
        rows.append([f"a chunk sent, {name}", f"{seconds * 1e3:.1f} ms", times(ratio)])
    made = _delivery(PERSONS)
    _store(made, (OBJECTS, OBJECT_ROWS), State.DELIVERED, time.time() - 60)
    began, spent_before = time.perf_counter(), time.process_time()
    asked = {"do": "forget", "prefix": "spans/", "after": ""}
    objects = made.sender_wiring.forget.run(asked, made.deadline(900_000))["objects"]
    seconds, each = time.perf_counter() - began, (time.process_time() - spent_before) / objects
    rows.append([f"an object of {OBJECT_ROWS:,} rows searched", f"{each * 1e3:.1f} ms", ""])
    report.table(("what", "CPU", "ratio"), rows)
    requests = made.sender_wiring.forget_requests.document().requests
    size = len(RequestDocument(requests).encode())
    report.say(
        f"The search looks at {objects / seconds:,.0f} objects a second. The document with {PERSONS:,} requests has {size / 1e6:.1f} MB."
    )
    report.ratio("forget_objects_per_second", objects / seconds)


def _send(senders: Mapping[str, Delivery], turn: int) -> dict[str, float]:
    """Have each sender send new chunks; return the CPU time of each."""
    spent = {}
    for name, made in senders.items():
        _store(made, (CHUNKS, CHUNK_ROWS), State.WAITING, time.time() + _SENT[name][1], turn)
        began = time.process_time()
        made.send()
        spent[name] = time.process_time() - began
    return spent


def _delivery(persons: int) -> Delivery:
    """Return a delivery with requests to forget persons. Each call to S3 and DynamoDB takes a while."""
    clock: Any = SystemClock()
    made = Delivery(clock=clock, executors=Threads)
    made.map(shop="shop")
    made.td = Taking()  # type: ignore[assignment]  # only handle() is used
    made.start()
    values = [f"{number}@nowhere.example" for number in range(persons)]
    asked = {"do": "note", "account": "shop", "column": "email", "values": values}
    if persons:
        made.sender_wiring.forget.run(asked, made.deadline())
    made.start()
    for client in (made.s3, made.dynamodb):
        for call in ("get_object", "put_object", "get_item", "update_item", "query"):
            client.before[call] = lambda _: time.sleep(AWS_SECONDS)
    return made


def _store(made: Delivery, shape: tuple[int, int], state: State, received_at: float, turn: int = 0) -> None:
    """Store spans of one chunk each, whose rows have addresses that no other row has."""
    (count, size), received, now = shape, milliseconds(received_at), milliseconds(time.time())
    for number in range(count):
        payload = _rows(size, received, random.Random(turn * count + number))
        encoded = encode([Chunk(_VIEWS, [payload], [size])], EMPTY, time.time())
        found = Span(
            *(ChainId.edit(f"{state}{turn}/{number}"), START, START, START, now),
            chunks={_VIEWS: size},
            destinations={_SHOP: LATER},
            received_at=received,
            object=encoded.ref,
        ).with_entries({_VIEWS: Entry(state, at=now)}, settled=True)
        made.objects.put(found, encoded.data)
        made.ledger.append(found)


def _rows(count: int, received_at: int, chances: random.Random) -> bytes:
    return b"".join(
        msgpack.packb(
            {
                "time": received_at // 1000,
                "event_id": f"{number:08x}-{chances.getrandbits(96):024x}",
                "received_at": received_at,
                "td_url": f"https://shop.example/kettles/{number % 500}?utm_source=letter",
                "td_user_agent": "Mozilla/5.0 (X11; Linux x86_64; rv:141.0) Gecko/20100101 Firefox/141.0",
                "td_client_id": f"{chances.getrandbits(128):032x}",
                "email": f"{chances.getrandbits(40):x}@example.com",
            }
        )
        for number in range(count)
    )
