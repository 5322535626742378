"""What became of events, read at its two ends: Treasure Data's rows and the objects that are set aside.

Nothing of the worker's code is used, so that its mistakes do not count on both sides.
"""

import gzip
import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import msgpack

from local.reconciliation import Outcome, Place, place_of
from shared.accounts import Account


def delivered(file: Path) -> Iterator[Outcome]:
    """Yield the rows that Treasure Data's stand-in has taken, import by import.

    Args:
        file: its SQLite file.
    """
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as sql:
        for database, table, body in sql.execute('SELECT "database", "table", body FROM imports'):
            yield Outcome(Place(database, table), _event_ids(gzip.decompress(body)))


def set_aside(s3: Any, bucket: str, accounts: Mapping[str, Account]) -> Iterator[Outcome]:
    """Yield the rows that are set aside, object by object.

    Args:
        s3: boto3-shaped client.
        bucket: where they are.
        accounts: say which database they would have gone to.
    """
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for item in page.get("Contents", []):
            data = gzip.decompress(s3.get_object(Bucket=bucket, Key=item["Key"])["Body"].read())
            header, _, payload = data.partition(b"\n")
            chunk = json.loads(header)
            ids = _event_ids(payload)
            place = place_of(chunk["account"], chunk["table"], accounts)
            yield Outcome(place, ids, chunk["kind"], chunk["reason"])


def _event_ids(rows: bytes) -> tuple[str, ...]:
    """Return the ids of MessagePack maps that stand one after another; what is no map has an empty one."""
    unpacker = msgpack.Unpacker(strict_map_key=False, max_buffer_size=0)
    unpacker.feed(rows)
    return tuple(row.get("event_id", "") if isinstance(row, dict) else "" for row in unpacker)
