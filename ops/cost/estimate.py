"""Estimates what a stack costs per month: the usage of each service for a number of events, times AWS's prices.

There are three kinds of inputs. Setup has the template's settings. CPU times of whole cores were measured
(docs/internals/performance.md). What only AWS can show, such as the response times of its services, is marked as assumed.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

from ops.screen import plural, short

HOURS = 730
SECONDS = HOURS * 3600
"""A month."""

CORE_MB = 1769
"""Memory at which Lambda gives a function one whole core; with less memory, proportionally less."""

INGEST_REQUEST_CPU, INGEST_EVENT_CPU = 300e-6, 10e-6
"""Measured CPU seconds of a warm request, two thirds of it Lambda's own runtime, and of each of its events."""
WORKER_BATCH_CPU, WORKER_ROW_CPU = 4e-3, 3e-6
"""At most: CPU seconds of a batch, with its calls to S3, the ledger and Treasure Data, and of each row."""
ROW_BYTES, ENVELOPE_BYTES, COMPRESSION = 440, 100, 6
"""Measured: a recorded page view as a row, what an envelope adds, and how many times smaller gzip makes them."""
STORED_COMPRESSION = 5
"""Assumed: how many times smaller than its records a span's object is."""

PUT_SECONDS, BATCH_SECONDS, SENDER_SECONDS = 0.010, 0.350, 0.3
"""Assumed: how long a request waits for the stream, a batch for S3, the ledger and Treasure Data, and a run of the sender for the ledger."""
COLD_SHARE, COLD_SECONDS = 0.002, 0.5
"""Assumed: the share of requests that start a function instance, and how long the start is billed."""
PEAK = 5
"""Assumed: the busiest hour's rate, as a multiple of the month's mean."""
BATCH_LOG_BYTES, RUN_LOG_BYTES = 550, 400
"""Counted: a batch and a run of the sender log one line each, with 26 bytes of overhead; an accepted request logs nothing."""
SENDER_READS = 16
"""Counted: queries of a run of the sender that finds nothing waiting."""
ACCESS_LOG_BYTES = 450
"""Counted: a line of the access log, if it is on."""
ANSWER_BYTES = 600
"""Counted: headers and body of a response."""
LEDGER_WRITES, LEDGER_ITEM_BYTES = 4, 900
"""Counted: write units of a span's two writes, each of which changes the worklist too, and the size of its item, kept for a year, with
DynamoDB's overhead."""
CLAIM_WRITES, CLAIM_BYTES, CLAIM_DAYS = 1, 350, 45
"""Counted: write units of the claim of a request with a batch id, its size with DynamoDB's overhead, and how long it is kept."""
METRICS_SENT = 2
"""Assumed: metrics that are sent every hour (rejected events, the oldest waiting row). The others are sent only if something is wrong."""
API_TIER = 3e8
"""Requests per month above which API Gateway charges less for each."""
QUEUE_POLLS = 650_000
"""Assumed: receive calls per month with which Lambda polls the overflow queue."""
SECRET_CALLS = 50_000
"""Assumed: reads of secrets per month. Each function instance reads them every few minutes."""
POLICY_SECONDS, INSTANCE_RATE = 60, 20
"""How often each instance of the ingest reads the edge policy, and its average rate in requests per second (assumed)."""
KEY_SECONDS, KEY_READERS = 300, 2
"""How often Kinesis asks for the stream's key again, as AWS says, for each instance that puts records and for each that reads them."""
EVENTS_PER_VISIT, SCRIPT_BYTES = 20, 4300
"""Assumed: events per download of the script; and the script's size. Pixels are images, which need no script."""

SECRETS: Mapping[str, int] = {"managed": 2, "existing": 3, "external": 3}
"""Counted, by Network: write keys, Treasure Data's API key, and the URL of a Redis that is not managed."""

AUTO_SHARE = 0.7
"""Share of its capacity at which an AUTO stream grows. A test compares it with the scaler's rule."""
SCALER_MINUTES, BACKLOG_MINUTES = 5, 1
"""How often the scaler runs, and looks at the overflow queue, with a call to SQS and one to S3."""
SCALER_METRICS, SCALER_SECONDS, SCALER_MB = 3, 0.3, 256
"""Metrics that the scaler reads per run, how long a run or a look takes (assumed), and memory."""
ON_DEMAND_SHARDS = 4
"""Shards of a new on-demand stream."""
SHARD_RECORDS, SHARD_BYTES = 1000, 1_000_000
"""A shard's write capacity per second."""
BATCH_SIZE = 5000
"""The most records per invocation of the worker, in the template."""
EVENT_BYTES = 4_500_000
"""The most record data per invocation, before base64."""


@dataclass(frozen=True, slots=True)
class Workload:
    """The traffic.

    Attributes:
        per_request: events per request; 1 without batch ids stands for pixels.
        batch_ids: whether each request carries a batch id, as from the browser SDK and the server client.
    """

    events: float
    per_request: float = 1.0
    batch_ids: bool = False

    @property
    def requests(self) -> float:
        """Requests per month. Each puts one record on the stream."""
        return self.events / self.per_request

    @property
    def are_pixels(self) -> bool:
        """Whether the requests are images, which need no script."""
        return self.per_request == 1 and not self.batch_ids

    @property
    def record_bytes(self) -> float:
        """Size of a record, in bytes."""
        return ENVELOPE_BYTES + self.per_request * ROW_BYTES


IDLE = Workload(1)
"""No traffic, except for one event that avoids divisions by zero."""


@dataclass(frozen=True, slots=True)
class Setup:
    """The template's settings. A test compares the defaults with the template's.

    Attributes:
        network: `managed`, or `existing` or `external`, of which the estimate includes no cost.
        stream_mode: `AUTO`, `PROVISIONED` or `ON_DEMAND`.
        shards: of a provisioned stream.
        max_shards: of any other stream.
        throttling_rate: the most requests per second.
        window: how long a batch may fill, in seconds.
        alarms: metrics watched by alarms; AWS charges for each.
        is_prod: whether the ledger has point-in-time recovery.
        sdk_hosting: whether visitors download the script from the stack.
    """

    network: str = "managed"
    stream_mode: str = "AUTO"
    shards: int = 1
    max_shards: int = 16
    throttling_rate: int = 1000
    archive_days: int = 30
    window: int = 15
    ingest_mb: int = 512
    worker_mb: int = 512
    sender_mb: int = 512
    alarms: int = 23
    sender_minutes: int = 1
    x86: bool = False
    is_prod: bool = False
    access_log: bool = False
    sdk_hosting: bool = True

    @classmethod
    def of(cls, parameters: Mapping[str, str]) -> Self:
        """Return the setup of a stack with these parameters of the template; missing ones have their defaults."""
        found = {
            field: convert(parameters[name])
            for name, (field, convert) in PARAMETERS.items()
            if name in parameters
        }
        return cls(**found)

    @property
    def most_shards(self) -> int:
        """The most shards that the stream may have."""
        return self.shards if self.stream_mode == "PROVISIONED" else self.max_shards


def _is_on(value: str) -> bool:
    return value == "on"


PARAMETERS: Mapping[str, tuple[str, Callable[[str], Any]]] = {
    "Network": ("network", str),
    "StreamMode": ("stream_mode", str),
    "ShardCount": ("shards", int),
    "MaxShards": ("max_shards", int),
    "ThrottlingRate": ("throttling_rate", int),
    "ArchiveDays": ("archive_days", int),
    "BatchWindowSeconds": ("window", int),
    "Architecture": ("x86", lambda value: value == "x86_64"),
    "Stage": ("is_prod", lambda value: value == "prod"),
    "AccessLog": ("access_log", _is_on),
    "SdkHosting": ("sdk_hosting", _is_on),
}
"""The template's parameters that affect the cost: the member of Setup, and a converter for the value."""


@dataclass(frozen=True, slots=True)
class Line:
    """The cost of one component in US dollars per month, and of which usage."""

    component: str
    usd: float
    of: str


def estimate(workload: Workload, setup: Setup, prices: Mapping[str, float]) -> list[Line]:
    """Return what each component costs per month, most expensive first."""
    return sorted(_Estimate(workload, setup, prices).lines(), key=lambda line: -line.usd)


def total(workload: Workload, setup: Setup, prices: Mapping[str, float]) -> float:
    """Return the total cost per month."""
    return sum(line.usd for line in _Estimate(workload, setup, prices).lines())


def batches(workload: Workload, setup: Setup) -> float:
    """Return the worker's invocations per month: one whenever a window ends or a batch is full."""
    shards = shard_count(workload, setup)
    rate = workload.requests / SECONDS / shards
    full = min(BATCH_SIZE, EVENT_BYTES / workload.record_bytes)
    return shards * SECONDS * max(1 / (max(setup.window, 0.25) + 1 / rate), rate / full)


def shard_count(workload: Workload, setup: Setup) -> int:
    """Return the number of shards in the busiest hour."""
    peak = workload.requests / SECONDS * PEAK
    filled = max(peak / SHARD_RECORDS, peak * workload.record_bytes / SHARD_BYTES)
    if setup.stream_mode == "AUTO":
        return max(1, math.ceil(filled / AUTO_SHARE))
    needed = math.ceil(filled)
    if setup.stream_mode == "PROVISIONED":
        return max(setup.shards, needed)
    return max(ON_DEMAND_SHARDS, 2 * needed)  # capacity for twice the peak of the last month


class _Estimate:
    def __init__(self, workload: Workload, setup: Setup, prices: Mapping[str, float]) -> None:
        self._w = workload
        self._s = setup
        self._p = prices
        self._shards = shard_count(workload, setup)
        self._batches = batches(workload, setup)

    def lines(self) -> Iterator[Line]:
        requests, p = self._w.requests, self._p
        usd = min(requests, API_TIER) * p["api_requests"] + max(0, requests - API_TIER) * p["api_more"]
        yield Line("API Gateway", usd / 1e6, f"{short(requests)} requests")
        yield self._ingest()
        yield self._kinesis()
        yield self._worker()
        yield self._dynamodb()
        yield self._sender()
        yield self._scaler()
        yield Line(
            "SQS and drain",
            QUEUE_POLLS / 1e6 * p["sqs_requests"],
            "polling the overflow queue, which is usually empty",
        )
        yield self._s3()
        yield self._kms()
        yield Line(
            "Secrets Manager",
            SECRETS[self._s.network] * p["secrets"] + SECRET_CALLS / 1e4 * p["secret_calls"],
            f"{SECRETS[self._s.network]} secrets, {short(SECRET_CALLS)} reads",
        )
        yield self._logs()
        yield Line(
            "CloudWatch metrics, alarms",
            METRICS_SENT * p["metrics"] + self._s.alarms * p["alarms"],
            f"{METRICS_SENT} metrics, alarms on {self._s.alarms}",
        )
        if self._s.sdk_hosting and not self._w.are_pixels:
            visits = self._w.events / EVENTS_PER_VISIT
            yield Line(
                "CloudFront",
                visits / 1e4 * p["cloudfront_requests"] + visits * SCRIPT_BYTES / 1e9 * p["cloudfront_data"],
                f"{short(visits)} downloads of the script",
            )
        out = (requests * ANSWER_BYTES + self._compressed) / 1e9
        yield Line("Data transfer out", out * p["data_out"], f"{short(out)} GB of responses and imports")
        if self._s.network == "managed":
            yield Line(
                "ElastiCache Serverless",
                0.1 * HOURS * p["valkey_storage"] + self._batches / 1e6 * p["valkey_units"],
                "the minimum, 0.1 GB",
            )

    @property
    def _compressed(self) -> float:
        return self._w.events * ROW_BYTES / COMPRESSION

    def _ingest(self) -> Line:
        cpu = INGEST_REQUEST_CPU + self._w.per_request * INGEST_EVENT_CPU
        seconds = PUT_SECONDS + elapsed(cpu, self._s.ingest_mb) + COLD_SHARE * COLD_SECONDS
        usd = of_lambda(self._s, self._p, self._w.requests, seconds, self._s.ingest_mb)
        return Line("Lambda, ingest", usd, f"{seconds * 1000:.1f} ms at {self._s.ingest_mb} MB")

    def _worker(self) -> Line:
        rows = self._w.events / self._batches
        cpu = WORKER_BATCH_CPU + rows * WORKER_ROW_CPU
        seconds = BATCH_SECONDS + elapsed(cpu, self._s.worker_mb)
        usd = of_lambda(self._s, self._p, self._batches, seconds, self._s.worker_mb)
        return Line(
            "Lambda, worker",
            usd,
            f"{short(self._batches)} batches of {rows:,.0f} rows, {seconds * 1000:.0f} ms at {self._s.worker_mb} MB",
        )

    def _sender(self) -> Line:
        runs = HOURS * 60 / self._s.sender_minutes
        usd = of_lambda(self._s, self._p, runs, SENDER_SECONDS, self._s.sender_mb)
        return Line("Lambda, sender", usd, f"{short(runs)} runs")

    def _scaler(self) -> Line:
        p, metrics = self._p, SCALER_METRICS if self._s.stream_mode == "AUTO" else 0
        runs, looks = HOURS * 60 / SCALER_MINUTES, HOURS * 60 / BACKLOG_MINUTES
        usd = (
            of_lambda(self._s, p, runs + looks, SCALER_SECONDS, SCALER_MB)
            + runs * metrics / 1000 * p["metric_reads"]
        )
        usd += looks / 1e6 * p["sqs_requests"] + looks / 1000 * p["s3_gets"]
        of = f"{short(runs)} runs, {metrics} metrics read by each, {short(looks)} looks at the overflow queue"
        return Line("Scaler", usd, of)

    def _kinesis(self) -> Line:
        p = self._p
        written = self._w.requests * math.ceil(self._w.record_bytes / 1024) * 1024 / 1e9
        if self._s.stream_mode != "ON_DEMAND":
            units = self._w.requests * math.ceil(self._w.record_bytes / 25_600)
            shard_hours = self._shards * HOURS
            usd = shard_hours * p["shard_hours"] + units / 1e6 * p["put_units"]
            return Line("Kinesis", usd, plural(self._shards, "shard"))
        usd = HOURS * p["stream_hours"] + written * (p["stream_in"] + p["stream_out"])
        return Line("Kinesis", usd, f"on demand, {short(written)} GB")

    def _dynamodb(self) -> Line:
        p, claims = self._p, self._w.requests if self._w.batch_ids else 0.0
        kept = self._batches * 12 * LEDGER_ITEM_BYTES / 1e9
        kept += claims * CLAIM_DAYS * 24 / HOURS * CLAIM_BYTES / 1e9
        looks = HOURS * 60 / self._s.sender_minutes * SENDER_READS
        usd = self._batches / 1e6 * (LEDGER_WRITES * p["writes"] + 0.5 * p["reads"])
        usd += looks / 1e6 * 0.5 * p["reads"]
        usd += claims / 1e6 * CLAIM_WRITES * p["writes"]
        usd += kept * (p["table_storage"] + p["table_backup"] * self._s.is_prod)
        of = f"{short(self._batches)} spans, {short(claims)} claims; {short(kept)} GB after a year"
        return Line("DynamoDB", usd, of)

    def _s3(self) -> Line:
        p, days = self._p, self._s.archive_days
        stored = self._w.requests * self._w.record_bytes / STORED_COMPRESSION / 1e9 * days * 24 / HOURS
        reads = min(self._w.requests, SECONDS / POLICY_SECONDS * self._instances)
        usd = (0.1 + stored) * p["s3_storage"] + reads / 1000 * p["s3_gets"]
        usd += (1 + self._batches / 1000) * p["s3_puts"]
        return Line("S3", usd, f"{short(self._batches)} objects a month, {short(stored)} GB for {days} days")

    @property
    def _instances(self) -> float:
        """Instances of the ingest that live at the same time."""
        return 1 + self._w.requests / SECONDS / INSTANCE_RATE

    def _kms(self) -> Line:
        """Return the cost of AWS's keys: for the stream, and for the functions' environments, which each cold start decrypts."""
        of_stream = SECONDS / KEY_SECONDS * (self._instances + KEY_READERS)
        calls = of_stream + self._w.requests * COLD_SHARE
        return Line("KMS", calls / 1e4 * self._p["key_calls"], f"{short(calls)} requests to AWS's own keys")

    def _logs(self) -> Line:
        of_request = self._s.access_log * ACCESS_LOG_BYTES
        runs = HOURS * 60 / self._s.sender_minutes
        taken = self._w.requests * of_request + self._batches * BATCH_LOG_BYTES + runs * RUN_LOG_BYTES
        taken /= 1e9
        usd = taken * (self._p["logs_in"] + 0.15 * self._p["logs_stored"])  # stored compressed, for a month
        return Line("CloudWatch logs", usd, f"{short(taken)} GB")


def of_lambda(
    setup: Setup, prices: Mapping[str, float], invocations: float, seconds: float, megabytes: int
) -> float:
    """Return what invocations of a function cost that take so many seconds each."""
    price = prices["lambda_x86" if setup.x86 else "lambda_arm"]
    return invocations / 1e6 * prices["lambda_requests"] + invocations * seconds * megabytes / 1024 * price


def elapsed(cpu: float, megabytes: int) -> float:
    """Return how long CPU seconds of a whole core take with a function's share of one."""
    return cpu / min(1.0, megabytes / CORE_MB)
