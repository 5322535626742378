"""The scaler reads metrics and changes the stream step by step, as Kinesis allows."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber
from moto import mock_aws

from doubles.clock import ManualClock
from doubles.iam import Authorized
from doubles.kinesis import MemoryKinesis
from local.functions import SCALE
from local.roles import role_of
from scaler.scaler import Scaler
from shared.settings import ScalerSettings
from tests.support.delivery import RESOURCES
from tests.support.telemetry import CollectedTelemetry

STREAM = "events"
NOW = datetime(2026, 11, 26, 12, 0, 30, tzinfo=UTC)  # within a window for shrinking


class Scaled:
    """A stream with metrics and a scaler."""

    def __init__(self, shards: int, **settings: Any) -> None:
        self.clock = ManualClock(NOW.timestamp())
        self.kinesis = MemoryKinesis(self.clock.now)
        self.cloudwatch: Any = boto3.client("cloudwatch", region_name="us-east-1")
        self.kinesis.create_stream(StreamName=STREAM, ShardCount=shards)
        self.telemetry = CollectedTelemetry()
        self.become(**settings)

    def become(self, **settings: Any) -> None:
        """Replace the scaler by one with these settings, as a deploy does."""
        role = role_of(SCALE, RESOURCES)
        self.scaler = Scaler(
            kinesis=Authorized("kinesis", self.kinesis, role),  # type: ignore[arg-type]  # a wrapper with the client's methods
            cloudwatch=Authorized("cloudwatch", self.cloudwatch, role),  # type: ignore[arg-type]
            settings=ScalerSettings(STREAM, "queue", "aside", **settings),
            clock=self.clock,
            telemetry=self.telemetry,
        )

    def count(self, metric: str, value: float, minutes_ago: float) -> None:
        """Add a value of the stream's metric to CloudWatch."""
        dimensions = [{"Name": "StreamName", "Value": STREAM}]
        data = {"MetricName": metric, "Dimensions": dimensions, "Value": value}
        at = NOW - timedelta(minutes=minutes_ago)
        self.cloudwatch.put_metric_data(Namespace="AWS/Kinesis", MetricData=[data | {"Timestamp": at}])

    def run(self) -> int | None:
        """Run the scaler with the time that its function has."""
        return self.scaler.run(self.clock.now() + 230)

    @property
    def shards(self) -> int:
        """The number of open shards."""
        count: int = self.summary["OpenShardCount"]
        return count

    @property
    def summary(self) -> dict[str, Any]:
        """The stream's description."""
        found: dict[str, Any] = self.kinesis.describe_stream_summary(StreamName=STREAM)
        return found["StreamDescriptionSummary"]  # type: ignore[no-any-return]  # the double has boto3's shape


@pytest.fixture(autouse=True)
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Use moto instead of AWS."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    with mock_aws():
        yield


def test_one_run_doubles_a_stream_several_times() -> None:
    """Ten times a shard's capacity needs 15 shards; each step at most doubles the stream."""
    made = Scaled(1)
    made.count("IncomingRecords", 60_000, 3)
    made.count("WriteProvisionedThroughputExceeded", 60_000 * 9 * 5, 3)

    assert 15 == made.run()
    assert 15 == made.shards
    assert [(1, 2), (2, 4), (4, 8), (8, 15)] == [
        (line.fields["shards"], line.fields["to"]) for line in made.telemetry.lines
    ]


def test_a_quiet_day_halves_the_stream_once() -> None:
    """A run makes one step, because Kinesis allows no more at a time."""
    made = Scaled(8)
    made.count("IncomingRecords", 100, 60)

    assert 4 == made.run()
    assert 4 == made.shards


def test_yesterdays_peak_keeps_the_stream_large() -> None:
    """A peak 23 hours ago may come again."""
    made = Scaled(8)
    made.count("IncomingRecords", 60 * 1000 * 4, 23 * 60)

    assert 8 == made.run()


def _answer(*codes: str, **more: Any) -> dict[str, Any]:
    names = ("records", "size", "throttled")
    results = [
        {"Id": name, "StatusCode": code, "Timestamps": [], "Values": []}
        for name, code in zip(names, codes, strict=True)
    ]
    return {"MetricDataResults": results} | more


@pytest.mark.parametrize(
    "answer",
    [
        _answer("Complete", "PartialData", "Complete"),
        _answer("Complete", "Complete", "InternalError"),
        _answer("Complete", "Complete", "Complete", NextToken="more"),
        {"MetricDataResults": []},
    ],
)
def test_incomplete_metrics_change_nothing(answer: dict[str, Any]) -> None:
    """Missing data does not prove that the stream is idle."""
    made = Scaled(8)
    with Stubber(made.cloudwatch) as stubber:
        stubber.add_response("get_metric_data", answer)

        assert 8 == made.run()
    assert ["the stream's metrics are incomplete, so its size is not changed"] == [
        line.message for line in made.telemetry.lines
    ]


def test_a_stream_that_is_being_resized_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kinesis makes one change at a time, and the next run checks again."""
    made = Scaled(8)
    summary = made.summary | {"StreamStatus": "UPDATING"}
    monkeypatch.setattr(
        made.kinesis, "describe_stream_summary", lambda **_: {"StreamDescriptionSummary": summary}
    )

    assert made.run() is None


@pytest.mark.parametrize(("shards", "wanted"), [(1, 16), (24, 1), (12, 5), (3, 4)])
def test_a_provisioned_stream_is_brought_to_its_number_of_shards(shards: int, wanted: int) -> None:
    """However far that is from the current one: Kinesis refuses a step beyond double or half."""
    made = Scaled(shards, stream_mode="PROVISIONED", shard_count=wanted)

    assert wanted == made.run()
    assert wanted == made.shards
    steps = [(line.fields["shards"], line.fields["to"]) for line in made.telemetry.lines]
    assert shards == steps[0][0]
    assert all(before / 2 <= after <= 2 * before for before, after in steps)


def test_each_mode_can_follow_each_other() -> None:
    """A stream that has grown on demand keeps its shards until the scaler has halved them."""
    made = Scaled(1, stream_mode="ON_DEMAND")
    assert 4 == made.run()
    assert "ON_DEMAND" == made.summary["StreamModeDetails"]["StreamMode"]

    made.become(stream_mode="PROVISIONED", shard_count=9)
    assert 9 == made.run()
    assert "PROVISIONED" == made.summary["StreamModeDetails"]["StreamMode"]

    made.become(stream_mode="AUTO")
    assert 5 == made.run()


def test_a_change_that_kinesis_refuses_today_is_tried_again() -> None:
    """A stream's mode can change twice in 24 hours."""
    made = Scaled(1, stream_mode="ON_DEMAND")
    for mode in ("PROVISIONED", "ON_DEMAND"):
        made.run()
        made.become(stream_mode=mode)

    assert made.run() is None
    assert {"reason": "LimitExceededException"} == made.telemetry.lines[-1].fields
    made.clock.time += 86_400
    assert 4 == made.run()


@pytest.mark.parametrize(
    "code", ["LimitExceededException", "ResourceInUseException", "AccessDeniedException"]
)
def test_a_failed_call_is_logged(code: str) -> None:
    """The line has the reason, and the next run tries again."""
    made = Scaled(8)
    with Stubber(made.cloudwatch) as stubber:
        stubber.add_client_error("get_metric_data", code)

        assert made.run() is None
    assert [{"reason": code}] == [line.fields for line in made.telemetry.lines]


def test_a_run_ends_when_its_time_is_up() -> None:
    """The next run continues the resizing."""
    made = Scaled(1)
    made.count("IncomingRecords", 600_000, 3)

    assert 1 == made.scaler.run(made.clock.now())
    assert 1 == made.shards
