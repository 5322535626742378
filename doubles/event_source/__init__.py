"""The double of Lambda's Kinesis event source mapping, for the local stack, the tests and fault injection.

It has the settings that template.yaml uses: from TRIM_HORIZON on, one batch per shard at a time, with
ReportBatchItemFailures, and without a limit on retries or age, so that only the retention ends a batch.
"""

from doubles.event_source.invocation import Invocation, Outcome, Raised, Returned, TimedOut, settled_count
from doubles.event_source.mapping import EventSourceMapping
from doubles.event_source.record import EVENT_BYTES, EventForm, Record
from doubles.event_source.shard_poller import Borders, ShardPoller, exponential_backoff
from doubles.event_source.source import EventSource
from doubles.event_source.stream_poller import StreamPoller

__all__ = [
    "EVENT_BYTES",
    "Borders",
    "EventForm",
    "EventSource",
    "EventSourceMapping",
    "Invocation",
    "Outcome",
    "Raised",
    "Record",
    "Returned",
    "ShardPoller",
    "StreamPoller",
    "TimedOut",
    "exponential_backoff",
    "settled_count",
]
