"""Measures what forgetting costs: the sender with nobody and with many persons to forget, and a search of many objects.

    python -m benchmarks.forget --persons 10000 --chunks 40 --objects 2000

Services are in memory. Each call to S3 and to DynamoDB, and each import, takes as long as the options say.
"""

import argparse
import random
import time
from typing import Any

import msgpack

from benchmarks.replay import Taking
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

BEGAN = 1_700_000_000
SHOP = RowSender("shop")
VIEWS = ChunkKey(Group(SHOP, "views"), 0)
CHOSEN = random.Random(1)


class Importing(Taking):
    """A Treasure Data that names what it took, as the sender demands."""

    def handle(self, request: Request) -> Response:
        """Answer one request; a probe without rows at once."""
        return super().handle(request)


def rows(count: int) -> bytes:
    """Return rows of page views, each with an address that no other row has."""
    return b"".join(
        msgpack.packb(
            {
                "time": BEGAN + number % 3600,
                "event_id": f"{number:08x}-{CHOSEN.getrandbits(96):024x}",
                "received_at": BEGAN * 1000 + number,
                "td_url": f"https://shop.example/kettles/{number % 500}?utm_source=letter",
                "td_title": "A kettle that whistles",
                "td_user_agent": "Mozilla/5.0 (X11; Linux x86_64; rv:141.0) Gecko/20100101 Firefox/141.0",
                "td_client_id": f"{CHOSEN.getrandbits(128):032x}",
                "td_ip": "198.51.100.7",
                "email": f"{CHOSEN.getrandbits(40):x}@example.com",
                "price": 7800,
            }
        )
        for number in range(count)
    )


def delivery(options: argparse.Namespace) -> Delivery:
    """Return a delivery whose services take their time."""
    clock: Any = SystemClock()
    made = Delivery(clock=clock, executors=Threads)
    made.map(shop="shop")
    made.td = Importing(options.answer_seconds)  # type: ignore[assignment]  # only handle() is used
    return made.start()


def store(made: Delivery, count: int, payload: bytes, size: int, state: State) -> None:
    """Store spans of one chunk each."""
    for number in range(count):
        index = Index()
        encoded = encode([Chunk(VIEWS, [payload], size)], index, time.time())
        found = Span(
            *(ChainId.edit(f"{state}{number}"), START, START, START, BEGAN * 1000),
            chunks={VIEWS: size},
            destinations={SHOP: LATER},
            object=encoded.ref,
        ).with_entries({VIEWS: Entry(state, at=BEGAN * 1000)}, settled=True)
        made.objects.put(found, encoded.data)
        made.ledger.append(found)


def slow_down(made: Delivery, seconds: float) -> None:
    """Have each call to S3 and DynamoDB take a while from now on."""
    for client in (made.s3, made.dynamodb):
        for call in ("get_object", "put_object", "get_item", "update_item", "query"):
            client.before[call] = lambda _: time.sleep(seconds)


def forget(made: Delivery, persons: int) -> None:
    """Request that persons be forgotten, none of whom has a row."""
    values = [f"{number}@nowhere.example" for number in range(persons)]
    asked = {"do": "note", "account": "shop", "column": "email", "values": values}
    if persons:
        made.sender_wiring.forget.run(asked, made.deadline())
    made.start()


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.forget", description=main.__doc__)
    parser.add_argument("--persons", type=int, default=10_000)
    parser.add_argument("--chunks", type=int, default=40, help="chunks that the sender sends")
    parser.add_argument("--rows", type=int, default=10_000, help="rows in each of them")
    parser.add_argument("--objects", type=int, default=2000, help="objects to search")
    parser.add_argument("--object-rows", type=int, default=1000, help="rows in each of them")
    parser.add_argument("--answer-seconds", type=float, default=0.3, help="duration of an import")
    parser.add_argument(
        "--aws-seconds", type=float, default=0.02, help="duration of a call to S3 or DynamoDB"
    )
    options = parser.parse_args()
    payload = rows(options.rows)
    for persons in (0, options.persons) * 2:
        made = delivery(options)
        store(made, options.chunks, payload, options.rows, State.WAITING)
        forget(made, persons)
        slow_down(made, options.aws_seconds)
        began, spent = time.monotonic(), time.process_time()
        report = made.send()
        seconds, spent = time.monotonic() - began, time.process_time() - spent
        print(f"{persons} persons: {report.delivered:,} rows sent in {seconds:.2f} s, {spent:.2f} s of CPU")
    made = delivery(options)
    store(made, options.objects, rows(options.object_rows), options.object_rows, State.DELIVERED)
    forget(made, options.persons)
    slow_down(made, options.aws_seconds)
    began, spent = time.monotonic(), time.process_time()
    found, objects = made.sender_wiring.forget, 0
    for hour in list(made.objects.hours()):
        answer = found.run({"do": "forget", "hour": hour, "after": ""}, made.deadline(900_000))
        objects += answer["objects"]
    seconds, spent = time.monotonic() - began, time.process_time() - spent
    print(f"{objects:,} objects searched in {seconds:.1f} s, {1000 * spent / objects:.2f} ms of CPU each")
    size = len(RequestDocument(made.sender_wiring.forget_requests.document().requests).encode())
    print(f"the document with {options.persons:,} requests has {size / 1024:.0f} kB")


if __name__ == "__main__":
    main()
