"""Measures the worker's rows per CPU second, and compares it with the minimum, a simpler worker and td-client.

`floor` is the unavoidable work: decode base64, concatenate the rows' bytes, gzip them. It is told where the rows are in each
envelope. It uses Python's base64 decoder; `fast floor` uses the worker's, which is several times faster. `decode` is a worker
that unpacks every row and packs it again. `td-client` is the official client: its `import_file` converts records of JSON lines
into an upload file; the upload itself is left out.

The worker is complete: ledger, plan, span objects, lanes, settling. AWS and Redis are in memory. Chunks are compressed and counted as
delivered; `with upload` sends them over HTTP to another process, whose CPU time does not count.
"""

import json
from base64 import b64decode, b64encode
from collections import deque
from collections.abc import Callable
from contextlib import closing
from functools import partial
from io import BytesIO
from typing import Any

import msgpack
import pybase64
from isal import isal_zlib
from tdclient.api import API

from benchmarks import memory, services, traffic
from benchmarks.chart import Bar, Group
from benchmarks.delivery import delivery
from benchmarks.measure import cpu_seconds
from benchmarks.report import Report, times
from tests.support.delivery import Delivery
from worker.record import unpack

ROUNDS = 9
CONTENDERS = ("worker", "floor", "fast floor", "decode", "td-client", "with upload")
ROWS = {10: traffic.EVENT_ROWS, 1: 5_000}
"""Rows of an event, by rows per envelope."""
SIZES = (10, 100, 1_000, 10_000, 100_000, 1_000_000)
GROUPS = 500
IDLE_MB_LIMIT = 96


class Unsent(API):
    """A td-client that prepares an upload but does not send it."""

    def import_data(self, *_: object, **__: object) -> float:
        """Do nothing."""
        return 0.0


def run(report: Report) -> None:
    """Measure, and report tables, charts and ratios."""
    _compare(report)
    _profile(report)
    _grow(report)
    _group(report)
    peak = max(memory.peak_mb(per_envelope) for per_envelope in (1, 10))
    report.say(
        f"A 6 MB event raises the memory of an idle worker by at most {peak:.0f} MB, including the event's JSON text and the"
        f" Python objects parsed from it. The limit set for it is {IDLE_MB_LIMIT} MB."
    )
    report.ratio("worker_peak_mb", peak)


def _compare(report: Report) -> None:
    table, groups = [], []
    for per_envelope, count in ROWS.items():
        rates = {name: count / taken for name, taken in _contenders(count, per_envelope).items()}
        suffix = "" if per_envelope == 10 else f" ({per_envelope} per envelope)"
        ratios = {}
        for other in ("floor", "fast floor", "td-client"):
            ratios[other] = rates["worker"] / rates[other]
            report.ratio(f"worker_vs_{other.replace('-', '_').replace(' ', '_')}{suffix}", ratios[other])
        table.append(
            [
                f"{per_envelope} per envelope",
                *(f"{rates[name]:,.0f}" for name in CONTENDERS),
                *map(times, ratios.values()),
            ]
        )
        shown = [
            Bar(name, rates[name], f"{rates[name] / 1000:,.0f} k/s", ours=name in ("worker", "with upload"))
            for name in sorted(CONTENDERS, key=lambda name: -rates[name])
        ]
        groups.append(Group(f"rows per CPU second, {per_envelope} per envelope", shown))
    head = ("rows per CPU second", *CONTENDERS, *(f"worker / {other}" for other in ratios))
    report.table(head, table)
    report.chart("Rows per second on one core", groups)


def _profile(report: Report) -> None:
    """Report the CPU time of each step, measured alone. The rest is everything else."""
    table = []
    for per_envelope, count in ROWS.items():
        event = traffic.event(count, per_envelope=per_envelope)
        texts = [record["kinesis"]["data"] for record in event["Records"]]
        envelopes = [pybase64.b64decode(text, validate=True) for text in texts]
        blocks = _blocks(event)
        joined = b"".join(blocks)
        works = [delivery() for _ in range(ROUNDS + 1)]
        steps: dict[str, Callable[[], object]] = {
            "base64": lambda texts=texts: deque(
                (pybase64.b64decode(text, validate=True) for text in texts), 0
            ),
            "envelope fields": lambda envelopes=envelopes: deque(
                (unpack(envelope) for envelope in envelopes), 0
            ),
            "join": lambda blocks=blocks: b"".join(blocks),
            "gzip": lambda joined=joined: isal_zlib.compress(joined, 1, 31),
            "total": lambda works=works, event=event: _carry_out(works.pop(), event),
        }
        seconds = cpu_seconds(steps, ROUNDS, 1)
        total = seconds.pop("total")
        seconds |= {"rest": total - sum(seconds.values()), "total": total}
        taken = [f"{taken / count * 1e9:,.0f} ns" for taken in seconds.values()]
        table.append([f"{per_envelope} per envelope", *taken])
    report.say(
        "Where the time of one row goes. The rest is records, planning, index, ledger, scheduling and settling:"
    )
    report.table(("per row", *seconds), table)


def _contenders(count: int, per_envelope: int) -> dict[str, float]:
    event = traffic.event(count, per_envelope=per_envelope)
    blocks = _blocks(event)
    places = [
        (record["kinesis"]["data"], *place)
        for record, place in zip(event["Records"], _places(event), strict=True)
    ]
    texts = _json_records(count, per_envelope)

    def worker() -> None:
        _carry_out(delivery(), event)

    def floor() -> None:
        isal_zlib.compress(b"".join([b64decode(data)[begin:end] for data, begin, end in places]), 1, 31)

    def fast_floor() -> None:
        rows = [pybase64.b64decode(data, validate=True)[begin:end] for data, begin, end in places]
        isal_zlib.compress(b"".join(rows), 1, 31)

    def decode() -> None:
        unpacker = msgpack.Unpacker(max_buffer_size=1 << 30)
        unpacker.feed(b"".join(_blocks(event)))
        isal_zlib.compress(b"".join([msgpack.packb(one) for one in unpacker]), 1, 31)

    def td_client() -> None:
        client = Unsent("1/" + "a" * 40)
        with closing(client):
            client.import_file(
                "database_0", "pageviews", "json", BytesIO(b"".join([b64decode(text) for text in texts]))
            )

    with services.running() as url:

        def uploading() -> None:
            _carry_out(delivery(url=url), event)

        contenders: dict[str, Callable[[], object]] = dict(
            zip(CONTENDERS, (worker, floor, fast_floor, decode, td_client, uploading), strict=True)
        )
        contenders |= {"setup": delivery, "upload setup": partial(delivery, url=url)}
        seconds = cpu_seconds(contenders, ROUNDS, 1)
    assert b"".join(blocks) == b"".join([b64decode(data)[begin:end] for data, begin, end in places])
    seconds["worker"] -= seconds.pop("setup")
    seconds["with upload"] -= seconds.pop("upload setup")
    return seconds


def _grow(report: Report) -> None:
    table, per_row = [], {}
    for size in SIZES:
        seconds = _batches(size)
        per_row[size] = seconds / size
        events = f"{-(-size // traffic.EVENT_ROWS):,}"
        table.append([f"{size:,}", events, f"{seconds * 1e3:,.2f} ms", f"{per_row[size] * 1e6:.2f} µs"])
    report.say(
        "Larger batches cost less per row. More than 10,000 rows arrive as several events, one after the other:"
    )
    report.table(("rows", "events", "CPU", "CPU per row"), table)
    report.ratio("worker_growth_rows", per_row[1_000_000] / per_row[1_000])


def _group(report: Report) -> None:
    one, many = (_one_batch(traffic.EVENT_ROWS, groups) for groups in (1, GROUPS))
    report.say(
        f"Each chunk has a fixed cost, for its key, its scheduling and starting gzip. A 6 MB event with rows of {GROUPS} accounts,"
        f" {traffic.EVENT_ROWS // GROUPS} each, takes {times(many / one)} as long as with rows of one: {(many - one) / (GROUPS - 1) * 1e6:.0f} µs"
        " per additional chunk."
    )
    report.ratio("worker_growth_groups_6mb", many / one)


def _batches(size: int) -> float:
    """Return the CPU seconds of `size` rows in consecutive events as large as Lambda's."""
    count = min(size, traffic.EVENT_ROWS)
    made = traffic.event(count)
    rounds = 5 if size >= 100_000 else ROUNDS
    repeats = max(1, 2_000 // size)
    events = [traffic.later(made, number) for number in range(size // count)]
    works = [delivery() for _ in range((rounds + 1) * repeats)]

    def carry_out() -> None:
        work = works.pop()
        for event in events:
            _carry_out(work, event)

    return cpu_seconds({"worker": carry_out}, rounds, repeats)["worker"]


def _one_batch(size: int, groups: int) -> float:
    """Return the CPU seconds of one batch in a worker with cached accounts, as in all but one batch per minute."""
    event = traffic.later(traffic.event(size, groups), 1)
    greeting = traffic.event(groups, groups, per_envelope=1)
    works = [delivery(groups=groups) for _ in range(6)]
    for work in works:
        _carry_out(work, greeting)
    return cpu_seconds({"worker": lambda: _carry_out(works.pop(), event)}, len(works) - 1, 1)["worker"]


def _carry_out(work: Delivery, event: dict[str, Any]) -> None:
    held = work.run(event, 120_000)["batchItemFailures"]
    if held:
        raise RuntimeError(held)


def _blocks(event: dict[str, Any]) -> list[bytes]:
    contents = [
        msgpack.unpackb(b64decode(record["kinesis"]["data"]), use_list=False) for record in event["Records"]
    ]
    return [data for content in contents for _table, _count, data in content[6]]


def _places(event: dict[str, Any]) -> list[tuple[int, int]]:
    """Return the offsets at which the rows begin and end in each envelope."""
    places = []
    for record, block in zip(event["Records"], _blocks(event), strict=True):
        begin = b64decode(record["kinesis"]["data"]).index(block)
        places.append((begin, begin + len(block)))
    return places


def _json_records(count: int, per_envelope: int) -> list[str]:
    """Return the same rows as base64 of JSON lines, as a worker that uses td-client would read them."""
    source = traffic.rows()
    return [
        b64encode(b"".join([json.dumps(next(source)).encode() + b"\n" for _ in range(per_envelope)])).decode()
        for _ in range(count // per_envelope)
    ]
