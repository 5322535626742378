"""What Lambda tells an on-failure destination about a batch that it gave up.

The form is that of recorded ones; the S3 form carries the event too, as text.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from doubles.event_source.mapping import Mapping
from doubles.event_source.outcome import Raised, Returned, TimedOut
from doubles.event_source.record import Record

Condition = Literal["RetryAttemptsExhausted", "RecordAgeExceeded"]


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureRecord:
    """A batch that was given up, and why.

    Attributes:
        request_id: of the last invocation, or one of its own where the function was never called.
        invoke_count: how often the function was called for the batch; Lambda says 1 where it never was.
        outcome: of the last invocation; None when the records became too old.
        failed_at: UNIX seconds.
    """

    mapping: Mapping
    shard_id: str
    condition: Condition
    request_id: str
    invoke_count: int
    outcome: Returned | Raised | TimedOut | None
    records: tuple[Record, ...]
    event: dict[str, Any]
    failed_at: float

    def message(self) -> dict[str, Any]:
        """Return what SQS and SNS get: metadata alone."""
        first, last = self.records[0], self.records[-1]
        message: dict[str, Any] = {
            "requestContext": {
                "requestId": self.request_id,
                "functionArn": self.mapping.function_arn,
                "condition": self.condition,
                "approximateInvokeCount": self.invoke_count,
            },
            "version": "1.0",
            "timestamp": _utc(self.failed_at),
            "KinesisBatchInfo": {
                "shardId": self.shard_id,
                "startSequenceNumber": first.sequence_number,
                "endSequenceNumber": last.sequence_number,
                "approximateArrivalOfFirstRecord": _utc(first.arrival),
                "approximateArrivalOfLastRecord": _utc(last.arrival),
                "batchSize": len(self.records),
                "streamArn": self.mapping.event_source_arn,
            },
        }
        if self.outcome is not None:
            message["responseContext"] = {
                "statusCode": 200,
                "executedVersion": "$LATEST",
                "functionError": None if isinstance(self.outcome, Returned) else "Unhandled",
            }
        return message

    def s3_object(self, new_id: Callable[[], str]) -> tuple[str, dict[str, Any]]:
        """Return the key and the JSON value of the object that S3 gets: metadata and the event.

        Args:
            new_id: makes the random end of the key.
        """
        time = datetime.fromtimestamp(self.failed_at, UTC)
        key = (
            f"aws/lambda/{self.mapping.uuid}/{self.shard_id}/{time:%Y/%m/%d}/"
            f"{time:%Y-%m-%dT%H.%M.%S}-{new_id()}"
        )
        return key, self.message() | {"payload": json.dumps(self.event, separators=(",", ":"))}
