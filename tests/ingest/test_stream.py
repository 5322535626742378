"""What happens to an envelope that the stream stores, rejects, or may have stored."""

import json
import re
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ReadTimeoutError
from hypothesis import given, settings
from hypothesis import strategies as st

from doubles.aws_errors import client_error
from ingest import app, budget, keyring, overflow, stream
from ingest.stream import LONGEST_PUT_SECONDS, PATIENCE_SECONDS
from shared.envelope import Envelope, TableRows
from tests.support.ingest import KEY, Answer, Site, gzipped, http_event

NOT_ACKNOWLEDGED = "the stream did not acknowledge a put"
THROTTLED = "ProvisionedThroughputExceededException"
REFUSED = client_error(THROTTLED, "PutRecord")
DOUBTFUL = ReadTimeoutError(endpoint_url="https://kinesis.invalid")
QUEUE_DOWN = client_error("InternalFailure", "SendMessage", status=500)


def envelopes(count: int, size: int = 10) -> list[Envelope]:
    """Return this many envelopes with one row each."""
    rows = (TableRows("pageviews", 1, bytes(size)),)
    return [Envelope("shop", "k1", 1, f"r{number}", 0, rows) for number in range(count)]


def entries(*codes: str | None) -> dict[str, Any]:
    """Return a response to PutRecords: None acknowledges an entry, any other value is an error code."""
    results = [{"ErrorCode": code} if code else {"SequenceNumber": "1", "ShardId": "s"} for code in codes]
    return {"FailedRecordCount": sum(code is not None for code in codes), "Records": results}


def queued(site: Site) -> list[tuple[str, bool, int | None]]:
    """Return each message's envelope id, whether it is marked as rejected, and its delay."""
    return [
        (item.request_id, "refused" in message["MessageAttributes"], message.get("DelaySeconds"))
        for item, message in zip(site.queued(), site.queue.messages, strict=True)
    ]


@pytest.mark.parametrize(
    ("count", "faults", "calls", "stored", "doubtful"),
    [
        (1, [REFUSED, REFUSED], ["put_record"] * 3, ["r0"], []),
        (3, [entries(None, THROTTLED, None)], ["put_records", "put_record"], ["r1"], []),
        (1, [DOUBTFUL], ["put_record"], [], ["r0"]),
        (3, [DOUBTFUL], ["put_records"], [], ["r0", "r1", "r2"]),
    ],
    ids=["a call", "an entry", "a doubtful call", "several in doubt"],
)
def test_a_definite_rejection_is_retried_and_doubt_is_not(
    count: int, faults: list[Any], calls: list[str], stored: list[str], doubtful: list[str]
) -> None:
    """What was rejected is put again, alone, until it is stored, once. A call in doubt goes to the queue at once, in order."""
    site = Site()
    site.kinesis.faults = list(faults)

    assert [True] * count == site.stream.put(envelopes(count), "shop/3")
    assert calls == [operation for operation, _ in site.kinesis.calls]
    assert stored == [item.request_id for item in site.envelopes()]
    assert [(name, False, None) for name in doubtful] == queued(site)
    assert (0 if doubtful else len(calls) - 1) == site.telemetry.total(NOT_ACKNOWLEDGED, "refused")
    assert len(doubtful) == site.telemetry.total(NOT_ACKNOWLEDGED, "doubtful")
    codes = {fields["code"] for fields in site.telemetry.said(NOT_ACKNOWLEDGED)}
    assert {"ReadTimeoutError" if doubtful else THROTTLED} == codes


@pytest.mark.parametrize(
    ("seconds", "pauses"), [(0.0, [0.025, 0.05, 0.1, 0.2, 0.2, 0.2, 0.2]), (PATIENCE_SECONDS - 0.025, [])]
)
def test_retries_are_limited(seconds: float, pauses: list[float]) -> None:
    """Each pause is a random part, here half, of 50, 100, 200, then 400 ms; none is made that no attempt could follow in a second."""
    site, ends = Site(), list[float]()
    site.clock.time = 0.0  # where sums of seconds are exact
    site.stream._entropy = lambda size: b"\x80" + bytes(size - 1)  # the middle

    def refuse(**_: Any) -> None:
        ends.append(site.clock.now())
        raise REFUSED

    site.kinesis.faults, site.kinesis.sticky, site.kinesis.seconds = [refuse], True, seconds

    assert [True] == site.stream.put(envelopes(1), "shop/3")
    assert pauses == pytest.approx([after - before - seconds for before, after in pairwise(ends)])
    assert (len(pauses) + 1, site.clock.now(), [("r0", True, 0)]) == (len(ends), ends[-1], queued(site))


@pytest.mark.parametrize("seconds", [PATIENCE_SECONDS, 1.5])
def test_a_hanging_stream_costs_one_call(seconds: float) -> None:
    """Once the time limit has passed, what the first call had no room for, counting its keys, goes straight to the queue."""
    site = Site()
    site.kinesis.faults, site.kinesis.sticky, site.kinesis.seconds = [DOUBTFUL], True, seconds

    assert [True] * 16 == site.stream.put(envelopes(16, (5 << 17) - 200), "shop/3")
    assert 1 == len(site.kinesis.calls)
    assert [False] * 7 + [True] * 9 == [refused for _, refused, _ in queued(site)]


def test_a_failing_queue_costs_one_call() -> None:
    """After a failure, the request's other envelopes are not sent; those that it already stored stay stored."""
    site = Site()
    site.kinesis.faults, site.kinesis.sticky = [DOUBTFUL], True
    site.sqs.faults = [None, None, None, QUEUE_DOWN]

    assert [True, True, False, False, False] == site.stream.put(envelopes(5), "shop/3")
    assert (4, 3) == (len(site.sqs.calls), site.telemetry.counts["EnvelopesNotStored"])


def test_a_clock_set_back_does_not_cause_endless_retries() -> None:
    """The number of attempts is limited too."""
    site = Site()
    site.kinesis.faults, site.kinesis.sticky, site.kinesis.seconds = [REFUSED], True, -1.0

    assert [True] == site.stream.put(envelopes(1), "shop/3")
    assert len(site.kinesis.calls) <= 20


def longest_wait(options: Mapping[str, Any]) -> float:
    """Return the longest time in seconds that a call can take with these client options."""
    seconds: float = options["connect_timeout"] + options["read_timeout"]
    return options.get("attempts", 1) * seconds


def test_a_request_has_time_for_the_longest_waits() -> None:
    """Secrets, stream and queue may each take as long as they can before Lambda's timeout."""
    template = (Path(__file__).parents[2] / "template.yaml").read_text()
    [timeout] = re.findall(r"\n  IngestFunction:\n(?:   .*\n)*?      Timeout: (\d+)\n", template)

    put, send, read = [longest_wait(part.CLIENT_OPTIONS) for part in (stream, overflow, keyring)]

    assert (put, 2 * send) == (LONGEST_PUT_SECONDS, overflow.LONGEST_SECONDS)  # a notice and the envelope
    assert read + PATIENCE_SECONDS + put + 2 * send <= app.ANSWER_SECONDS < int(timeout)


@pytest.mark.parametrize("seconds", [0, LONGEST_PUT_SECONDS])
def test_no_put_starts_that_may_end_too_late(seconds: float) -> None:
    """If a put and a message may take longer than the time left, the envelope goes to the queue, with its key."""
    site = Site()
    deadline = site.clock.now() + seconds + overflow.LONGEST_SECONDS

    assert [True] == site.stream.put(envelopes(1), "shop/3", deadline)
    assert ([], [("r0", True, 0)]) == (site.kinesis.calls, queued(site))
    assert "shop/3" == site.queue.messages[0]["MessageAttributes"]["partition_key"]["StringValue"]
    assert [False] == site.stream.put(envelopes(1), "shop/3", deadline - seconds - 0.5)


def test_an_offer_is_made_only_if_it_ends_in_time() -> None:
    """An offer may take as long as a put."""
    site = Site()
    [item], latest = envelopes(1), site.clock.now() + LONGEST_PUT_SECONDS
    site.stream.offer(item, "shop/3", latest - 0.5)
    site.stream.offer(item, "shop/4", latest)

    assert ["shop/4"] == [arguments["PartitionKey"] for _, arguments in site.kinesis.calls]


TABLES = {f"shop.table_{number:03}": [{"a": 1}] for number in range(100)}
"""Each table in a request of an old mobile SDK is a put of its own; the SDK repeats events without a receipt."""


@pytest.mark.parametrize("fault", [REFUSED, DOUBTFUL, None])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/events", [{"table": "pageviews", "a": "x" * 60_000}]),
        ("/v1/events", [{"table": "pageviews", "a": "x" * 60_000}] * 30),
        ("/ios/v3/event", TABLES),
    ],
    ids=["small", "large", "many tables"],
)
def test_the_slowest_request_ends_in_time(path: str, body: Any, fault: Exception | None) -> None:
    """Every call takes as long as it can; events that were not stored in time are not accepted."""
    site = Site()
    site.kinesis.faults, site.kinesis.sticky = [fault], True
    parts = {stream: site.kinesis, overflow: site.sqs, keyring: site.secrets, budget: site.dynamodb}
    for part, client in parts.items():
        client.seconds = longest_wait(part.CLIENT_OPTIONS)
    started, headers = site.clock.now(), {"x-td-write-key": KEY, "x-write-key": KEY}

    answer = site.send(http_event("POST", path, "", headers, gzipped(json.dumps(body).encode())))

    assert site.clock.now() - started <= app.ANSWER_SECONDS
    tables = [table for item in [*site.envelopes(), *site.queued()] for table in item.tables]
    stored = [f"shop.{table.table}" for table in tables for _ in range(table.row_count)]
    if body is TABLES:
        accepted = [table for table, [receipt] in answer.json.items() if receipt["success"]]
    else:
        accepted = ["shop.pageviews"] * answer.json["accepted"]
    assert (200, stored) == (answer.status, accepted)
    assert stored


answers = st.lists(st.sampled_from([None, THROTTLED, "InternalFailure"]), min_size=10, max_size=10)
schedules = st.lists(answers | st.sampled_from([None, REFUSED, DOUBTFUL]), max_size=8)
"""The stream's response to each call; surplus entries are ignored."""


class Partial:
    """A Kinesis client that follows a schedule and records what it acknowledged and what it may have stored."""

    def __init__(self, schedule: list[Any]) -> None:
        self.schedule = list(schedule)
        self.acknowledged: list[bytes] = []
        self.doubtful: list[bytes] = []

    def put_record(self, *, StreamName: str, **entry: Any) -> dict[str, Any]:  # noqa: N803 -- boto3's names
        """Put one record."""
        [result] = self.put_records(StreamName=StreamName, Records=[entry])["Records"]
        if code := result.get("ErrorCode"):
            raise client_error(code, "PutRecord", status=400 if code == THROTTLED else 500)
        return dict(result)

    def put_records(self, *, StreamName: str, Records: list[Any]) -> dict[str, Any]:  # noqa: ARG002, N803
        """Put several records."""
        step = self.schedule.pop(0) if self.schedule else None
        if step is DOUBTFUL:
            self.doubtful += [entry["Data"] for entry in Records]
        if isinstance(step, Exception):
            raise step
        codes = (step or [None] * 10)[: len(Records)]
        for entry, code in zip(Records, codes, strict=True):
            if code != THROTTLED:
                (self.doubtful if code else self.acknowledged).append(entry["Data"])
        return entries(*codes)


@settings(max_examples=200)
@given(st.integers(1, 10), schedules, st.lists(st.sampled_from([None, QUEUE_DOWN]), max_size=4))
def test_durable_means_acknowledged_once(count: int, schedule: list[Any], queue: list[Any]) -> None:
    """A durable envelope is in the stream or the queue, another in neither. What may be stored is in doubt and not put again."""
    site = Site()
    partial = Partial(schedule)
    site.stream._client = partial
    site.sqs.faults = queue
    made = envelopes(count)

    durable = site.stream.put(made, "shop/3")

    stored = [*partial.acknowledged, *(item.encode() for item in site.queued())]
    assert sorted(item.encode() for item, yes in zip(made, durable, strict=True) if yes) == sorted(stored)
    assert set() == set(partial.acknowledged) & set(partial.doubtful)
    assert len(partial.doubtful) == len(set(partial.doubtful))
    doubted = {item.request_id for item in made if item.encode() in partial.doubtful}
    assert doubted >= {name for name, refused, _ in queued(site) if not refused}
    assert not doubted & {name for name, refused, _ in queued(site) if refused}


def test_a_request_that_is_not_stored_gets_503() -> None:
    """`Retry-After` says when to send it again, and no event of the request was accepted."""
    site = Site()
    site.kinesis.faults, site.kinesis.sticky = [DOUBTFUL], True
    site.sqs.faults, site.sqs.sticky = [QUEUE_DOWN], True

    for answer in (site.pixel(""), site.post([{"table": "pageviews"}, {"no": "table"}])):
        assert (503, "stream_unavailable", "5") == (answer.status, answer.code, answer.headers["retry-after"])
    assert {"EnvelopesNotStored": 2, "RequestsFailed": 2} == site.telemetry.counts


def test_a_request_may_be_stored_in_part() -> None:
    """Events of envelopes that neither stream nor queue stored are rejected one by one, in order with other rejections."""
    site = Site()
    events: list[Any] = [{"table": "pageviews", "a": "x" * 200_000} for _ in range(9)]
    events.insert(4, "no event")
    site.kinesis.faults = [entries(None, "InternalFailure", None)]
    site.sqs.faults = [QUEUE_DOWN]

    answer = site.post(gzipped(json.dumps(events).encode()), "ids=1")

    assert (200, 6) == (answer.status, answer.json["accepted"])
    assert [3, 4, 5, 6] == [index for index, one in enumerate(answer.json["event_ids"]) if one is None]
    lost = [(index, "stream_unavailable") for index in (3, 5, 6)]
    rejected = [(item["index"], item["code"]) for item in answer.json["rejected"]]
    assert sorted([*lost, (4, "not_an_object")]) == rejected
    assert {"EventsRejected": 4, "EnvelopesNotStored": 1} == site.telemetry.counts


# `GET /health/ready` tells uptime checks whether the ingest can store events.


def ready(site: Site) -> Answer:
    """Ask whether the site is ready."""
    return site.get("/health/ready")


def described(status: str) -> dict[str, dict[str, str]]:
    """Return a description of the stream."""
    return {"StreamDescriptionSummary": {"StreamStatus": status}}


def test_a_new_sandbox_describes_the_stream() -> None:
    """It asks Kinesis once, and again only after the answer has expired. A stream accepts records while its shards change."""
    site = Site()
    site.kinesis.faults = [None, described("UPDATING")]

    answers = [ready(site), ready(site), ready(site)]
    site.clock.sleep(5)
    answers.append(ready(site))

    told = [(one.status, one.json, one.headers["cache-control"]) for one in answers]
    assert [(200, {"status": "ready"}, "no-store")] * 4 == told
    assert ["describe_stream_summary"] * 2 == [operation for operation, _ in site.kinesis.calls]
    assert {} == site.telemetry.counts


@pytest.mark.parametrize(
    ("fault", "codes"),
    [
        (client_error("AccessDeniedException", "DescribeStreamSummary"), ["AccessDeniedException"]),
        (DOUBTFUL, ["ReadTimeoutError"]),
        ({}, ["unreadable"]),
        ({"StreamDescriptionSummary": None}, ["unreadable"]),
        (described("DELETING"), []),
        (described("CREATING"), []),
    ],
    ids=repr,
)
def test_a_stream_that_is_not_known_to_be_active_is_not_ready(fault: object, codes: list[str]) -> None:
    """Only the documented response counts; a failed call is logged, but is not an error of the ingest."""
    site = Site()
    site.kinesis.faults = [fault]

    answer = ready(site)

    assert (503, {"status": "unavailable"}, None) == (answer.status, answer.json, answer.code)
    assert {"NotReady": 1} == site.telemetry.counts
    assert codes == [fields["code"] for fields in site.telemetry.said("the stream cannot be described")]


def test_the_last_put_decides_for_five_minutes() -> None:
    """If it failed, the ingest is not ready; if it was acknowledged, Kinesis is not asked. Offers of rejected events do not count."""
    site = Site()
    site.kinesis.faults, site.sqs.faults = [QUEUE_DOWN, None, QUEUE_DOWN], [QUEUE_DOWN]

    found = []
    for send in (lambda: site.post([{}]), lambda: site.pixel("a=1"), lambda: site.pixel("a=1")):
        send()
        found.append((ready(site).status, site.kinesis.calls[-1][0]))
    for seconds in (299, 1):
        site.clock.sleep(seconds)
        found.append((ready(site).status, site.kinesis.calls[-1][0]))

    look, put = "describe_stream_summary", "put_record"
    assert [(200, look), (503, put), (200, put), (200, put), (200, look)] == found
