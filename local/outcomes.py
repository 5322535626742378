"""Reads the outcomes of events: the rows in Treasure Data, and those that wait in S3 or are dead.

It uses none of the worker's code, so a bug there cannot hide itself.
"""

import gzip
import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote
from urllib.request import ProxyHandler, build_opener

import msgpack

from local.reconciliation import TableOutcome, TablePlace, place_of
from local.resources import Resources
from shared.accounts import Account

_DIRECT = build_opener(ProxyHandler({}))
_TIMEOUT_SECONDS = 30
_KINDS = ("waiting", "again", "dead")


def delivered(treasure_data: str) -> Iterator[TableOutcome]:
    """Yield the rows that the Treasure Data double has imported, one outcome for each table.

    Args:
        treasure_data: the double's URL.
    """
    with _DIRECT.open(f"{treasure_data}/-/event_ids", timeout=_TIMEOUT_SECONDS) as response:
        for database, tables in json.load(response).items():
            for table, event_ids in tables.items():
                yield TableOutcome(TablePlace(database, table), tuple(event_ids))


def undelivered(resources: Resources, accounts: Mapping[str, Account]) -> Iterator[TableOutcome]:
    """Yield the rows that wait or are dead, one outcome for each chunk.

    Args:
        resources: the bucket, which has the rows, and the ledger, which says what became of them and why.
        accounts: the accounts by name, for the databases of their rows.
    """
    s3, bucket = resources.client("s3"), resources.data_bucket
    for item in _spans(resources):
        if "o" not in item or item["pk"]["S"].startswith("force#"):
            continue
        states = {state for name in item["g"]["M"] for _, state, _ in _leaves(item, name, ())}
        if states.isdisjoint(_KINDS):
            continue
        data = s3.get_object(Bucket=bucket, Key=_object_name(item))["Body"].read()
        for chunk, (rows, offset, length) in _members(item, data).items():
            account, _, label = chunk.rpartition("/")[0].partition("/")
            place = place_of(account.partition(":")[0], label.partition("~")[0], accounts)
            payload = gzip.decompress(data[offset : offset + length])
            for ids, kind, reason in _leaves(item, chunk, _event_ids(payload)[:rows]):
                if kind in _KINDS:
                    yield TableOutcome(place, ids, kind, reason)


def _spans(resources: Resources) -> Iterator[dict[str, Any]]:
    """Yield the items of spans in the ledger's table."""
    pages = (
        resources.client("dynamodb")
        .get_paginator("scan")
        .paginate(TableName=resources.ledger_table, ConsistentRead=True)
    )
    for page in pages:
        yield from (item for item in page["Items"] if "g" in item)


def _object_name(item: Mapping[str, Any]) -> str:
    hour, digest, *_ = item["o"]["L"]
    borders = f"{item['first']['S'][3:]}-{item['last']['S'][3:]}-{bytes(digest['B']).hex()}"
    return f"spans/{hour['S']}/{quote(item['pk']['S'], safe='@#:!')}/{borders}.gz"


def _members(item: Mapping[str, Any], data: bytes) -> dict[str, tuple[int, int, int]]:
    """Return where the chunks of a span object are: rows, offset and length by name."""
    _, _, offset, length = item["o"]["L"]
    begin = int(offset["N"])
    index = msgpack.unpackb(gzip.decompress(data[begin : begin + int(length["N"])]))
    return {name: (rows, offset, length) for name, rows, offset, length, *_ in index[7] if length}


def _leaves(
    item: Mapping[str, Any], chunk: str, ids: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], str, str]]:
    """Yield a chunk's event ids with its state and reason; if the chunk was split, those of its parts."""
    state, reason = _state(item, chunk)
    if state == "split":
        half = len(ids) // 2
        yield from _leaves(item, f"{chunk}.0", ids[:half])
        yield from _leaves(item, f"{chunk}.1", ids[half:])
    else:
        yield ids, state, reason


def _state(item: Mapping[str, Any], chunk: str) -> tuple[str, str]:
    """Return a chunk's state and reason: its entry's, else the default."""
    entries = item["x"]["M"] if "x" in item else {}
    if chunk in entries:
        entry = entries[chunk]["M"]
        return entry["s"]["S"], entry.get("why", {"S": ""})["S"]
    sender, _, label = chunk.rpartition("/")[0].partition("/")
    if label.startswith("-"):
        return "dead", label[1:]
    if "!" in label:
        return "rejected", ""
    destination = item["m"]["M"].get(sender, {"S": ""})["S"] if "m" in item else ""
    if destination.startswith("!"):
        return "dead", destination[1:]
    if "~" in label:
        return "again", ""
    return ("delivered" if item["st"]["S"] == "settled" else "waiting"), ""


def _event_ids(rows: bytes) -> tuple[str, ...]:
    """Return the event ids of concatenated MessagePack maps; an item that is not a map has an empty id."""
    unpacker = msgpack.Unpacker(strict_map_key=False, max_buffer_size=0)
    unpacker.feed(rows)
    return tuple(row.get("event_id", "") if isinstance(row, dict) else "" for row in unpacker)
