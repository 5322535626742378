"""Carries out the rule: reads the stream's metrics and changes its number of shards step by step."""

from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from scaler.rule import RECENT_SECONDS, Minute, target
from shared.clock import Clock
from shared.telemetry import Telemetry

if TYPE_CHECKING:
    from mypy_boto3_cloudwatch import CloudWatchClient
    from mypy_boto3_cloudwatch.type_defs import DimensionTypeDef, MetricDataQueryTypeDef
    from mypy_boto3_kinesis import KinesisClient

_DAY_SECONDS = 86_400
_POLL_SECONDS = 5.0
_METRICS = {
    "records": "IncomingRecords",
    "size": "IncomingBytes",
    "throttled": "WriteProvisionedThroughputExceeded",
}


class Scaler:
    """Keeps one stream as large as its traffic needs.

    Args:
        kinesis: a boto3 client.
        cloudwatch: a boto3 client.
        stream_name: the stream, in provisioned mode.
        most: maximum number of shards.
        clock: tells the time and waits.
        telemetry: logs each change, and counts runs that find MaxShards too few.
    """

    def __init__(
        self,
        *,
        kinesis: "KinesisClient",
        cloudwatch: "CloudWatchClient",
        stream_name: str,
        most: int,
        clock: Clock,
        telemetry: Telemetry,
    ) -> None:
        self._kinesis = kinesis
        self._cloudwatch = cloudwatch
        self._stream = stream_name
        self._most = most
        self._clock = clock
        self._telemetry = telemetry

    def run(self, until: float) -> int | None:
        """Change the stream until it has as many shards as it should.

        A change takes Kinesis half a minute or more, and can at most double or halve the stream. If time runs out, the next run
        continues, because the rule gives it the same target.

        Args:
            until: UNIX seconds after which no further change starts.

        Returns:
            The number of shards; None while a change is under way, or if Kinesis or CloudWatch failed.
        """
        try:
            shards = self._shards()
            if shards is None or (day := self._day()) is None:
                return shards
            now = self._clock.now()
            recent = [minute for at, minute in day.items() if at.timestamp() >= now - RECENT_SECONDS]
            if shards >= self._most and any(minute.throttled for minute in recent):
                self._telemetry.count("ShardsExhausted")
                self._telemetry.warning(
                    "the stream throttles puts, and MaxShards does not allow more shards", shards=shards
                )
            wanted = target(shards, list(day.values()), recent, now, self._most)
            while shards is not None and shards != wanted and self._clock.now() < until:
                shards = self._change(shards, max(min(wanted, 2 * shards), -(-shards // 2)), until)
        except (ClientError, BotoCoreError) as error:
            code = error.response["Error"]["Code"] if isinstance(error, ClientError) else type(error).__name__
            self._telemetry.warning("the stream could not be resized; the next run tries again", reason=code)
            return None
        return shards

    def _shards(self) -> int | None:
        """Return how many shards the stream has; None while it is changing."""
        found = self._kinesis.describe_stream_summary(StreamName=self._stream)["StreamDescriptionSummary"]
        return found["OpenShardCount"] if found["StreamStatus"] == "ACTIVE" else None

    def _change(self, shards: int, to: int, until: float) -> int | None:
        self._kinesis.update_shard_count(
            StreamName=self._stream, TargetShardCount=to, ScalingType="UNIFORM_SCALING"
        )
        self._telemetry.warning("the stream is being resized", shards=shards, to=to)
        changed = None
        while changed is None and self._clock.now() < until:
            self._clock.sleep(_POLL_SECONDS)
            changed = self._shards()
        return changed

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
            return None
        minutes: dict[datetime, dict[str, float]] = defaultdict(dict)
        for name, values in found.items():
            for at, value in values.items():
                minutes[at][name] = value
        return {at: Minute(**values) for at, values in minutes.items()}

    def _query(self, name: str, metric: str) -> "MetricDataQueryTypeDef":
        dimensions: list[DimensionTypeDef] = [{"Name": "StreamName", "Value": self._stream}]
        return {
            "Id": name,
            "MetricStat": {
                "Metric": {"Namespace": "AWS/Kinesis", "MetricName": metric, "Dimensions": dimensions},
                "Period": 60,
                "Stat": "Sum",
            },
        }
