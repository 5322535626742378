"""What an event source mapping can be told."""

from collections.abc import Mapping as Properties
from dataclasses import dataclass
from typing import Any, Literal, Self

StartingPosition = Literal["TRIM_HORIZON", "LATEST", "AT_TIMESTAMP"]

_RANGES = {
    "batch_size": (1, 10_000),
    "maximum_batching_window_seconds": (0, 300),
    "maximum_retry_attempts": (-1, 10_000),
    "maximum_record_age_seconds": (-1, 604_800),
}

_NAMES = {
    "BatchSize": "batch_size",
    "BisectBatchOnFunctionError": "bisect_batch_on_function_error",
    "MaximumBatchingWindowInSeconds": "maximum_batching_window_seconds",
    "MaximumRecordAgeInSeconds": "maximum_record_age_seconds",
    "MaximumRetryAttempts": "maximum_retry_attempts",
    "ParallelizationFactor": "parallelization_factor",
    "StartingPosition": "starting_position",
    "StartingPositionTimestamp": "starting_position_timestamp",
}

# Where records come from, go to and end is wired by whoever builds the pollers.
_WIRING = frozenset({"DestinationConfig", "Enabled", "EventSourceArn", "FunctionName", "Stream"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapping:
    """The settings of one event source mapping, with Lambda's defaults and ranges.

    Attributes:
        event_source_arn: the stream's ARN.
        starting_position: where reading begins; Lambda has no default for it.
        starting_position_timestamp: UNIX seconds, with AT_TIMESTAMP alone.
        batch_size: records per invocation, 1 … 10,000.
        maximum_batching_window_seconds: how long to wait for a full batch, 0 … 300 s.
        maximum_retry_attempts: retries after the first failure, 0 … 10,000; -1 until the records expire.
        maximum_record_age_seconds: 60 … 604,800 s; -1 until the records expire.
        bisect_batch_on_function_error: halve a failed batch, which uses no retry.
        parallelization_factor: 1; Lambda knows 1 … 10, this double only the order of a whole shard.
        report_batch_item_failures: heed `batchItemFailures` in what the function returns.
        function_arn: stands in failure records.
        role_arn: stands in every record as `invokeIdentityArn`.
        uuid: the mapping's own id; stands in the S3 keys of failure records.

    Raises:
        ValueError: a value that Lambda refuses, or a factor above 1.
    """

    event_source_arn: str
    starting_position: StartingPosition
    starting_position_timestamp: float | None = None
    batch_size: int = 100
    maximum_batching_window_seconds: float = 0
    maximum_retry_attempts: int = -1
    maximum_record_age_seconds: float = -1
    bisect_batch_on_function_error: bool = False
    parallelization_factor: int = 1
    report_batch_item_failures: bool = False
    function_arn: str = "arn:aws:lambda:us-east-1:123456789012:function:WorkerFunction"
    role_arn: str = "arn:aws:iam::123456789012:role/WorkerFunctionRole"
    uuid: str = "00000000-0000-4000-8000-000000000000"

    def __post_init__(self) -> None:
        """Refuse what Lambda refuses."""
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name} is {value}: not within {low} … {high}")
        if -1 < self.maximum_record_age_seconds < 60:
            raise ValueError(
                f"maximum_record_age_seconds is {self.maximum_record_age_seconds}: neither -1 nor at least 60"
            )
        if self.parallelization_factor != 1:
            raise ValueError(
                f"parallelization_factor is {self.parallelization_factor}: only 1 is doubled here"
            )
        if self.starting_position not in ("TRIM_HORIZON", "LATEST", "AT_TIMESTAMP"):
            raise ValueError(f"starting_position is {self.starting_position!r}")
        if (self.starting_position == "AT_TIMESTAMP") != (self.starting_position_timestamp is not None):
            raise ValueError("starting_position_timestamp goes with AT_TIMESTAMP, and only with it")

    @classmethod
    def from_properties(cls, properties: Properties[str, Any], **wiring: Any) -> Self:
        """Return the mapping that a template's properties (`BatchSize: …`) describe.

        Args:
            properties: those of a SAM `Kinesis` event or an `AWS::Lambda::EventSourceMapping`.
            wiring: fields that a template only refers to, such as `event_source_arn`.

        Raises:
            ValueError: a property that this double does not have, or a value that is refused.
        """
        fields: dict[str, Any] = {}
        for name, value in properties.items():
            if name in _NAMES:
                fields[_NAMES[name]] = value
            elif name == "FunctionResponseTypes":
                fields["report_batch_item_failures"] = "ReportBatchItemFailures" in value
            elif name not in _WIRING:
                raise ValueError(f"{name} is not doubled here")
        return cls(**fields, **wiring)

    @property
    def stream_name(self) -> str:
        """The stream's name, the last part of its ARN."""
        return self.event_source_arn.rpartition("/")[2]

    @property
    def region(self) -> str:
        """The stream's region."""
        return self.event_source_arn.split(":")[3]
