"""A handler that puts bytes on the stream, as many as Sluice does, and looks at nothing."""

import os
from typing import Any

import boto3

DATA = bytes(int(os.environ["DATA_BYTES"]))

kinesis = boto3.client("kinesis")


def handler(_event: dict[str, Any], _context: object) -> dict[str, Any]:
    """Put one record."""
    kinesis.put_record(StreamName="events", Data=DATA, PartitionKey="shop/1")
    return {"statusCode": 200, "body": ""}
