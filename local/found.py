"""What became of events, read at its two ends: Treasure Data's rows and the objects that are set aside.

Nothing of the worker's code is used, so that its mistakes do not count on both sides.
"""

import gzip
import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.request import ProxyHandler, build_opener

import msgpack

from local.reconciliation import Found, Place, place_of
from shared.accounts import Account

_DIRECT = build_opener(ProxyHandler({}))
_SECONDS = 30


def delivered(treasure_data: str) -> Iterator[Found]:
    """Yield the rows that the double of Treasure Data has accepted, table by table.

    Args:
        treasure_data: its address.
    """
    with _DIRECT.open(f"{treasure_data}/-/event_ids", timeout=_SECONDS) as answer:
        for database, tables in json.load(answer).items():
            for table, event_ids in tables.items():
                yield Found(Place(database, table), tuple(event_ids))


def set_aside(s3: Any, bucket: str, accounts: Mapping[str, Account]) -> Iterator[Found]:
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
            yield Found(place, ids, chunk["kind"], chunk["reason"])


def _event_ids(rows: bytes) -> tuple[str, ...]:
    """Return the ids of MessagePack maps that stand one after another; what is no map has an empty one."""
    unpacker = msgpack.Unpacker(strict_map_key=False, max_buffer_size=0)
    unpacker.feed(rows)
    return tuple(row.get("event_id", "") if isinstance(row, dict) else "" for row in unpacker)
