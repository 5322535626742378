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
        effects: Any = {"clock": self.clock, "telemetry": self.telemetry}
        for name in ("kinesis", "cloudwatch"):
            effects[name] = Authorized(name, getattr(self, name), role)
        self.scaler = Scaler(settings=ScalerSettings(STREAM, "queue", "aside", **settings), **effects)

    def count(self, metric: str, value: float, minutes_ago: float) -> None:
        """Add a value of the stream's metric to CloudWatch."""
        at, dimensions = NOW - timedelta(minutes=minutes_ago), [{"Name": "StreamName", "Value": STREAM}]
        datum = {"MetricName": metric, "Dimensions": dimensions, "Value": value, "Timestamp": at}
        self.cloudwatch.put_metric_data(Namespace="AWS/Kinesis", MetricData=[datum])

    def run(self) -> int | None:
        """Run the scaler with the time that its function has."""
        return self.scaler.run(self.clock.now() + 230)

    @property
    def summary(self) -> tuple[int, str]:
        """The number of open shards, and the stream's mode."""
        found = self.kinesis.describe_stream_summary(StreamName=STREAM)["StreamDescriptionSummary"]
        return found["OpenShardCount"], found["StreamModeDetails"]["StreamMode"]

    @property
    def steps(self) -> list[tuple[int, int]]:
        """Each change, from and to how many shards."""
        return [(line.fields["shards"], line.fields["to"]) for line in self.telemetry.lines]


@pytest.fixture(autouse=True)
def aws() -> Iterator[None]:
    """Use moto instead of AWS."""
    with mock_aws():
        yield


def test_one_run_doubles_a_stream_several_times() -> None:
    """Four times a shard's capacity needs 6 shards, and 12 while puts are throttled; each step at most doubles the stream."""
    made = Scaled(1)
    made.count("IncomingRecords", 60_000, 3)
    made.count("WriteProvisionedThroughputExceeded", 60_000 * 3 * 5, 3)

    assert 12 == made.run()
    assert (12, "PROVISIONED") == made.summary
    assert [(1, 2), (2, 4), (4, 8), (8, 12)] == made.steps


@pytest.mark.parametrize(("records", "counts"), [(60_000, {}), (120_000, {"ShardsExhausted": 1})])
def test_max_shards_is_too_few_only_if_more_are_needed(records: float, counts: dict[str, int]) -> None:
    """A burst that MaxShards is enough for raises no alarm, although it was throttled. A lower MaxShards applies at once."""
    made = Scaled(8, max_shards=4)
    made.count("IncomingRecords", records, 3)
    made.count("WriteProvisionedThroughputExceeded", 1, 3)

    assert (4, counts) == (made.run(), made.telemetry.counts)


@pytest.mark.parametrize(("records", "minutes_ago", "steps"), [(100, 60, [(8, 4)]), (240_000, 23 * 60, [])])
def test_a_quiet_day_halves_the_stream(records: int, minutes_ago: int, steps: list[tuple[int, int]]) -> None:
    """Kinesis allows one step at a time. A peak 23 hours ago may come again, so it keeps the stream large."""
    made = Scaled(8)
    made.count("IncomingRecords", records, minutes_ago)

    assert (4 if steps else 8) == made.run() == made.summary[0]
    assert steps == made.steps


@pytest.mark.parametrize(
    ("codes", "more"),
    [
        (["Complete", "Complete", "PartialData"], {}),
        (["Complete", "Complete", "Complete"], {"NextToken": "more"}),
        ([], {}),
    ],
)
def test_incomplete_metrics_change_nothing(codes: list[str], more: dict[str, str]) -> None:
    """Missing data does not prove that the stream is idle."""
    made = Scaled(8)
    found = zip(("records", "size", "throttled"), codes, strict=False)
    results = [{"Id": name, "StatusCode": code, "Timestamps": [], "Values": []} for name, code in found]
    with Stubber(made.cloudwatch) as stubber:
        stubber.add_response("get_metric_data", {"MetricDataResults": results, **more})

        assert 8 == made.run()
    message = "the stream's metrics are incomplete, so its size is not changed"
    assert [message] == [line.message for line in made.telemetry.lines]
    assert {"ScalerFailures": 1} == made.telemetry.counts


def test_a_stream_that_is_being_resized_is_left_alone() -> None:
    """Kinesis makes one change at a time, and the next run checks again."""
    made = Scaled(8)
    summary = made.kinesis.describe_stream_summary(StreamName=STREAM)
    summary["StreamDescriptionSummary"]["StreamStatus"] = "UPDATING"
    made.kinesis.describe_stream_summary = lambda **_: summary  # type: ignore[method-assign]

    assert (None, []) == (made.run(), made.steps)


@pytest.mark.parametrize(("shards", "wanted"), [(1, 16), (24, 1), (12, 5), (3, 4)])
def test_a_provisioned_stream_is_brought_to_its_number_of_shards(shards: int, wanted: int) -> None:
    """However far that is from the current one: Kinesis refuses a step beyond double or half."""
    made = Scaled(shards, stream_mode="PROVISIONED", shard_count=wanted)

    assert wanted == made.run() == made.summary[0]
    assert shards == made.steps[0][0]
    assert all(before / 2 <= after <= 2 * before for before, after in made.steps)


def test_each_mode_can_follow_each_other() -> None:
    """A stream that has grown on demand keeps its shards until the scaler has halved them."""
    made = Scaled(1, stream_mode="ON_DEMAND")
    assert 4 == made.run()
    assert (4, "ON_DEMAND") == made.summary

    made.become(stream_mode="PROVISIONED", shard_count=9)
    assert 9 == made.run()
    assert (9, "PROVISIONED") == made.summary

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
    assert {"ScalerFailures": 1} == made.telemetry.counts
    made.clock.time += 86_400
    assert 4 == made.run()


def test_a_run_ends_when_its_time_is_up() -> None:
    """The next run continues the resizing."""
    made = Scaled(1)
    made.count("IncomingRecords", 600_000, 3)

    assert 1 == made.scaler.run(made.clock.now()) == made.summary[0]
