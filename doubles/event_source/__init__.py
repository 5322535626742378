"""The double of Lambda's Kinesis event source mapping, for the local stack, the tests and the fault harness."""

from doubles.event_source.backlog import Backlog
from doubles.event_source.failure_record import FailureRecord
from doubles.event_source.invocation import Invocation
from doubles.event_source.mapping import Mapping, StartingPosition
from doubles.event_source.outcome import Outcome, Raised, Returned, Throttled, TimedOut, settled_count
from doubles.event_source.record import EVENT_BYTES, Record
from doubles.event_source.runner import EventSource
from doubles.event_source.shard_poller import Borders, ShardPoller, exponential_backoff
from doubles.event_source.stream_poller import StreamPoller

__all__ = [
    "EVENT_BYTES",
    "Backlog",
    "Borders",
    "EventSource",
    "FailureRecord",
    "Invocation",
    "Mapping",
    "Outcome",
    "Raised",
    "Record",
    "Returned",
    "ShardPoller",
    "StartingPosition",
    "StreamPoller",
    "Throttled",
    "TimedOut",
    "exponential_backoff",
    "settled_count",
]
