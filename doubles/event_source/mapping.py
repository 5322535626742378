"""The settings of an event source mapping."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


def exponential_backoff(failures: int) -> float:
    """Return the seconds to wait after so many failures in a row: 0.3, 0.6, 1.2 … 60.

    AWS does not document its own; these give the eight calls that were recorded within 60 s.
    """
    return min(60.0, 0.3 * 2.0 ** min(failures - 1, 16))


@dataclass(frozen=True, slots=True, kw_only=True)
class EventSourceMapping:
    """The settings that template.yaml chooses, and what fault injection changes; all else is as in the template.

    Attributes:
        event_source_arn: the stream's ARN.
        batch_size: the most records per invocation, 1 … 10,000.
        maximum_batching_window_seconds: how long to wait for a full batch, 0 … 300 s.
        role_arn: every record's `invokeIdentityArn`.
        children_wait: start a child only when its parents are drained. Lambda is known to do so, but AWS does not
            promise it.
        discovery_seconds: how often to look for new shards, besides whenever a shard ends.
        backoff: seconds to wait after that many failures in a row.
        borders: given the records that the next batch can take at most, returns how many it takes; None is all of
            them, and then a batch that failed is sent again as it was.
        on_expired: gets the records that expired before they were settled.
    """

    event_source_arn: str
    batch_size: int = 100
    maximum_batching_window_seconds: float = 0
    role_arn: str = "arn:aws:iam::123456789012:role/WorkerFunctionRole"
    children_wait: bool = True
    discovery_seconds: float = 10
    backoff: Callable[[int], float] = exponential_backoff
    borders: Callable[[Sequence[Any]], int] | None = None
    on_expired: Callable[[Sequence[Any]], None] = lambda _: None

    @property
    def stream_name(self) -> str:
        """The stream's name, the last part of its ARN."""
        return self.event_source_arn.rpartition("/")[2]
