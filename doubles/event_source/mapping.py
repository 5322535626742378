"""The settings of an event source mapping."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class EventSourceMapping:
    """The settings that template.yaml chooses; everything else is as in the template.

    Attributes:
        event_source_arn: the stream's ARN.
        batch_size: the most records per invocation, 1 … 10,000.
        maximum_batching_window_seconds: how long to wait for a full batch, 0 … 300 s.
        role_arn: every record's `invokeIdentityArn`.

    Raises:
        ValueError: a value that Lambda rejects.
    """

    event_source_arn: str
    batch_size: int = 100
    maximum_batching_window_seconds: float = 0
    role_arn: str = "arn:aws:iam::123456789012:role/WorkerFunctionRole"

    def __post_init__(self) -> None:
        if not 1 <= self.batch_size <= 10_000:
            raise ValueError(f"batch_size is {self.batch_size}: not within 1 … 10,000")
        if not 0 <= self.maximum_batching_window_seconds <= 300:
            raise ValueError(f"the window is {self.maximum_batching_window_seconds} s: not within 0 … 300 s")

    @property
    def stream_name(self) -> str:
        """The stream's name, the last part of its ARN."""
        return self.event_source_arn.rpartition("/")[2]

    @property
    def region(self) -> str:
        """The stream's region."""
        return self.event_source_arn.split(":")[3]
