"""A stream, a queue and a clock for the tests of the drainer."""

from collections.abc import Callable
from typing import Any

from botocore.exceptions import ClientError, ReadTimeoutError

from local.kinesis_memory import MemoryKinesis
from shared.envelope import Envelope, TableRows

START = 1_764_000_000.0
STREAM = "events"


class ManualClock:
    """Time that passes only when somebody waits."""

    def __init__(self, now: float = START) -> None:
        self.time = now

    def now(self) -> float:
        """Return UNIX seconds."""
        return self.time

    def sleep(self, seconds: float) -> None:
        """Let that time pass."""
        self.time += seconds


def refusal(code: str, operation: str) -> ClientError:
    """Return what boto3 raises for an error code."""
    return ClientError({"Error": {"Code": code, "Message": code}}, operation)


def timeout() -> ReadTimeoutError:
    """Return what boto3 raises when no answer came."""
    return ReadTimeoutError(endpoint_url="https://kinesis.invalid")


class WatchedKinesis:
    """A Kinesis client that writes down the calls and can be told to fail.

    Attributes:
        calls: `(operation, UNIX seconds, arguments)` of each call.
        faults: by operation, what to do instead of the next calls; an exception is raised, a callable is called
            with the arguments, None lets the call through.
        page: how many records GetRecords answers at most.
    """

    def __init__(self, kinesis: MemoryKinesis, clock: ManualClock, page: int = 10_000) -> None:
        self._kinesis = kinesis
        self._clock = clock
        self.calls: list[tuple[str, float, dict[str, Any]]] = []
        self.faults: dict[str, list[Any]] = {}
        self.page = page

    def __getattr__(self, operation: str) -> Callable[..., Any]:
        """Return one of the client's calls."""

        def call(**arguments: Any) -> Any:
            self.calls.append((operation, self._clock.now(), arguments))
            fault = self.faults[operation].pop(0) if self.faults.get(operation) else None
            if isinstance(fault, Exception):
                raise fault
            if fault is not None:
                return fault(**arguments)
            if operation == "get_records":
                arguments.setdefault("Limit", self.page)
            return getattr(self._kinesis, operation)(**arguments)

        return call

    def called(self, operation: str) -> list[dict[str, Any]]:
        """Return the arguments of each call of an operation."""
        return [arguments for name, _, arguments in self.calls if name == operation]


def stream(clock: ManualClock, shards: int = 1) -> MemoryKinesis:
    """Return a client of an empty stream."""
    kinesis = MemoryKinesis(clock.now)
    kinesis.create_stream(StreamName=STREAM, ShardCount=shards)
    return kinesis


def an_envelope(request_id: str, *, account: str = "shop", attempt: int = 0, at: float = START) -> Envelope:
    """Return an envelope of one row."""
    row = b"\x82\xa4time\xce\x69\x24\x6b\x00\xa8event_id" + bytes((0xA0 + len(request_id),))
    rows = TableRows("pageviews", 1, row + request_id.encode())
    return Envelope(account, "k1", int(at * 1000), request_id, attempt, (rows,))
