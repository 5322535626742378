"""A handler that puts as many bytes on the stream as Sluice does, without looking at the request."""

import os
from typing import Any

import boto3

DATA = bytes(int(os.environ["DATA_BYTES"]))

kinesis = boto3.client("kinesis")


def handler(_event: dict[str, Any], _context: object) -> dict[str, Any]:
    """Put one record."""
    kinesis.put_record(StreamName="events", Data=DATA, PartitionKey="shop/1")
    return {"statusCode": 200, "body": ""}
