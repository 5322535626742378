"""Gives the stream its mode and its number of shards, step by step, because Kinesis at most doubles or halves a stream at a time.

The template creates every stream with one shard and never changes that: CloudFormation would ask for a new number in one call, which
Kinesis refuses if it is too far from the current one.
"""

from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from scaler.rule import RECENT_SECONDS, Minute, target
from shared.clock import Clock
from shared.errors import aws_errors, error_code
from shared.settings import ScalerSettings
from shared.telemetry import Telemetry

if TYPE_CHECKING:
    from mypy_boto3_cloudwatch import CloudWatchClient
    from mypy_boto3_cloudwatch.type_defs import DimensionTypeDef, MetricDataQueryTypeDef
    from mypy_boto3_kinesis import KinesisClient
    from mypy_boto3_kinesis.type_defs import StreamDescriptionSummaryTypeDef

_DAY_SECONDS = 86_400
_POLL_SECONDS = 5.0
_METRICS = {
    "records": "IncomingRecords",
    "size": "IncomingBytes",
    "throttled": "WriteProvisionedThroughputExceeded",
}


class Scaler:
    """Keeps one stream in its mode and as large as its settings or its traffic ask for.

    Args:
        kinesis: a boto3 client.
        cloudwatch: a boto3 client.
        settings: names the stream, its mode and its limits.
        clock: tells the time and waits.
        telemetry: logs each change, and counts runs that fail or find MaxShards too few.
    """

    def __init__(
        self,
        *,
        kinesis: "KinesisClient",
        cloudwatch: "CloudWatchClient",
        settings: ScalerSettings,
        clock: Clock,
        telemetry: Telemetry,
    ) -> None:
        self._kinesis = kinesis
        self._cloudwatch = cloudwatch
        self._settings = settings
        self._clock = clock
        self._telemetry = telemetry

    def run(self, until: float) -> int | None:
        """Change the stream until it has the mode and the shards that it should.

        A change takes Kinesis half a minute or more, and can at most double or halve the stream. If time runs out, the next run
        continues, because it has the same target.

        Args:
            until: UNIX seconds after which no further change starts.

        Returns:
            The number of shards; None while a change is under way, or if Kinesis or CloudWatch failed.
        """
        try:
            shards = self._in_mode(until)
            if shards is None or self._settings.stream_mode == "ON_DEMAND":
                return shards
            wanted = self._settings.shard_count if self._settings.stream_mode == "PROVISIONED" else None
            if wanted is None and (wanted := self._needed(shards)) is None:
                return shards
            while shards is not None and shards != wanted and self._clock.now() < until:
                shards = self._resize(shards, max(min(wanted, 2 * shards), -(-shards // 2)), until)
        except aws_errors() as error:
            self._telemetry.warning(
                "the stream could not be changed; the next run tries again", reason=error_code(error)
            )
            self._telemetry.count("ScalerFailures")
            return None
        return shards

    def _in_mode(self, until: float) -> int | None:
        """Give the stream its mode; return its number of shards, None while it is changing."""
        found = self._look()
        mode: Literal["ON_DEMAND", "PROVISIONED"] = (
            "ON_DEMAND" if self._settings.stream_mode == "ON_DEMAND" else "PROVISIONED"
        )
        if found is None or found["StreamModeDetails"]["StreamMode"] == mode:
            return found and found["OpenShardCount"]
        self._telemetry.warning("the stream's mode is being changed", to=mode)
        self._kinesis.update_stream_mode(StreamARN=found["StreamARN"], StreamModeDetails={"StreamMode": mode})
        return self._changed(until)

    def _look(self) -> "StreamDescriptionSummaryTypeDef | None":
        """Describe the stream; None while it is changing."""
        found = self._kinesis.describe_stream_summary(StreamName=self._settings.stream_name)
        summary = found["StreamDescriptionSummary"]
        return summary if summary["StreamStatus"] == "ACTIVE" else None

    def _needed(self, shards: int) -> int | None:
        """Return how many shards the traffic needs, at most MaxShards; None if the metrics do not say."""
        day = self._day()
        if day is None:
            return None
        now, most = self._clock.now(), self._settings.max_shards
        recent = [minute for at, minute in day.items() if at.timestamp() >= now - RECENT_SECONDS]
        wanted = target(shards, list(day.values()), recent, now)
        if wanted > most and any(minute.throttled for minute in recent):
            self._telemetry.count("ShardsExhausted")
            self._telemetry.warning(
                "the stream throttles puts, and MaxShards does not allow more shards", shards=shards
            )
        return min(wanted, most)

    def _resize(self, shards: int, to: int, until: float) -> int | None:
        self._kinesis.update_shard_count(
            StreamName=self._settings.stream_name, TargetShardCount=to, ScalingType="UNIFORM_SCALING"
        )
        self._telemetry.warning("the stream is being resized", shards=shards, to=to)
        return self._changed(until)

    def _changed(self, until: float) -> int | None:
        """Wait for a change; return the number of shards, None if there is no time."""
        changed = None
        while changed is None and self._clock.now() < until:
            self._clock.sleep(_POLL_SECONDS)
            changed = self._look()
        return changed and changed["OpenShardCount"]

    def _day(self) -> dict[datetime, Minute] | None:
        """Return the minutes of the last 24 hours by their start; None if CloudWatch's response is incomplete."""
        now = self._clock.now()
        response = self._cloudwatch.get_metric_data(
            MetricDataQueries=[self._query(name, metric) for name, metric in _METRICS.items()],
            StartTime=datetime.fromtimestamp(now - _DAY_SECONDS, UTC),
            EndTime=datetime.fromtimestamp(now, UTC),
            ScanBy="TimestampAscending",
        )
        found: Mapping[str, Mapping[datetime, float]] = {
            result["Id"]: dict(zip(result["Timestamps"], result["Values"], strict=True))
            for result in response["MetricDataResults"]
            if result["StatusCode"] == "Complete"
        }
        if "NextToken" in response or found.keys() != _METRICS.keys():
            self._telemetry.warning("the stream's metrics are incomplete, so its size is not changed")
            self._telemetry.count("ScalerFailures")
            return None
        minutes: dict[datetime, dict[str, float]] = defaultdict(dict)
        for name, values in found.items():
            for at, value in values.items():
                minutes[at][name] = value
        return {at: Minute(**values) for at, values in minutes.items()}

    def _query(self, name: str, metric: str) -> "MetricDataQueryTypeDef":
        dimensions: list[DimensionTypeDef] = [{"Name": "StreamName", "Value": self._settings.stream_name}]
        return {
            "Id": name,
            "MetricStat": {
                "Metric": {"Namespace": "AWS/Kinesis", "MetricName": metric, "Dimensions": dimensions},
                "Period": 60,
                "Stat": "Sum",
            },
        }
