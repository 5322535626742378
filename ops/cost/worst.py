"""The most that a stack can cost: what every limit together lets through, for a whole day, times AWS's prices.

It assumes that somebody sends as many requests as the HTTP API accepts, day and night, and spends each account's whole budget, with rows
that no compression makes smaller. Rates and measured CPU times are those of `ops.cost.estimate`.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from ops.cost.estimate import (
    ANSWER_BYTES,
    BATCH_LOG_BYTES,
    CLAIM_BYTES,
    CLAIM_DAYS,
    EVENT_BYTES,
    IDLE,
    INGEST_EVENT_CPU,
    INGEST_REQUEST_CPU,
    LEDGER_WRITES,
    PUT_SECONDS,
    ROW_BYTES,
    SHARD_BYTES,
    WORKER_BATCH_CPU,
    WORKER_ROW_CPU,
    Line,
    Setup,
    elapsed,
    estimate,
    of_lambda,
)
from ops.screen import plural, short
from shared.policy import AccountLimits

DAY_SECONDS = 86_400
MONTH_DAYS = 365.25 / 12
REFUSAL_LOG_BYTES = 300
"""A log line for a refused request, with CloudWatch's overhead."""
QUEUE_UNIT_BYTES, QUEUE_CALLS = 64 * 1024, 3
"""What SQS bills as one request, and the calls for a message: send, receive, delete."""
COUNTER_CALLS_PER_HOUR = 12_000
"""An account that spends its whole budget: one call for each 0.3 seconds of it."""
CACHE_UNITS, CACHE_GB = 5000, 1
"""The template's limits of the managed Redis: processing units per second, and data."""

_BUDGET = AccountLimits()


def worst(setup: Setup, prices: Mapping[str, float], accounts: int = 1) -> list[Line]:
    """Return what each component costs per day at most, most expensive first. Each account has the default budget."""
    return sorted(_Worst(setup, prices, accounts).lines(), key=lambda line: -line.usd)


def as_object(setup: Setup, prices: Mapping[str, float], accounts: int = 1) -> dict[str, Any]:
    """Return the whole estimate as a JSON object."""
    lines = worst(setup, prices, accounts)
    day = sum(line.usd for line in lines)
    return {
        "requests_per_second": setup.throttling_rate,
        "max_shards": setup.most_shards,
        "accounts": accounts,
        "bytes_per_hour": _BUDGET.bytes_per_hour,
        "events_per_hour": _BUDGET.events_per_hour,
        "components": [
            {"component": line.component, "usd_per_day": line.usd, "of": line.of} for line in lines
        ],
        "usd_per_day": round(day, 2),
        "usd_per_month": round(day * MONTH_DAYS, 2),
    }


class _Worst:
    def __init__(self, setup: Setup, prices: Mapping[str, float], accounts: int) -> None:
        self._s = setup
        self._p = prices
        self._requests = setup.throttling_rate * DAY_SECONDS
        self._bytes = accounts * _BUDGET.bytes_per_hour * 24
        self._events = min(accounts * _BUDGET.events_per_hour * 24, self._requests * 500)
        self._shards = setup.most_shards
        self._accounts = accounts
        self._spans = self._shards * DAY_SECONDS / max(setup.window, 1) + self._bytes / EVENT_BYTES

    def lines(self) -> Iterator[Line]:
        p, requests, gigabytes = self._p, self._requests, self._bytes / 1e9
        yield Line(
            "API Gateway", requests / 1e6 * p["api_requests"], f"{short(requests)} requests of up to 512 KB"
        )
        seconds = PUT_SECONDS + elapsed(
            INGEST_REQUEST_CPU + self._events / requests * INGEST_EVENT_CPU, self._s.ingest_mb
        )
        yield Line(
            "Lambda, ingest",
            of_lambda(self._s, p, requests, seconds, self._s.ingest_mb),
            f"{seconds * 1000:.1f} ms each, as if all were accepted",
        )
        rows = max(self._events, self._bytes / ROW_BYTES)
        busy = elapsed(rows * WORKER_ROW_CPU + self._spans * WORKER_BATCH_CPU, self._s.worker_mb)
        busy += self._spans * 0.35
        yield Line(
            "Lambda, worker",
            of_lambda(self._s, p, self._spans, busy / self._spans, self._s.worker_mb),
            f"{short(self._spans)} batches, {short(rows)} rows",
        )
        yield self._kinesis(gigabytes)
        yield self._queue()
        writes = self._spans * LEDGER_WRITES + requests
        calls = self._accounts * COUNTER_CALLS_PER_HOUR * 24
        kept = requests * CLAIM_DAYS * CLAIM_BYTES / 1e9 * p["table_storage"] / MONTH_DAYS
        yield Line(
            "DynamoDB",
            (writes + calls) / 1e6 * p["writes"] + kept,
            f"{short(self._spans)} spans, {short(requests)} claims, kept {CLAIM_DAYS} days, {short(calls)} counts",
        )
        stored = gigabytes * self._s.archive_days
        yield Line(
            "S3",
            stored * p["s3_storage"] / MONTH_DAYS + self._spans * 2 / 1000 * p["s3_puts"],
            f"{short(stored)} GB after {self._s.archive_days} days, incompressible",
        )
        logged = (requests * REFUSAL_LOG_BYTES + self._spans * BATCH_LOG_BYTES) / 1e9
        yield Line("CloudWatch logs", logged * p["logs_in"], f"{logged:.0f} GB, as if all were refused")
        out = gigabytes + requests * ANSWER_BYTES / 1e9
        yield Line("Data transfer out", out * p["data_out"], f"{out:,.0f} GB of responses and imports")
        if self._s.network == "managed":
            cache = CACHE_GB * 24 * p["valkey_storage"]
            cache += CACHE_UNITS * DAY_SECONDS / 1e6 * p["valkey_units"]
            yield Line("ElastiCache Serverless", cache, "its limits in the template")
        known = {"Secrets Manager", "CloudWatch metrics, alarms", "Lambda, sender", "Scaler"}
        fixed = sum(line.usd for line in estimate(IDLE, self._s, p) if line.component in known)
        yield Line("What does not depend on traffic", fixed / MONTH_DAYS, "secrets, alarms, schedules")

    def _kinesis(self, gigabytes: float) -> Line:
        p = self._p
        if self._s.stream_mode == "ON_DEMAND":
            usd = 24 * p["stream_hours"] + gigabytes * (p["stream_in"] + p["stream_out"])
            return Line("Kinesis", usd, f"on demand, {gigabytes:,.0f} GB")
        units = self._requests + self._bytes / 25_600
        usd = self._shards * 24 * p["shard_hours"] + units / 1e6 * p["put_units"]
        return Line("Kinesis", usd, f"{plural(self._shards, 'shard')} all day, {gigabytes:,.0f} GB")

    def _queue(self) -> Line:
        """Return what overflows all day: the bytes that budgets allow and the stream does not take."""
        capacity = math.inf if self._s.stream_mode == "ON_DEMAND" else self._shards * SHARD_BYTES
        over = max(0.0, self._bytes / DAY_SECONDS - capacity) * DAY_SECONDS
        calls = QUEUE_CALLS * over * 4 / 3 / QUEUE_UNIT_BYTES
        return Line(
            "SQS",
            calls / 1e6 * self._p["sqs_requests"],
            f"{over / 1e9:,.0f} GB that the stream does not take",
        )
