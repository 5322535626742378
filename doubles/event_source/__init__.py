"""The double of Lambda's Kinesis event source mapping, for the local stack, the tests and fault injection.

It has the settings that template.yaml uses: from TRIM_HORIZON on, one batch per shard at a time, with
ReportBatchItemFailures, and without a limit on retries or age, so that only the retention ends a batch.
"""

from doubles.event_source.invocation import (
    EventSourceMapping,
    Invocation,
    Outcome,
    Raised,
    Record,
    Returned,
    TimedOut,
    event_of,
)
from doubles.event_source.pollers import StreamPoller

__all__ = [
    "EventSourceMapping",
    "Invocation",
    "Outcome",
    "Raised",
    "Record",
    "Returned",
    "StreamPoller",
    "TimedOut",
    "event_of",
]
