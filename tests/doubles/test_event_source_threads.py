"""The event source as threads."""

import logging
import threading
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from doubles.event_source import EventSource, EventSourceMapping
from doubles.kinesis import MemoryKinesis
from shared.clock import SystemClock
from tests.support.event_source import SHARD, STREAM_ARN

SECONDS = 20


class Function:
    """A handler that remembers its calls and can be waited for."""

    def __init__(self, *results: Any) -> None:
        self.calls: list[tuple[list[str], Any]] = []
        self._results = list(results)
        self._changed = threading.Condition()

    def __call__(self, event: dict[str, Any], context: Any) -> Any:
        """Return the next result, or raise it."""
        with self._changed:
            self.calls.append(([record["kinesis"]["sequenceNumber"] for record in event["Records"]], context))
            result = self._results.pop(0) if self._results else None
            self._changed.notify_all()
        if isinstance(result, BaseException):
            raise result
        return result(context) if callable(result) else result

    def wait_for(self, count: int) -> None:
        """Return when there were so many calls."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.calls) >= count, SECONDS)


def source(client: Any, function: Any, **options: Any) -> EventSource:
    """Return an event source of the stream `s` that hardly waits."""
    fast: dict[str, Any] = {"clock": SystemClock(), "poll_seconds": 0.01, "backoff": lambda _: 0.0}
    return EventSource(client, EventSourceMapping(event_source_arn=STREAM_ARN), function, **fast | options)


@pytest.fixture(params=["memory", "moto"])
def client(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A client of either Kinesis, with a stream `s` of two shards."""
    if request.param == "memory":
        memory = MemoryKinesis(SystemClock().now)
        memory.create_stream(StreamName="s", ShardCount=2)
        yield memory
        return
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    moto = boto3.client(
        "kinesis",
        endpoint_url=f"http://{host}:{port}",
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    moto.create_stream(StreamName="s", ShardCount=2)
    yield moto
    moto.delete_stream(StreamName="s")
    moto.close()
    server.stop()


def put(client: Any, key: str = "a", count: int = 1) -> list[str]:
    """Put records and return their sequence numbers."""
    return [
        client.put_record(StreamName="s", Data=b"x", PartitionKey=key)["SequenceNumber"] for _ in range(count)
    ]


def test_records_reach_the_function(client: Any) -> None:
    """Records put before and after the start arrive in order, with Lambda's context, whatever their numbers' length."""
    function = Function()
    before = put(client, count=12)
    with source(client, function, function_name="Worker", memory_limit_in_mb=1769):
        function.wait_for(1)
        after = put(client, "d", count=2)
        function.wait_for(2)

    sent = [number for numbers, _ in function.calls for number in numbers]
    context = function.calls[0][1]
    assert (before, after[: len(sent) - 12]) == (sent[:12], sent[12:])
    assert ("Worker", 1769, 36) == (
        context.function_name,
        context.memory_limit_in_mb,
        len(context.aws_request_id),
    )


def test_failures_are_sent_again_and_logged(client: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Each failed invocation, an exit of the process included, is one line in the log and is repeated."""
    [number] = put(client)
    function = Function(
        RuntimeError("out of order"),
        {"batchItemFailures": [{"itemIdentifier": number}]},
        object(),
        SystemExit(3),
    )
    with caplog.at_level(logging.WARNING, "doubles.event_source"), source(client, function):
        function.wait_for(5)

    reasons = [
        record.getMessage().partition("failed: ")[2]
        for record in caplog.records
        if record.name == "doubles.event_source"
    ]
    assert [[number]] * 5 == [numbers for numbers, _ in function.calls]
    assert [
        "RuntimeError: out of order",
        "1 of 1 records will be sent again",
        "TypeError: Object of type object is not JSON serializable",
        "SystemExit: 3",
    ] == reasons


class ManualClock:
    """A clock that the function moves."""

    seconds = 1_764_000_000.0

    def now(self) -> float:
        """Return UNIX seconds."""
        return self.seconds

    def sleep(self, seconds: float) -> None:
        """Move on."""
        self.seconds += seconds


def test_a_result_after_the_time_out_does_not_count(caplog: pytest.LogCaptureFixture) -> None:
    """A function sees its remaining time shrink; if it returns too late, its batch is sent again."""
    clock = ManualClock()
    client = MemoryKinesis(clock.now)
    client.create_stream(StreamName="s", ShardCount=1)
    [number] = put(client)
    remaining = []

    def overrun(context: Any) -> None:
        for seconds in (0, 2, 1):
            clock.sleep(seconds)
            remaining.append(context.get_remaining_time_in_millis())

    function = Function(overrun)
    with source(client, function, clock=clock, timeout_seconds=3):
        function.wait_for(2)

    assert ([3000, 1000, 0], [[number]] * 2) == (remaining, [numbers for numbers, _ in function.calls])
    assert "no result within 3 s" in caplog.text


def test_a_resharding_is_followed() -> None:
    """Children are read after their parent, each in a thread of its own, and all threads end with the source."""
    client = MemoryKinesis(SystemClock().now)
    client.create_stream(StreamName="s", ShardCount=1)
    first = put(client)
    function = Function()
    with source(client, function):
        function.wait_for(1)
        client.split_shard(StreamName="s", ShardToSplit=SHARD, NewStartingHashKey=str(1 << 127))
        low, high = put(client, "a"), put(client, "d")
        function.wait_for(3)

    sent = [numbers for numbers, _ in function.calls]
    assert (first, sorted([low, high])) == (sent[0], sorted(sent[1:]))
    assert [] == [thread.name for thread in threading.enumerate() if thread.name.startswith("event source")]
