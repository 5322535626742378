"""The event source as threads."""

import logging
import threading
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from doubles.event_source import Backlog, EventSource, Mapping
from doubles.kinesis import MemoryKinesis
from shared.clock import SystemClock
from tests.support.event_source import STREAM_ARN

SECONDS = 20


class StoppedClock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        """Begin somewhere."""
        self.seconds = 1_764_000_000.0

    def now(self) -> float:
        """Tell UNIX seconds."""
        return self.seconds

    def sleep(self, seconds: float) -> None:
        """Move on."""
        self.seconds += seconds


class Function:
    """A handler that remembers its calls and can be waited for."""

    def __init__(self, *answers: Any) -> None:
        """Take the first answers; later calls answer nothing."""
        self.calls: list[tuple[list[str], Any]] = []
        self._answers = list(answers)
        self._changed = threading.Condition()

    def __call__(self, event: dict[str, Any], context: Any) -> Any:
        """Answer the next thing, or raise it."""
        with self._changed:
            self.calls.append(([record["kinesis"]["sequenceNumber"] for record in event["Records"]], context))
            answer = self._answers.pop(0) if self._answers else None
            self._changed.notify_all()
        if isinstance(answer, BaseException):
            raise answer
        return answer(context) if callable(answer) else answer

    def wait_for(self, count: int) -> None:
        """Return when there were so many calls."""
        assert self.called(count, SECONDS)

    def called(self, count: int, seconds: float) -> bool:
        """Whether there are so many calls within that time."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self.calls) >= count, seconds)


def mapping(**settings: Any) -> Mapping:
    """Return a mapping of the stream `s`."""
    return Mapping(
        event_source_arn=STREAM_ARN,
        starting_position="TRIM_HORIZON",
        report_batch_item_failures=True,
        **settings,
    )


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
    """What is put before and after the start is handed on, shard by shard and in order, over numbers of any length."""
    function = Function()
    before = put(client, count=12)
    with EventSource(client, mapping(), function, clock=SystemClock(), poll_seconds=0.01):
        function.wait_for(1)
        after = put(client, "d", count=2)
        function.wait_for(2)

    sent = [number for numbers, _ in function.calls for number in numbers]
    assert sent[:12] == before
    assert sent[12:] == after[: len(sent) - 12]


def test_failures_are_sent_again_and_logged(client: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Each failed invocation is one line in the log and is sent again until it succeeds."""
    [number] = put(client)
    function = Function(
        RuntimeError("out of order"), {"batchItemFailures": [{"itemIdentifier": number}]}, object()
    )
    with (
        caplog.at_level(logging.WARNING, "doubles.event_source"),
        EventSource(
            client, mapping(), function, clock=SystemClock(), poll_seconds=0.01, backoff=lambda _: 0.0
        ),
    ):
        function.wait_for(4)

    reasons = [
        record.getMessage().partition("failed: ")[2]
        for record in caplog.records
        if record.name == "doubles.event_source"
    ]
    assert [numbers for numbers, _ in function.calls] == [[number]] * 4
    assert reasons == [
        "RuntimeError: out of order",
        "1 of 1 records are to be sent again",
        "TypeError: Object of type object is not JSON serializable",
    ]


def test_an_answer_after_the_time_out_counts_for_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """A function sees its remaining time shrink; when it answers too late its batch is sent again."""
    clock = StoppedClock()
    client = MemoryKinesis(clock.now)
    client.create_stream(StreamName="s", ShardCount=1)
    [number] = put(client)
    remaining = []

    def overrun(context: Any) -> None:
        remaining.append(context.get_remaining_time_in_millis())
        clock.seconds += 2
        remaining.append(context.get_remaining_time_in_millis())
        clock.seconds += 1
        remaining.append(context.get_remaining_time_in_millis())

    def wait_a_little(_: Any) -> None:
        clock.seconds += 1

    function = Function(overrun, wait_a_little)
    source = EventSource(client, mapping(), function, clock=clock, poll_seconds=0.01, timeout_seconds=3)
    source.start()
    function.wait_for(1)
    while not function.called(2, 0.02):
        clock.seconds += 1
    source.stop()

    assert remaining == [3000, 1000, 0]
    assert [numbers for numbers, _ in function.calls] == [[number]] * 2
    assert "no answer within 3 s" in caplog.text


def test_the_context_is_lambdas(client: Any) -> None:
    """The context tells the function's name, memory, ARN and the invocation's id."""
    put(client)
    function = Function()
    with EventSource(
        client,
        mapping(),
        function,
        clock=SystemClock(),
        poll_seconds=0.01,
        function_name="Worker",
        memory_limit_in_mb=1769,
    ):
        function.wait_for(1)

    [(_, context)] = function.calls
    assert (context.function_name, context.memory_limit_in_mb) == ("Worker", 1769)
    assert context.invoked_function_arn == "arn:aws:lambda:us-east-1:123456789012:function:Worker"
    assert len(context.aws_request_id) == 36


def test_the_backlog_is_told(client: Any) -> None:
    """While the function fails, what waits is counted with its age; when it is settled nothing waits."""
    numbers = put(client, count=3)
    release = threading.Event()
    function = Function(lambda _: release.wait(SECONDS) and None)
    source = EventSource(client, mapping(batch_size=2), function, clock=SystemClock(), poll_seconds=0.01)
    with source:
        function.wait_for(1)
        put(client, "d")
        function.wait_for(2)
        waiting = {entry.shard_id[-1]: entry for entry in source.backlog()}
        release.set()
        function.wait_for(3)
    settled = {entry.shard_id[-1]: entry for entry in source.backlog()}

    busy = next(entry for entry in waiting.values() if entry.count == 3)
    assert 0 <= busy.oldest_seconds < SECONDS
    assert busy.last_settled is None
    [done] = [entry for entry in settled.values() if entry.shard_id == busy.shard_id]
    assert done == Backlog(busy.shard_id, 0, 0.0, numbers[-1])


def test_a_resharding_is_followed() -> None:
    """Children are read after their parent, each in a thread of its own."""
    client = MemoryKinesis(SystemClock().now)
    client.create_stream(StreamName="s", ShardCount=1)
    first = put(client)
    function = Function()
    with EventSource(client, mapping(), function, clock=SystemClock(), poll_seconds=0.01) as source:
        function.wait_for(1)
        client.split_shard(
            StreamName="s", ShardToSplit="shardId-000000000000", NewStartingHashKey=str(1 << 127)
        )
        low, high = put(client, "a"), put(client, "d")
        function.wait_for(3)
    backlog = source.backlog()

    sent = [numbers for numbers, _ in function.calls]
    assert sent[0] == first
    assert sorted(sent[1:]) == sorted([low, high])
    assert sorted(entry.shard_id[-1] for entry in backlog) == ["1", "2"]


def test_it_goes_on_after_a_stop() -> None:
    """A stopped source starts again where it was."""
    client = MemoryKinesis(SystemClock().now)
    client.create_stream(StreamName="s", ShardCount=1)
    first = put(client)
    function = Function()
    source = EventSource(client, mapping(), function, clock=SystemClock(), poll_seconds=0.01)
    with source:
        function.wait_for(1)
    second = put(client)
    with source:
        function.wait_for(2)

    assert [numbers for numbers, _ in function.calls] == [first, second]
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("event source")] == []


def test_a_function_that_left_its_process_only_failed() -> None:
    """A handler that calls `sys.exit` fails its batch as any other exception does."""
    client = MemoryKinesis(SystemClock().now)
    client.create_stream(StreamName="s", ShardCount=1)
    put(client)
    function = Function(SystemExit(3))
    with EventSource(
        client, mapping(), function, clock=SystemClock(), poll_seconds=0.01, backoff=lambda _: 0.0
    ):
        function.wait_for(2)

    assert len(function.calls) == 2


def test_given_up_batches_are_reported() -> None:
    """A batch without retries goes to `on_failure`."""
    client = MemoryKinesis(SystemClock().now)
    client.create_stream(StreamName="s", ShardCount=1)
    put(client)
    told = threading.Event()
    records = []

    def on_failure(record: Any) -> None:
        records.append(record)
        told.set()

    with EventSource(
        client,
        mapping(maximum_retry_attempts=0),
        Function(RuntimeError()),
        clock=SystemClock(),
        poll_seconds=0.01,
        on_failure=on_failure,
    ):
        assert told.wait(SECONDS)

    assert [record.condition for record in records] == ["RetryAttemptsExhausted"]
