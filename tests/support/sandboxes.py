"""Sandboxes of the built functions in Lambda's real runtime, with a local AWS, Redis and Treasure Data."""

import json
import os
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import msgpack
import pytest
import redis
import requests

from doubles.event_source import EventSourceMapping, event_of
from doubles.http_server import HttpServer
from doubles.sqs import Message, record_of
from doubles.treasure_data import API_KEY, TreasureData
from local import functions, resources, valkey
from local.accounts import ACCOUNTS, SIGNING_SECRETS
from local.lambda_runtime import LambdaRuntime
from local.part import Part
from local.resources import Resources
from ops.books.chunks import ListedChunk, chunks
from shared import envelope
from shared.accounts import AccountKeys
from shared.clock import SystemClock
from shared.telemetry import NullTelemetry
from tests.support.sam import ROOT
from worker.ledger import Ledger
from worker.selection import Selection
from worker.states import State

_START_SECONDS = 30


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Redis with the accounts of the local stack."""
    process, port = valkey.start(tmp_path_factory.mktemp("valkey"))
    url = f"redis://127.0.0.1:{port}/0"
    keys = AccountKeys(resources.LEDGER_TABLE)
    with redis.Redis.from_url(url) as client:
        for name, account in ACCOUNTS.items():
            client.hset(keys.of(name), mapping=account.to_fields())
        client.hset(keys.sentinel, mapping={"at": "0", "count": str(len(ACCOUNTS))})
    yield url
    process.terminate()
    process.wait(60)


@pytest.fixture(scope="module")
def aws_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The endpoint of a local AWS."""
    environment = os.environ | {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    part = Part("aws", ["local.aws"], environment, tmp_path_factory.mktemp("aws"))
    try:
        yield part.ready(_START_SECONDS)["endpoint"]
    finally:
        part.stop()
        part.wait(60)


@pytest.fixture
def aws(aws_endpoint: str, redis_url: str) -> Resources:
    """The resources that the template creates, in a local AWS that contains nothing else."""
    requests.post(f"{aws_endpoint}/moto-api/reset", timeout=60).raise_for_status()
    secrets = {"signing_secrets": SIGNING_SECRETS, "td_api_key": API_KEY, "redis_url": redis_url}
    return resources.create(aws_endpoint, shards=1, **secrets)


@pytest.fixture
def treasure_data() -> TreasureData:
    """A Treasure Data without databases."""
    return TreasureData()


type Start = Callable[..., LambdaRuntime]


@pytest.fixture
def start(
    artifacts: Path, runtime_libraries: Path, aws: Resources, treasure_data: TreasureData, tmp_path: Path
) -> Iterator[Start]:
    """Starts a sandbox of a built function."""
    numbers = count()
    with ExitStack() as stack:
        server = stack.enter_context(HttpServer(treasure_data.handle))

        def run(function: functions.Function, endpoint: str = "", timeout: int = 60) -> LambdaRuntime:
            folder = tmp_path / f"sandbox-{next(numbers)}"
            folder.mkdir()
            variables = functions.variables(function, aws, functions.treasure_data_at(server.url))
            runtime = LambdaRuntime(
                artifacts / function.name,
                function.handler,
                environment={**variables, **functions.lambda_variables(function, endpoint or aws.endpoint)},
                libraries=runtime_libraries,
                folder=folder,
                timeout=timeout,
            )
            return stack.enter_context(runtime)

        yield run


def recorded(folder: str) -> dict[str, Any]:
    """Return recorded events by their files' names."""
    return {path.stem: json.loads(path.read_text()) for path in (ROOT / "events" / folder).glob("*.json")}


def ledger_of(aws: Resources) -> Ledger:
    """Return the ledger."""
    return Ledger(aws.client("dynamodb"), aws.ledger_table, SystemClock(), os.urandom, NullTelemetry())


def dead(aws: Resources) -> list[ListedChunk]:
    """Return the dead chunks."""
    return list(chunks(ledger_of(aws), Selection((State.DEAD,))))


def an_envelope(request_id: str, page: str) -> bytes:
    """Return an envelope with one row of the account `shop`."""
    row = msgpack.packb({"time": int(time.time()), "event_id": request_id, "page": page})
    (made,) = envelope.divide([("pageviews", row)], "shop", "demo", int(time.time() * 1000), request_id)
    return made.encode()


def on_stream(aws: Resources) -> list[bytes]:
    """Return the data of the stream's records."""
    kinesis = aws.client("kinesis")
    (shard,) = kinesis.list_shards(StreamName=aws.stream)["Shards"]
    place = {"StreamName": aws.stream, "ShardId": shard["ShardId"]}
    iterator = kinesis.get_shard_iterator(**place, ShardIteratorType="TRIM_HORIZON")["ShardIterator"]
    return [record["Data"] for record in kinesis.get_records(ShardIterator=iterator)["Records"]]


def stream_event(aws: Resources, *data: bytes) -> dict[str, Any]:
    """Put records on the stream, and return the event with which the event source mapping would deliver them."""
    kinesis, mapping, records = aws.client("kinesis"), EventSourceMapping(event_source_arn=aws.stream_arn), []
    for item in data:
        record = {"Data": item, "PartitionKey": "shop/1"}
        put = kinesis.put_record(StreamName=aws.stream, **record)
        read = put | record | {"ApproximateArrivalTimestamp": datetime.now(UTC)}
        records.append(mapping.record(put["ShardId"], read))
    return event_of(records)


def message(number: int, body: bytes, at: float, **texts: str) -> dict[str, Any]:
    """Return a message of the overflow queue, sent at a time, as the event source mapping delivers it."""
    told = {"partition_key": "shop/1", "request_id": f"r-{number}", **texts}
    attributes = {name: {"DataType": "String", "StringValue": text} for name, text in told.items()}
    attributes["received_at"] = {"DataType": "Number", "StringValue": str(int(at * 1000))}
    sent = Message(str(number), b64encode(body).decode(), attributes, at, at, receives=1)
    return record_of(sent.received(), "arn:aws:sqs:us-east-1:123456789012:overflow")
