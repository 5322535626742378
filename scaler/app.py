"""The scaler's entry point."""

import os
from collections.abc import Mapping
from functools import cache
from typing import Any

from scaler.backlog import Backlog
from scaler.scaler import Scaler
from shared.aws_clients import bounded_client
from shared.clock import SystemClock
from shared.published_policy import PublishedPolicy
from shared.settings import ScalerSettings
from shared.telemetry import PowertoolsTelemetry, Telemetry

_RESERVE_SECONDS = 10.0
_ATTEMPTS = 3  # of a call, within 20 seconds or so: runs that hang for one service take the place of those that need another


@cache
def _parts() -> tuple[Scaler, Backlog, SystemClock, Telemetry]:
    environment = os.environ
    settings, clock = ScalerSettings.from_environment(environment), SystemClock()
    telemetry = PowertoolsTelemetry.from_environment(environment, clock)
    scaler = Scaler(
        kinesis=bounded_client("kinesis", attempts=_ATTEMPTS),
        cloudwatch=bounded_client("cloudwatch", attempts=_ATTEMPTS),
        settings=settings,
        clock=clock,
        telemetry=telemetry,
    )
    published = PublishedPolicy(bounded_client("s3", attempts=_ATTEMPTS), settings.data_bucket)
    backlog = Backlog(
        bounded_client("sqs", attempts=_ATTEMPTS), settings.overflow_queue_url, published, clock, telemetry
    )
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
