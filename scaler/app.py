"""The scaler's entry point."""

import os
from collections.abc import Mapping
from functools import cache
from typing import Any

import boto3
from botocore.client import BaseClient
from botocore.config import Config

from scaler.backlog import Backlog
from scaler.scaler import Scaler
from shared.aws_clients import makes_client
from shared.clock import SystemClock
from shared.published_policy import PublishedPolicy
from shared.settings import ScalerSettings
from shared.telemetry import PowertoolsTelemetry, Telemetry

_RESERVE_SECONDS = 10.0


@makes_client
def _aws(service: str) -> BaseClient:
    """Return a boto3 client whose calls end within 20 seconds or so: runs that hang for one service take the place of those that need another."""
    config = Config(connect_timeout=1, read_timeout=5, retries={"mode": "standard", "total_max_attempts": 3})
    made: BaseClient = boto3.client(service, config=config)  # type: ignore[call-overload]  # the stub accepts only literals
    return made


@cache
def _parts() -> tuple[Scaler, Backlog, SystemClock, Telemetry]:
    environment = os.environ
    settings, clock = ScalerSettings.from_environment(environment), SystemClock()
    telemetry = PowertoolsTelemetry.from_environment(environment, clock)
    scaler = Scaler(
        kinesis=_aws("kinesis"),
        cloudwatch=_aws("cloudwatch"),
        settings=settings,
        clock=clock,
        telemetry=telemetry,
    )
    published = PublishedPolicy(_aws("s3"), settings.data_bucket)
    backlog = Backlog(_aws("sqs"), settings.overflow_queue_url, published, clock, telemetry)
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
