"""The Lambda handlers, built from the environment, against moto, Valkey and a Treasure Data double on loopback."""

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from doubles.http_server import HttpServer
from doubles.lambda_context import Context
from doubles.treasure_data import API_KEY, Action, Fault, Kind, TreasureData
from local import valkey
from local.resources import LEDGER
from shared.accounts import Account, AccountKeys
from shared.clock import SystemClock
from tests.support import delivery
from tests.support.delivery import member, row
from worker import app
from worker.redis_client import connect
from worker.span import Span
from worker.span_object import PREFIX
from worker.states import State

NAMES = itertools.count()


def envelope(account: str, tables: dict[str, list[dict[str, Any]]]) -> bytes:
    """Return an envelope that was received now: the emulator cannot make the claims that late ones need."""
    return delivery.envelope(account, tables, received_at=round(SystemClock().now() * 1000))


@dataclass
class Stack:
    """Everything around the handlers. Stream, bucket and ledger share one name."""

    td: TreasureData
    kinesis: Any
    s3: Any
    redis: Any
    name: str

    def put(self, *data: bytes) -> None:
        """Put records on the stream."""
        for one in data:
            self.kinesis.put_record(StreamName=self.name, Data=one, PartitionKey="k")

    def invoke(self, seconds: float = 60) -> Any:
        """Invoke the worker with every record on the stream."""
        shard = self.kinesis.list_shards(StreamName=self.name)["Shards"][0]["ShardId"]
        iterator = self.kinesis.get_shard_iterator(
            StreamName=self.name, ShardId=shard, ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        records = self.kinesis.get_records(ShardIterator=iterator)["Records"]
        event = {"Records": [member(record, shard) for record in records]}
        return app.handler(json.loads(json.dumps(event)), context("worker", seconds))

    def send(self, event: dict[str, Any]) -> dict[str, Any]:
        """Invoke the sender."""
        answer = app.send(event, context("sender", 60))
        assert answer == json.loads(json.dumps(answer))
        return answer

    def spans(self) -> list[Span]:
        """Return the ledger's spans."""
        return list(app._wiring().ledger.spans())

    def entries(self) -> dict[str, tuple[str, str, int]]:
        """Return state, reason and row count of each chunk in the ledger."""
        return {
            key.name: (entry.state.value, entry.reason, span.rows(key))
            for span in self.spans()
            for key, entry in span.all_leaves()
            if entry.state is not State.DELIVERED
        }

    def objects(self) -> list[str]:
        """Return the names of the span objects."""
        listed = self.s3.list_objects_v2(Bucket=self.name, Prefix=PREFIX)
        return [one["Key"] for one in listed.get("Contents", [])]


def context(name: str, seconds: float) -> Context:
    """Return the Lambda context of an invocation that times out after this many seconds."""
    clock = SystemClock()
    return Context(function_name=name, deadline=clock.now() + seconds, now=clock.now)


@pytest.fixture(scope="module")
def aws() -> Iterator[str]:
    """Return the URL of a server that emulates AWS."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the URL of a Valkey server."""
    server, port = valkey.start(tmp_path_factory.mktemp("valkey"))
    yield f"redis://127.0.0.1:{port}"
    server.kill()
    server.wait()


@pytest.fixture
def stack(aws: str, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    """Set everything up under fresh names, with the environment that template.yaml gives the functions."""
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
    clients["dynamodb"].create_table(TableName=name, **LEDGER)
    clients["secretsmanager"].create_secret(Name=f"{name}-td", SecretString=f"{API_KEY}\n")
    clients["secretsmanager"].create_secret(Name=f"{name}-redis", SecretString=redis_url)
    redis = connect(redis_url)
    redis.flushall()
    keys = AccountKeys(name)
    redis.hset(keys.sentinel, mapping={"at": "now", "count": "1"})
    redis.hset(keys.of("shop"), mapping=Account("shop_db").to_fields())
    td = TreasureData()
    with HttpServer(td.handle) as server:
        settings = {
            "STAGE": "test",
            "POWERTOOLS_METRICS_NAMESPACE": "Sluice",
            "POWERTOOLS_SERVICE_NAME": f"worker-{name}",  # Powertools keeps a logger per service, with the output it began with
            "STREAM_NAME": name,
            "OVERFLOW_QUEUE_URL": "http://queue",
            "OVERFLOW_NOTICES_URL": "http://notices",
            "LEDGER_TABLE": name,
            "DATA_BUCKET": name,
            "REDIS_URL_SECRET": f"{name}-redis",
            "TD_API_KEY_SECRET": f"{name}-td",
            "WRITE_KEY_SECRET": f"{name}-keys",
            "TD_IMPORT_ENDPOINT": server.url,
            "TD_API_ENDPOINT": server.url,
        }
        for key, value in settings.items():
            monkeypatch.setenv(key, value)
        app._wiring.cache_clear()
        yield Stack(td, clients["kinesis"], clients["s3"], redis, name)
        app._wiring.cache_clear()
    redis.close()


def ids(td: TreasureData, database: str, table: str) -> list[str]:
    """Return the event ids in a table."""
    return [one["event_id"] for one in td.rows(database, table)]


def test_a_batch_is_delivered_logged_and_measured(stack: Stack, capsys: pytest.CaptureFixture[str]) -> None:
    """Its object is in S3, and one log line and one metrics line describe the batch without its rows."""
    stack.put(
        envelope("shop", {"views": [row("e1"), row("e2")]}), b"junk", envelope("shop", {"views": [row("e3")]})
    )

    assert {"batchItemFailures": []} == stack.invoke()
    assert ["e1", "e2", "e3"] == ids(stack.td, "shop_db", "views")
    assert 1 == len(stack.objects())
    assert {"-/-undecodable/0": ("dead", "undecodable", 1)} == stack.entries()
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    (span,) = [line for line in lines if line.get("message") == "span"]
    assert (3, 2, 0) == (span["records"], span["chunks"], span["waiting"])
    (metrics,) = [line for line in lines if "_aws" in line]
    assert ([1], 1) == (metrics["NeedsAttention"], metrics["RowsDead"])
    (directive,) = metrics["_aws"]["CloudWatchMetrics"]
    assert ("Sluice", [[]]) == (directive["Namespace"], directive["Dimensions"])
    assert "event_id" not in json.dumps(lines)


REPORT = {"delivered": 0, "kept": 0, "dead": 0, "dropped": 0, "copies": 0, "complete": True}


@pytest.mark.parametrize("status", [429, 503])
def test_the_sender_delivers_what_waits(stack: Stack, status: int) -> None:
    """Rows of a failing database wait, with a doubt if it may have them."""
    stack.td.faults.add(Fault(kind=Kind.STATUS, action=Action.IMPORT, status=status))
    stack.put(envelope("shop", {"views": [row("e1")]}))
    assert {"batchItemFailures": []} == stack.invoke()
    assert {"shop/views/0": ("waiting", f"http_{status}", 1)} == stack.entries()
    stack.td.faults.clear()

    assert REPORT | {"delivered": 1, "replaced": 0} == stack.send({})
    assert ["e1"] == ids(stack.td, "shop_db", "views")
    assert {} == stack.entries()


def test_the_admin_handler_reads_the_worker_s_accounts(stack: Stack) -> None:
    """It lists the account that the worker has just delivered for."""
    stack.put(envelope("shop", {"views": [row("e1")]}))
    stack.invoke()
    answer = app.admin({"do": "accounts"}, context("admin", 60))

    assert {"shop": Account("shop_db").to_fields()} == answer["accounts"]
    assert {"shop_db": {"views": 1}} == stack.td.counts()


def test_secrets_never_appear_in_the_output(stack: Stack, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither the API key nor the Redis URL is logged, even when Treasure Data rejects the key."""
    stack.td.faults.add(Fault(kind=Kind.STATUS, action=Action.IMPORT, status=401))
    stack.put(envelope("shop", {"views": [row("e1")]}), b"junk")
    stack.invoke()
    out = "".join(capsys.readouterr())

    assert out
    assert API_KEY not in out
    assert "redis://" not in out
