"""The event source in real time."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from doubles.clock import ManualClock
from doubles.event_source import EventSourceMapping
from doubles.event_source.pollers import StreamPoller
from doubles.kinesis import MemoryKinesis
from local.event_source import EventSource
from shared.clock import SystemClock
from tests.support.event_source import STREAM_ARN


@contextmanager
def running(client: MemoryKinesis, function: Callable[..., Any], **options: Any) -> Iterator[None]:
    """Run an event source of the stream `s` with minimal waiting."""
    mapping = EventSourceMapping(event_source_arn=STREAM_ARN, batch_size=10, backoff=lambda _: 0.0)
    options = {"clock": SystemClock(), "poll_seconds": 0.01} | options
    source = EventSource(StreamPoller(client, mapping), function, **options)
    stop = threading.Event()
    thread = threading.Thread(target=source.run, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


class Function:
    """A handler that records its calls. Tests can wait for them."""

    def __init__(self, *results: Any) -> None:
        self.sent: list[list[str]] = []
        self._results = list(results)
        self._changed = threading.Condition()

    def __call__(self, event: dict[str, Any], context: Any) -> Any:
        """Return the next result, or raise it."""
        with self._changed:
            self.sent.append([record["kinesis"]["sequenceNumber"] for record in event["Records"]])
            result = self._results.pop(0) if self._results else None
            self._changed.notify_all()
        if isinstance(result, BaseException):
            raise result
        return result(context) if callable(result) else result

    def wait_for(self, count: int) -> None:
        """Wait until this many records have arrived, including repeated ones."""
        with self._changed:
            assert self._changed.wait_for(lambda: sum(map(len, self.sent)) >= count, 60)


def stream(now: Callable[[], float], shards: int) -> MemoryKinesis:
    """Return a client with a stream `s`."""
    made = MemoryKinesis(now)
    made.create_stream(StreamName="s", ShardCount=shards)
    return made


def put(client: MemoryKinesis, key: str = "a", count: int = 1) -> list[str]:
    """Put records and return their sequence numbers."""
    record = {"StreamName": "s", "Data": b"x", "PartitionKey": key}
    return [client.put_record(**record)["SequenceNumber"] for _ in range(count)]


def test_records_reach_the_function() -> None:
    """Records from before and after the start arrive in order, even while the function is busy with another shard."""
    client, busy = stream(SystemClock().now, 2), threading.Event()
    numbers = put(client, "d")
    function = Function(lambda _: busy.wait(60) and None)
    with running(client, function):
        function.wait_for(1)
        numbers += put(client, count=12)
        function.wait_for(13)
        busy.set()

    assert sorted(numbers) == sorted(number for sent in function.sent for number in sent)
    assert all(sorted(sent, key=int) == sent for sent in function.sent)


def test_failures_are_sent_again_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Each failed invocation is logged and repeated, even if the function exits the process."""
    client = stream(SystemClock().now, 2)
    [number] = put(client)
    report = {"batchItemFailures": [{"itemIdentifier": number}]}
    function = Function(RuntimeError("out of order"), report, object(), SystemExit(3))
    with caplog.at_level(logging.WARNING, "local.event_source"), running(client, function):
        function.wait_for(5)

    logged = [record.getMessage() for record in caplog.records if record.name == "local.event_source"]
    words = ["out of order", "batchItemFailures", "not JSON serializable", "SystemExit"]
    assert [[number]] * 5 == function.sent
    assert [True] * 4 == [word in line for word, line in zip(words, logged, strict=True)]


def test_a_result_after_the_timeout_does_not_count(caplog: pytest.LogCaptureFixture) -> None:
    """A function can see its remaining time. If it returns too late, its batch is sent again."""
    clock = ManualClock()
    client = stream(clock.now, 1)
    [number] = put(client)
    seen: list[Any] = []

    def overrun(context: Any) -> None:
        seen.append((context.function_name, context.memory_limit_in_mb, len(context.aws_request_id)))
        for seconds in (0, 2, 1):
            clock.sleep(seconds)
            seen.append(context.get_remaining_time_in_millis())

    function = Function(overrun)
    with running(client, function, clock=clock, timeout_seconds=3, function_name="Worker"):
        function.wait_for(2)

    assert ([("Worker", 1024, 36), 3000, 1000, 0], [[number]] * 2) == (seen, function.sent)
    assert "it timed out" in caplog.text
