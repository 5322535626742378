"""Where a pixel's CPU goes in the ingest: its parts by themselves, in this process."""

import os
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from aws_lambda_powertools.metrics import EphemeralMetrics

from benchmarks import services
from benchmarks.measure import cpu_seconds
from ingest.app import Ingest
from ingest.aws_client import KinesisClient, authorities_of
from ingest.journal import PowertoolsJournal
from ingest.keyring import Keyring
from ingest.overflow import Overflow
from ingest.signature import Credentials, Signer
from ingest.stream import CLIENT_OPTIONS, Stream
from shared.clock import SystemClock
from shared.settings import IngestSettings

ROUNDS = 9
REPEATS = 500

_CREDENTIALS = Credentials("benchmark", "benchmark")


class _AtOnce:
    """A stream and a store of secrets that cost nothing."""

    def put_record(self, **_arguments: Any) -> Mapping[str, str]:
        return {"SequenceNumber": "1"}

    def get_secret_value(self, **_arguments: Any) -> Mapping[str, str]:
        return {"SecretString": services.SECRETS_TEXT}


class _Silent:
    """A journal that writes nothing."""

    def count(self, metric: str, number: int = 1) -> None:
        """Forget it."""

    def note(self, kind: str, code: str, **fields: Any) -> None:
        """Forget it."""

    def warn(self, kind: str, code: str, **fields: Any) -> None:
        """Forget it."""

    def fail(self, kind: str, error: BaseException) -> None:
        """Raise it: nothing is to fail."""
        raise RuntimeError(kind) from error

    def flush(self) -> None:
        """Write nothing."""


def parts(event: dict[str, Any]) -> dict[str, float]:
    """Return the CPU seconds of each part of a pixel's request, the event of which is given."""
    clock = SystemClock()
    metrics = EphemeralMetrics(namespace="Sluice", service="ingest")
    metrics.set_default_dimensions(stage="benchmark")
    journal = PowertoolsJournal(None, metrics, clock)
    signer = Signer("kinesis", "us-east-1", "127.0.0.1:8080", "application/x-amz-json-1.1")
    body = bytes(600)
    with services.running() as url, Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
        client = KinesisClient(
            url, "us-east-1", lambda: _CREDENTIALS, authorities=authorities_of({}), **CLIENT_OPTIONS
        )
        handler = _handler(clock)

        def count() -> None:
            journal.count("EventsAccepted")
            journal.flush()

        seconds = cpu_seconds(
            {
                "rest": lambda: handler(event, None),
                "sign": lambda: signer.headers("Kinesis_20131202.PutRecord", body, _CREDENTIALS, clock.now()),
                "put": lambda: client.put_record(StreamName="events", Data=body[:420], PartitionKey="shop/1"),
                "metrics": count,
            },
            ROUNDS,
            REPEATS,
        )
    return {
        "request, key, row, envelope, response": seconds["rest"],
        "signing the put": seconds["sign"],
        "exchange with the stream": seconds["put"] - seconds["sign"],
        "metrics": seconds["metrics"],
    }


def _handler(clock: SystemClock) -> Ingest:
    silent, free = _Silent(), _AtOnce()
    settings = IngestSettings("events", "", "keys")
    keys = Keyring(free, "keys", clock, silent)
    queue = Overflow(lambda: None, "", silent)
    puts = Stream(free, "events", queue, clock=clock, entropy=os.urandom, journal=silent)
    return Ingest(settings, keys, puts, clock=clock, entropy=os.urandom, journal=silent)
