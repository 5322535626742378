"""A handler that only imports boto3 and creates a Kinesis client."""

from typing import Any

import boto3

kinesis = boto3.client("kinesis")


def handler(_event: dict[str, Any], _context: object) -> dict[str, Any]:
    """Do nothing."""
    return {"statusCode": 200, "body": ""}
