"""Delivers the backlog of a one-hour outage with the real worker, and measures speed, memory and uploads.

This includes parsing the event's JSON, decoding, the ledger's and the accounts' rules, planning, compression, and uploads
over HTTP to another process, which accepts everything. It does not include DynamoDB and Redis, which are in memory here, or
waiting for other machines. The report states what those add in Lambda, and the limits of Kinesis.
"""

import gc
import json
import time
from statistics import median

from benchmarks import memory, services, traffic
from benchmarks.chart import Bar, Group, bars
from benchmarks.delivery import delivery
from benchmarks.report import Report, times
from ops.cost.estimate import BATCH_SECONDS, CORE_MB, ENVELOPE_BYTES, ROW_BYTES, Setup

BACKLOG = 3_600_000
RATE = 1_000
"""The events per second at which the backlog arrived, in one hour."""
ACCOUNTS = 20
SHARD_READ_BYTES = 2 << 20
"""Bytes per second that all readers of a shard together get from Kinesis."""


class Drained:
    """The cost of delivering a backlog.

    Attributes:
        rows_per_batch: the number of rows in each batch.
        seconds: the process's CPU seconds for each batch.
        wall: elapsed seconds, excluding the generation of events.
        uploads: the number of imports sent.
        peak_mb: peak memory above that of the idle worker.
        left_mb: memory above that of the idle worker after the last batch, including the in-memory ledger.
    """

    def __init__(self, rows_per_batch: int) -> None:
        self.rows_per_batch = rows_per_batch
        self.seconds: list[float] = []
        self.wall = 0.0
        self.uploads = 0
        self.peak_mb = 0.0
        self.left_mb = 0.0

    @property
    def rate(self) -> float:
        """Rows per CPU second."""
        return self.rows_per_batch * len(self.seconds) / sum(self.seconds)


def run(report: Report) -> None:
    """Measure, and report a table, a chart and the ratio."""
    worker_mb = Setup().worker_mb
    rows, groups = [], []
    for per_envelope, per_batch, backlog in (
        (10, traffic.EVENT_ROWS, BACKLOG),
        (1, 5_000, BACKLOG // 10),  # a tenth, to save time
    ):
        drained = drain(backlog, per_envelope, per_batch)
        batch = median(drained.seconds)
        in_lambda = per_batch / (BATCH_SECONDS + batch * CORE_MB / worker_mb)
        allowed = SHARD_READ_BYTES / (ROW_BYTES + ENVELOPE_BYTES / per_envelope)
        rows.append(
            [
                f"{backlog:,}, {per_envelope} per envelope",
                f"{len(drained.seconds):,} of {per_batch:,} rows",
                f"{sum(drained.seconds):.1f} s",
                f"{drained.wall:.1f} s",
                f"{drained.rate:,.0f}/s",
                times(drained.rate / RATE),
                f"{batch * 1000:.1f} / {max(drained.seconds) * 1000:.0f} ms",
                f"{drained.uploads:,}",
                f"{drained.peak_mb:.0f} / {drained.left_mb:.0f} MB",
            ]
        )
        bars_shown = [
            Bar("worker, one core", drained.rate, f"{drained.rate / 1000:,.0f} k/s", ours=True),
            Bar("worker in Lambda, one shard", in_lambda, f"{in_lambda / 1000:,.1f} k/s", ours=True),
            Bar("Kinesis, one shard", allowed, f"{allowed / 1000:,.1f} k/s"),
            Bar("arrival rate", RATE, f"{RATE / 1000:,.1f} k/s"),
        ]
        groups.append(Group(f"events per second, {per_envelope} per envelope", bars_shown))
        if per_envelope == 10:
            report.ratio("drain_ratio", drained.rate / RATE)
    report.table(
        (
            "events",
            "batches",
            "CPU",
            "wall",
            "rate by CPU",
            f"vs. {RATE:,}/s",
            "median / longest batch",
            "uploads",
            "memory peak / left",
        ),
        rows,
    )
    report.say(
        f"In Lambda, a batch also waits for the ledger and Treasure Data, assumed to take {BATCH_SECONDS:.2f} s, and {worker_mb} MB"
        f" of memory get {worker_mb / CORE_MB:.2f} of a core. Kinesis delivers 2 MB a second per shard to all readers together."
        " This is the bottleneck, so a stream with twice the shards drains twice as fast."
    )
    title = "Draining a backlog of 3.6 million events"
    report.chart("drain", title, bars(title, groups))


def drain(backlog: int, per_envelope: int, per_batch: int) -> Drained:
    """Deliver a backlog in consecutive batches of the same rows, and return its cost."""
    drained = Drained(per_batch)
    made = traffic.event(per_batch, ACCOUNTS, per_envelope)
    with services.running() as url:
        work = delivery(ACCOUNTS, url)
        work.run(traffic.event(100, ACCOUNTS), 120_000)
        gc.collect()
        idle = memory.resident_kb()
        peak = 0
        for number in range(1, backlog // per_batch + 1):
            text = json.dumps(traffic.later(made, number)).encode()
            gc.collect()
            memory.forget_peak()
            began, wall = time.process_time(), time.perf_counter()
            held = work.run(json.loads(text), 120_000)["batchItemFailures"]
            drained.seconds.append(time.process_time() - began)
            drained.wall += time.perf_counter() - wall
            peak = max(peak, memory.peak_kb())
            if held:
                raise RuntimeError(held)
        gc.collect()
        drained.peak_mb = (peak - idle) / 1024
        drained.left_mb = (memory.resident_kb() - idle) / 1024
        if work.telemetry.total("span", "waiting"):
            raise RuntimeError("not all rows were delivered")
    chunks = [fields["chunks"] for fields in work.telemetry.said("span")]
    drained.uploads = sum(chunks[1:])
    return drained
