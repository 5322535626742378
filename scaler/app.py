"""The scaler's entry point."""

import os
from collections.abc import Mapping
from functools import cache
from typing import Any

import boto3

from scaler.backlog import Backlog
from scaler.scaler import Scaler
from shared.clock import SystemClock
from shared.published_policy import PublishedPolicy
from shared.settings import ScalerSettings
from shared.telemetry import PowertoolsTelemetry, Telemetry

_RESERVE_SECONDS = 10.0


@cache
def _parts() -> tuple[Scaler, Backlog, SystemClock, Telemetry]:
    environment = os.environ
    settings, clock = ScalerSettings.from_environment(environment), SystemClock()
    telemetry = PowertoolsTelemetry.from_environment(environment, clock)
    scaler = Scaler(
        kinesis=boto3.client("kinesis"),
        cloudwatch=boto3.client("cloudwatch"),
        settings=settings,
        clock=clock,
        telemetry=telemetry,
    )
    published = PublishedPolicy(boto3.client("s3"), settings.data_bucket)
    backlog = Backlog(boto3.client("sqs"), settings.overflow_queue_url, published, clock, telemetry)
    return scaler, backlog, clock, telemetry


def handler(event: Mapping[str, Any], context: Any) -> dict[str, int | None]:
    """Change the stream if needed. Runs on a schedule, and when an alarm says that the stream throttles puts.

    With `backlog` in the event, publish the overflow queue's backlog if it is too large. Runs every minute.
    """
    scaler, backlog, clock, telemetry = _parts()
    with telemetry.invocation(context):
        if "backlog" in event:
            return {"messages": backlog.run()}
        until = clock.now() + context.get_remaining_time_in_millis() / 1000 - _RESERVE_SECONDS
        return {"shards": scaler.run(until)}
