"""Reads the outcomes of events: the rows in Treasure Data, and the rows that are set aside.

It uses none of the worker's code, so a bug there cannot hide itself.
"""

import gzip
import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.request import ProxyHandler, build_opener

import msgpack

from local.reconciliation import TableOutcome, TablePlace, place_of
from local.resources import Resources
from shared.accounts import Account

_DIRECT = build_opener(ProxyHandler({}))
_TIMEOUT_SECONDS = 30
_KINDS = ("parked", "in_doubt", "dead_letter")


def delivered(treasure_data: str) -> Iterator[TableOutcome]:
    """Yield the rows that the Treasure Data double has imported, one outcome for each table.

    Args:
        treasure_data: the double's URL.
    """
    with _DIRECT.open(f"{treasure_data}/-/event_ids", timeout=_TIMEOUT_SECONDS) as response:
        for database, tables in json.load(response).items():
            for table, event_ids in tables.items():
                yield TableOutcome(TablePlace(database, table), tuple(event_ids))


def set_aside(resources: Resources, accounts: Mapping[str, Account]) -> Iterator[TableOutcome]:
    """Yield the rows that are set aside, one outcome for each chunk.

    Args:
        resources: the bucket, which has the rows, and the ledger, which says which of them are set aside and why.
        accounts: the accounts by name, for the databases of their rows.
    """
    s3, bucket = resources.client("s3"), resources.aside_bucket
    spans = _items(resources)
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix="aside/"):
        for item in page.get("Contents", []):
            data = gzip.decompress(s3.get_object(Bucket=bucket, Key=item["Key"])["Body"].read())
            header, _, payload = data.partition(b"\n")
            chunk = json.loads(header)
            entries = spans.get((chunk["chain"], chunk["after"]), {}).get("x", {}).get("M", {})
            digest = item["Key"].removesuffix(".gz").rpartition("-")[2]
            place = place_of(chunk["account"], chunk["table"], accounts)
            for entry, ids in _leaves(chunk["chunk"], _event_ids(payload), entries):
                if entry["s"]["S"] in _KINDS and entry["o"]["S"] == digest:
                    yield TableOutcome(place, ids, entry["s"]["S"], entry["why"]["S"])


def _items(resources: Resources) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the items of the ledger's table by key."""
    pages = (
        resources.client("dynamodb")
        .get_paginator("scan")
        .paginate(TableName=resources.ledger_table, ConsistentRead=True)
    )
    return {(item["pk"]["S"], item["sk"]["S"]): item for page in pages for item in page["Items"]}


def _leaves(
    chunk: str, ids: tuple[str, ...], entries: Mapping[str, Any]
) -> Iterator[tuple[dict[str, Any], tuple[str, ...]]]:
    """Yield a chunk's entry in the ledger and its event ids; if the chunk was split, those of its parts."""
    entry = entries[chunk]["M"] if chunk in entries else {"s": {"S": "delivered"}}
    if entry["s"]["S"] == "split":
        half = len(ids) // 2
        yield from _leaves(f"{chunk}.0", ids[:half], entries)
        yield from _leaves(f"{chunk}.1", ids[half:], entries)
    else:
        yield entry, ids


def _event_ids(rows: bytes) -> tuple[str, ...]:
    """Return the event ids of concatenated MessagePack maps; an item that is not a map has an empty id."""
    unpacker = msgpack.Unpacker(strict_map_key=False, max_buffer_size=0)
    unpacker.feed(rows)
    return tuple(row.get("event_id", "") if isinstance(row, dict) else "" for row in unpacker)
