"""Reads what became of events: the rows in Treasure Data, and the objects that are set aside.

It uses none of the worker's code, so a bug there cannot hide itself.
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
    """Yield the rows that the Treasure Data double has imported, one outcome for each import.

    Args:
        file: the double's SQLite file.
    """
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as sql:
        for database, table, body in sql.execute('SELECT "database", "table", body FROM imports'):
            yield Outcome(Place(database, table), _event_ids(gzip.decompress(body)))


def set_aside(s3: Any, bucket: str, accounts: Mapping[str, Account]) -> Iterator[Outcome]:
    """Yield the rows that are set aside, one outcome for each object.

    Args:
        s3: boto3 client.
        bucket: the bucket of set-aside chunks.
        accounts: by name; they give the database that the rows were meant for.
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
    """Return the event ids of concatenated MessagePack maps; an item that is not a map has an empty id."""
    unpacker = msgpack.Unpacker(strict_map_key=False, max_buffer_size=0)
    unpacker.feed(rows)
    return tuple(row.get("event_id", "") if isinstance(row, dict) else "" for row in unpacker)
