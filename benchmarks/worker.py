"""The worker's rows per CPU second, from Lambda's event to settled spans, against ways that do less or did it before.

`floor` is what cannot be saved: base64 off, bytes put one after another, the same gzip. `decode` is a worker that reads
each row and writes it again. `td-client` is the way of the official client: JSON lines, MessagePack, gzip of level 9.
The ledger, Redis and Treasure Data are in memory and answer at once.
"""

import gzip
import hashlib
import json
from base64 import b64decode
from typing import Any

import msgpack
from isal import isal_zlib

from benchmarks.measure import cpu_seconds
from benchmarks.report import Report, times
from local.treasure_data import Request, Response
from tests.support.delivery import Delivery, envelope, member, row

ROUNDS = 5
ROWS_PER_ENVELOPE = 10


class AtOnce:
    """Takes every import and looks at none."""

    def handle(self, request: Request) -> Response:
        """Answer as Treasure Data does."""
        digest = hashlib.md5(request.body, usedforsecurity=False).hexdigest()
        answer = {"elapsed_time": 0, "database": "d", "table": "t", "md5_hex": digest, "unique_id": "0"}
        return Response(200, json.dumps(answer).encode(), {"content-type": "application/json"})


def run(report: Report) -> None:
    """Measure, and add tables and ratios."""
    per_row: dict[tuple[int, int], float] = {}
    lines = []
    for rows, groups in ((1_000, 1), (20_000, 1), (20_000, 500), (200_000, 1)):
        seconds = measure(rows, groups)
        floor, client = seconds["floor"] / seconds["sluice"], seconds["td-client"] / seconds["sluice"]
        rates = [f"{rows / seconds[way]:,.0f}/s" for way in ("sluice", "floor", "decode", "td-client")]
        lines.append([f"{rows:,}", str(groups), *rates, times(floor), times(client)])
        report.ratio(f"worker_vs_floor ({rows}, {groups})", floor)
        report.ratio(f"worker_vs_td_client ({rows}, {groups})", client)
        per_row[rows, groups] = seconds["sluice"] / rows
    head = (
        "rows",
        "accounts",
        "sluice",
        "floor",
        "decode",
        "td-client",
        "sluice / floor",
        "sluice / td-client",
    )
    report.table(head, lines)
    report.ratio("worker_growth_rows", per_row[200_000, 1] / per_row[20_000, 1])
    report.ratio("worker_growth_groups", per_row[20_000, 500] / per_row[20_000, 1])


def measure(rows: int, groups: int) -> dict[str, float]:
    """Return the CPU seconds that each way takes for so many rows of so many accounts and tables."""
    event = _event(rows, groups)
    json_lines = [json.dumps(one) for one in _rows(rows)]

    def sluice() -> None:
        held = _delivery(groups).worker.run(event, 120_000)["batchItemFailures"]
        if held:
            raise RuntimeError(held)

    def nothing() -> None:
        _delivery(groups)

    def floor() -> None:
        for blocks in _blocks(event).values():
            isal_zlib.compress(b"".join(blocks), 1, 31)

    def decode() -> None:
        for blocks in _blocks(event).values():
            unpacker = msgpack.Unpacker(max_buffer_size=1 << 30)
            unpacker.feed(b"".join(blocks))
            isal_zlib.compress(b"".join([msgpack.packb(one) for one in unpacker]), 1, 31)

    def td_client() -> None:
        gzip.compress(b"".join([msgpack.packb(json.loads(line)) for line in json_lines]), 9)

    contenders = {
        "sluice": sluice,
        "setup": nothing,
        "floor": floor,
        "decode": decode,
        "td-client": td_client,
    }
    times = cpu_seconds(contenders, ROUNDS, 1)
    setup = times.pop("setup")  # the doubles are made anew for each batch
    return times | {"sluice": times["sluice"] - setup}


def _delivery(groups: int) -> Delivery:
    delivery = Delivery()
    delivery.td = AtOnce()  # type: ignore[assignment]  # only `handle` is called
    delivery.map(**{f"account_{group}": f"database_{group}" for group in range(groups)})
    return delivery.start()


def _rows(count: int) -> list[dict[str, Any]]:
    return [
        row(
            f"0190f1a2-7a5b-7c3d-8e4f-{number:012d}",
            1_795_000_000 + number % 3600,
            td_url=f"https://www.shop.example/p/{number % 977}?sort=price",
            td_title=f"Product {number % 977}",
            td_client_id=f"0190f1a2-7a5b-7c3d-8e4f-{number * 7919 % 10_007:012d}",
            td_user_agent="Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/156.0.0.0 Safari/537.36",
            position=number % 20,
            price=number % 100 + 0.5,
        )
        for number in range(count)
    ]


def _event(count: int, groups: int) -> dict[str, Any]:
    delivery = Delivery()
    rows = _rows(count)
    for start in range(0, count, ROWS_PER_ENVELOPE):
        account = f"account_{start // ROWS_PER_ENVELOPE % groups}"
        delivery.put(envelope(account, {"pageviews": rows[start : start + ROWS_PER_ENVELOPE]}))
    return {"Records": [member(record) for record in delivery.records()]}


def _blocks(event: dict[str, Any]) -> dict[tuple[str, str], list[bytes]]:
    groups: dict[tuple[str, str], list[bytes]] = {}
    for record in event["Records"]:
        content = msgpack.unpackb(b64decode(record["kinesis"]["data"]), use_list=False)
        for table, _count, data in content[6]:
            groups.setdefault((content[1], table), []).append(data)
    return groups
