"""The scaler's entry point."""

import os
from collections.abc import Mapping
from functools import cache
from typing import Any

import boto3

from scaler.scaler import Scaler
from shared.clock import SystemClock
from shared.settings import ScalerSettings
from shared.telemetry import PowertoolsTelemetry, Telemetry

_RESERVE_SECONDS = 10.0


@cache
def _parts() -> tuple[Scaler, SystemClock, Telemetry]:
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
    return scaler, clock, telemetry


def handler(_event: Mapping[str, Any], context: Any) -> dict[str, int | None]:
    """Change the stream if needed. Runs on a schedule, and when an alarm says that the stream throttles puts."""
    scaler, clock, telemetry = _parts()
    with telemetry.invocation(context):
        until = clock.now() + context.get_remaining_time_in_millis() / 1000 - _RESERVE_SECONDS
        return {"shards": scaler.run(until)}
