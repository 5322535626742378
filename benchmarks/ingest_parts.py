"""Measures the CPU of each part of a pixel request in the ingest, alone in this process."""

import os
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from benchmarks import services
from benchmarks.measure import cpu_seconds
from doubles.background import at_once, never
from ingest.app import Ingest, IngestEffects
from ingest.aws_client import KinesisClient, ca_bundle_from
from ingest.request import parse_query
from ingest.signature import Credentials, Signer
from ingest.stream import CLIENT_OPTIONS
from shared.clock import SystemClock
from shared.settings import IngestSettings
from shared.telemetry import NAMESPACE, SERVICE, NullTelemetry, PowertoolsTelemetry

ROUNDS = 9
REPEATS = 500

_CREDENTIALS = Credentials("benchmark", "benchmark")
PLAN_PART = "checking a tracking plan of 30 tables"


class _Immediate:
    """Kinesis, Secrets Manager and S3 that cost nothing.

    Args:
        columns: the pixel's columns, which the tracking plan requires.
    """

    def __init__(self, columns: Sequence[str] = ()) -> None:
        self._columns = columns

    def get_object(self, **_arguments: Any) -> Mapping[str, Any]:
        return {"Body": BytesIO(services.edge_policy(self._columns))}

    def put_record(self, **_arguments: Any) -> Mapping[str, str]:
        return {"SequenceNumber": "1"}

    def get_secret_value(self, **_arguments: Any) -> Mapping[str, str]:
        return {"SecretString": services.SECRETS_TEXT}


class _Silent(NullTelemetry):
    """Telemetry that writes nothing and raises on errors."""

    def error(self, message: str, error: BaseException | None = None, **_fields: Any) -> None:
        """Raise the error."""
        raise RuntimeError(message) from error


def parts(event: dict[str, Any]) -> dict[str, float]:
    """Return the CPU seconds of each part of a request, given as API Gateway's event."""
    clock = SystemClock()
    names = {SERVICE: "ingest", NAMESPACE: "Sluice"}
    signer = Signer(_CREDENTIALS, "kinesis", "us-east-1", "127.0.0.1:8080", "application/x-amz-json-1.1")
    body = bytes(600)
    with services.running() as url, Path(os.devnull).open("w") as nowhere:
        telemetry = PowertoolsTelemetry.from_environment(names, clock, nowhere)
        client = KinesisClient(url, "us-east-1", _CREDENTIALS, ca_bundle=ca_bundle_from({}), **CLIENT_OPTIONS)
        columns = [name for name, _ in parse_query(event["rawQueryString"]) if name not in ("k", "t")]
        handler, planned = _handler(clock), _handler(clock, columns)
        if planned(event, None)["statusCode"] != 200:
            raise RuntimeError("the pixel does not fit the plan")

        def report() -> None:
            with telemetry.invocation(None):
                pass

        seconds = cpu_seconds(
            {
                "rest": lambda: handler(event, None),
                "planned": lambda: planned(event, None),
                "sign": lambda: signer.lines("Kinesis_20131202.PutRecord", body, clock.now()),
                "put": lambda: client.put_record(StreamName="events", Data=body[:420], PartitionKey="shop/1"),
                "reporting": report,
            },
            ROUNDS,
            REPEATS,
        )
    return {
        "request, key, row, envelope, response": seconds["rest"],
        "signing the put": seconds["sign"],
        "exchange with the stream": seconds["put"] - seconds["sign"],
        "reporting": seconds["reporting"],
        PLAN_PART: seconds["planned"] - seconds["rest"],
    }


def _handler(clock: SystemClock, planned: Sequence[str] = ()) -> Ingest:
    free = _Immediate(planned)
    effects = IngestEffects(
        kinesis=free,
        sqs=None,
        dynamodb=free,
        secrets=free,
        s3=free,
        clock=clock,
        entropy=os.urandom,
        telemetry=_Silent(),
        start=at_once if planned else never,
    )
    return Ingest(IngestSettings("events", "", "aside", "keys", "", "counters"), effects)
