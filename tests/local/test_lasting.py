"""The local stack's parts that store data keep everything that they have acknowledged, even if they are killed."""

import gzip
import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest

from doubles.http_server import Request
from doubles.treasure_data import API_KEY
from local import resources
from local.journal import Journal
from local.part import Part
from local.td_server import LastingTreasureData

ROWS = gzip.compress(msgpack.packb({"time": 1, "event_id": "a"}))
TD = (("authorization", f"TD1 {API_KEY}"),)


@pytest.fixture
def aws(tmp_path: Path) -> Iterator[Part]:
    """Run AWS as a part."""
    environment = {"PATH": os.environ["PATH"], "AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local"}
    part = Part("aws", ["local.aws", str(tmp_path)], environment, tmp_path, port=0)
    yield part
    part.stop()
    part.wait(10)


def test_a_truncated_journal_keeps_all_complete_requests(tmp_path: Path) -> None:
    """A half-written request was not acknowledged. It is cut off, and the next one follows the last complete one."""
    path = tmp_path / "journal"
    journal = Journal(path)
    assert [] == list(journal.requests())
    first = Request("PUT", "/a?b", (("Name", "value"),), b"\x00body")
    journal.append(1.5, first)
    complete = path.stat().st_size
    journal.append(2.5, first)
    os.truncate(path, complete + 7)

    again = Journal(path)
    assert [(1.5, first)] == list(again.requests())
    again.append(3.5, first)
    assert [(1.5, first), (3.5, first)] == list(Journal(path).requests())


def test_aws_keeps_everything_when_it_is_killed(aws: Part) -> None:
    """Stream, queue, bucket, ledger and secrets come back at the same address. A message in flight stays in flight."""
    endpoint = aws.ready(60)["endpoint"]
    made = resources.create(endpoint, shards=2, signing_secrets={}, td_api_key="k", redis_url="redis://x")
    kinesis, sqs, s3 = (made.client(name) for name in ("kinesis", "sqs", "s3"))
    dynamodb, secrets = made.client("dynamodb"), made.client("secretsmanager")
    put = kinesis.put_record(StreamName=made.stream, Data=b"\x00\xff", PartitionKey="p")
    sqs.send_message(QueueUrl=made.queue_url, MessageBody="one", DelaySeconds=0)
    taken = sqs.receive_message(QueueUrl=made.queue_url)["Messages"][0]
    s3.put_object(Bucket=made.data_bucket, Key="aside/a/b", Body=b"rows")
    item = {"pk": {"S": "a"}, "sk": {"S": "b"}, "blob": {"B": b"\x01"}}
    dynamodb.put_item(TableName=made.ledger_table, Item=item)
    os.kill(aws.pid, signal.SIGKILL)
    _revive(aws)
    assert (
        resources.create(endpoint, shards=9, signing_secrets={}, td_api_key="", redis_url="redis://y") == made
    )

    (shard,) = (
        one
        for one in kinesis.list_shards(StreamName=made.stream)["Shards"]
        if one["ShardId"] == put["ShardId"]
    )
    start = {"ShardId": shard["ShardId"], "ShardIteratorType": "TRIM_HORIZON"}
    iterator = kinesis.get_shard_iterator(StreamName=made.stream, **start)["ShardIterator"]
    (record,) = kinesis.get_records(ShardIterator=iterator)["Records"]
    assert (put["SequenceNumber"], b"\x00\xff") == (record["SequenceNumber"], record["Data"])
    assert "Messages" not in sqs.receive_message(QueueUrl=made.queue_url)
    sqs.delete_message(QueueUrl=made.queue_url, ReceiptHandle=taken["ReceiptHandle"])
    attributes: dict[str, Any] = sqs.get_queue_attributes(QueueUrl=made.queue_url, AttributeNames=["All"])
    assert {"0"} == set(attributes["Attributes"].values())
    assert b"rows" == s3.get_object(Bucket=made.data_bucket, Key="aside/a/b")["Body"].read()
    key = {"pk": {"S": "a"}, "sk": {"S": "b"}}
    assert item == dynamodb.get_item(TableName=made.ledger_table, Key=key)["Item"]
    assert "redis://y" == secrets.get_secret_value(SecretId=made.redis_url_secret)["SecretString"]


def _revive(part: Part) -> None:
    beat = threading.Event()
    while not part.revive():
        beat.wait(0.05)
    part.ready(60)


def test_treasure_data_keeps_its_rows_and_unique_ids(tmp_path: Path) -> None:
    """An import that is repeated after a restart is still recognized as a duplicate."""
    before = LastingTreasureData(tmp_path)
    for path in ("database/create/shop", "table/create/shop/views/log"):
        assert 200 == before.handle(Request("POST", f"/v3/{path}", TD)).status
    upload = Request("PUT", "/v3/table/import_with_id/shop/views/ab/msgpack.gz", TD, ROWS)
    assert 200 == before.handle(upload).status
    assert 404 == before.handle(Request("POST", "/v3/nothing", TD)).status

    after = LastingTreasureData(tmp_path)
    assert 200 == after.handle(upload).status
    counts = json.loads(after.handle(Request("GET", "/-/counts")).body)
    assert {"shop": {"views": 1}} == counts
