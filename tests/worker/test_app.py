"""The doors, as Lambda opens them: built from the environment, over moto, Valkey and the stand-in on loopback."""

import itertools
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from doubles.lambda_context import Context
from doubles.treasure_data import API_KEY, Action, Fault, Kind, Server, TreasureData
from local import valkey
from shared import accounts
from shared.accounts import Account
from shared.clock import SystemClock
from tests.support.delivery import envelope, member, row
from worker import app, redrive
from worker.redis_client import connect

NAMES = itertools.count()


@dataclass
class Door:
    """What stands around the handlers."""

    td: TreasureData
    kinesis: Any
    s3: Any
    redis: Any
    stream: str
    bucket: str

    def put(self, *data: bytes) -> None:
        """Put records on the stream."""
        for one in data:
            self.kinesis.put_record(StreamName=self.stream, Data=one, PartitionKey="k")

    def invoke(self, seconds: float = 60) -> Any:
        """Invoke the worker with everything that is on the stream."""
        shard = self.kinesis.list_shards(StreamName=self.stream)["Shards"][0]["ShardId"]
        iterator = self.kinesis.get_shard_iterator(
            StreamName=self.stream, ShardId=shard, ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        records = self.kinesis.get_records(ShardIterator=iterator)["Records"]
        event = {"Records": [member(record, shard) for record in records]}
        return app.handler(json.loads(json.dumps(event)), context("worker", seconds))

    def objects(self) -> list[str]:
        """Return the names of the objects that are set aside."""
        return [one["Key"] for one in self.s3.list_objects_v2(Bucket=self.bucket).get("Contents", [])]


def context(name: str, seconds: float) -> Context:
    """Return Lambda's context of an invocation that times out after that many seconds."""
    clock = SystemClock()
    return Context(function_name=name, deadline=clock.now() + seconds, now=clock.now)


@pytest.fixture(scope="module")
def aws() -> Iterator[str]:
    """The URL of a server that speaks as AWS does."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Valkey."""
    server, port = valkey.start(tmp_path_factory.mktemp("valkey"))
    yield f"redis://127.0.0.1:{port}"
    server.kill()
    server.wait()


@pytest.fixture
def door(aws: str, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Door]:
    """Everything set up under fresh names, and the environment that template.yaml gives the functions."""
    name = f"sluice-{next(NAMES)}"
    for key, value in {
        "AWS_ENDPOINT_URL": aws,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }.items():
        monkeypatch.setenv(key, value)
    clients = {service: boto3.client(service) for service in ("kinesis", "s3", "dynamodb", "secretsmanager")}
    clients["kinesis"].create_stream(StreamName=name, ShardCount=1)
    clients["s3"].create_bucket(Bucket=name)
    clients["dynamodb"].create_table(
        TableName=name,
        KeySchema=[
            {"AttributeName": "pk", "KeyType": "HASH"},
            {"AttributeName": "sk", "KeyType": "RANGE"},
        ],
        AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"} for key in ("pk", "sk")],
        BillingMode="PAY_PER_REQUEST",
    )
    clients["secretsmanager"].create_secret(Name=f"{name}-td", SecretString=f"{API_KEY}\n")
    clients["secretsmanager"].create_secret(Name=f"{name}-redis", SecretString=redis_url)
    redis = connect(redis_url)
    redis.flushall()
    redis.hset(accounts.SENTINEL, mapping={"at": "now", "count": "1"})
    redis.hset(accounts.redis_key("shop"), mapping=Account("shop_db").to_fields())
    td = TreasureData()
    with Server(td.handle) as server:
        settings = {
            "STAGE": "test",
            "POWERTOOLS_METRICS_NAMESPACE": "Sluice",
            "POWERTOOLS_SERVICE_NAME": f"worker-{name}",  # loggers are kept by service, with the output they began with
            "STREAM_NAME": name,
            "OVERFLOW_QUEUE_URL": "http://queue",
            "LEDGER_TABLE": name,
            "ASIDE_BUCKET": name,
            "REDIS_URL_SECRET": f"{name}-redis",
            "TD_API_KEY_SECRET": f"{name}-td",
            "TD_IMPORT_ENDPOINT": server.url,
            "TD_API_ENDPOINT": server.url,
            "PARK_AFTER_SECONDS": "1",
        }
        for key, value in settings.items():
            monkeypatch.setenv(key, value)
        app._sandbox.cache_clear()
        redrive._sandbox.cache_clear()
        yield Door(td, clients["kinesis"], clients["s3"], redis, name, name)
        app._sandbox.cache_clear()
        redrive._sandbox.cache_clear()
    redis.close()


def ids(td: TreasureData, database: str, table: str) -> list[str]:
    """Return the event ids in a table."""
    return [one["event_id"] for one in td.rows(database, table)]


def test_batch_through_the_door(door: Door, capsys: pytest.CaptureFixture[str]) -> None:
    """A batch arrives, dead letters go to S3, and one line of log and one of metrics tell of it, without the rows."""
    door.put(
        envelope("shop", {"views": [row("e1"), row("e2")]}), b"junk", envelope("shop", {"views": [row("e3")]})
    )
    assert door.invoke() == {"batchItemFailures": []}
    assert ids(door.td, "shop_db", "views") == ["e1", "e2", "e3"]
    assert [name.split("/")[1:4] for name in door.objects()] == [["dead_letter", "-", "-undecodable"]]
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    (span,) = [line for line in lines if line.get("message") == "span"]
    assert (span["records"], span["delivered"], span["aside"], span["pending"]) == (3, 3, 1, 0)
    (metrics,) = [line for line in lines if "_aws" in line]
    assert (metrics["RowsDelivered"], metrics["RowsDeadLettered"]) == ([3.0], [1.0])
    (directive,) = metrics["_aws"]["CloudWatchMetrics"]
    assert directive["Namespace"] == "Sluice"
    assert sorted(directive["Dimensions"][0]) == ["service", "stage"]
    assert "event_id" not in json.dumps(lines)
    assert door.invoke() == {"batchItemFailures": []}
    assert len(door.td.imports()) == 1


def test_parked_and_redriven_through_the_doors(door: Door) -> None:
    """A database that fails is parked by the worker's door and delivered through the redrive's."""
    door.td.faults.add(Fault(kind=Kind.STATUS, action=Action.IMPORT, status=503))  # type: ignore[attr-defined]
    door.put(envelope("shop", {"views": [row("e1")]}))
    assert door.invoke() == {"batchItemFailures": []}
    assert [name.split("/")[1] for name in door.objects()] == ["parked"]
    door.td.faults.clear()  # type: ignore[attr-defined]  # the default source
    assert redrive.handler({}, context("redrive", 60)) == {
        "delivered": 1,
        "kept": 0,
        "dead": 0,
        "complete": True,
    }
    assert ids(door.td, "shop_db", "views") == ["e1"]
    assert door.objects() == []


def test_a_selection_by_hand(door: Door) -> None:
    """The redrive's door takes kinds, account and table."""
    door.put(envelope("new", {"views": [row("e1")], "clicks": [row("e2")]}))
    door.invoke()
    door.redis.hset(accounts.redis_key("new"), mapping=Account("new_db").to_fields())
    event = {"kinds": ["dead_letter"], "account": "new", "table": "clicks"}
    assert redrive.handler(event, context("redrive", 60))["delivered"] == 1
    assert door.td.counts() == {"new_db": {"clicks": 1}}


def test_no_time_left(door: Door) -> None:
    """An invocation that begins with hardly any time holds its batch in time."""
    door.put(envelope("shop", {"views": [row("e1")]}))
    (failure,) = door.invoke(seconds=0.2)["batchItemFailures"]
    assert failure["itemIdentifier"]
    assert door.td.imports() == []
    assert door.invoke() == {"batchItemFailures": []}
    assert ids(door.td, "shop_db", "views") == ["e1"]


def test_secrets_without_values_hold(
    door: Door, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """While the Redis URL has no value yet, everything is held, and the log says what to do."""
    monkeypatch.setenv("REDIS_URL_SECRET", "nowhere")
    app._sandbox.cache_clear()
    door.put(envelope("shop", {"views": [row("e1")]}))
    assert len(door.invoke()["batchItemFailures"]) == 1
    assert "the secret nowhere has no value yet: put one there" in capsys.readouterr().out
    monkeypatch.setenv("REDIS_URL_SECRET", f"{door.stream}-redis")
    app._sandbox.cache_clear()
    assert door.invoke() == {"batchItemFailures": []}


def test_no_thread_outlives_the_invocation(door: Door) -> None:
    """After the handler has returned, no thread of it is left."""
    door.put(*(envelope("shop", {f"table_{n}": [row("e")]}) for n in range(30)))
    door.invoke()
    assert [thread for thread in threading.enumerate() if thread.name == "sluice"] == []


def test_secrets_never_show(door: Door, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither the API key nor the Redis URL stand in anything that is written, whatever happens."""
    door.td.faults.add(Fault(kind=Kind.STATUS, action=Action.IMPORT, status=401))  # type: ignore[attr-defined]
    door.put(envelope("shop", {"views": [row("e1")]}), b"junk")
    door.invoke()
    out = "".join(capsys.readouterr())
    assert API_KEY not in out
    assert "redis://" not in out
