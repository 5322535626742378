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
_MEMBERS = (
    *("first", "last", "planned_at", "chunks", "destinations", "records", "digest", "earliest", "latest"),
    *("received_at", "object", "origin", "copies", "version", "writer", "settled", "entries"),
)
_Chunk = tuple[Any, int, str]
"""Sender, table, code, whether it was rejected, and request id; then the part and the path."""
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
        if item["object"] is None or item["chain"].startswith("force#"):
            continue
        states = {state for chunk in item["chunks"] for _, state, _ in _leaves(item, chunk, ())}
        if states.isdisjoint(_KINDS):
            continue
        data = s3.get_object(Bucket=bucket, Key=_object_name(item))["Body"].read()
        for chunk, (rows, offset, length) in _members(item, data).items():
            (account, _), table, code, is_rejected, _ = chunk[0]
            label = f"{table}!{code}" if is_rejected else f"-{code}" if code else table
            place = place_of(account, label, accounts)
            payload = gzip.decompress(data[offset : offset + length])
            for ids, kind, reason in _leaves(item, chunk, _event_ids(payload)[:rows]):
                if kind in _KINDS:
                    yield TableOutcome(place, ids, kind, reason)


def _spans(resources: Resources) -> Iterator[dict[str, Any]]:
    """Yield the spans in the ledger's table."""
    pages = (
        resources.client("dynamodb")
        .get_paginator("scan")
        .paginate(TableName=resources.ledger_table, ConsistentRead=True)
    )
    for page in pages:
        for item in page["Items"]:
            if "g" in item:
                members = msgpack.unpackb(bytes(item["g"]["B"]), use_list=False, strict_map_key=False)
                yield {"chain": item["pk"]["S"]} | dict(zip(_MEMBERS, members, strict=True))


def _object_name(item: Mapping[str, Any]) -> str:
    hour, digest, *_ = item["object"]
    borders = f"{item['first'][3:]}-{item['last'][3:]}-{digest.hex()}"
    return f"spans/{hour}/{quote(item['chain'], safe='@#:!')}/{borders}.gz"


def _members(item: Mapping[str, Any], data: bytes) -> dict[_Chunk, tuple[int, int, int]]:
    """Return where the chunks of a span object are: rows, offset and length by key."""
    *_, begin, length = item["object"]
    packed = gzip.decompress(data[begin : begin + length])
    index = msgpack.unpackb(packed, use_list=False, strict_map_key=False)
    return {key: (rows, offset, length) for key, rows, offset, length, *_ in index[7] if length}


def _leaves(
    item: Mapping[str, Any], chunk: _Chunk, ids: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], str, str]]:
    """Yield a chunk's event ids with its state and reason; if the chunk was split, those of its parts."""
    state, reason = _state(item, chunk)
    if state == "split":
        half = len(ids) // 2
        group, part, path = chunk
        yield from _leaves(item, (group, part, f"{path}0"), ids[:half])
        yield from _leaves(item, (group, part, f"{path}1"), ids[half:])
    else:
        yield ids, state, reason


def _state(item: Mapping[str, Any], chunk: _Chunk) -> tuple[str, str]:
    """Return a chunk's state and reason: its entry's, else the default."""
    if chunk in item["entries"]:
        state, _, _, _, reason, *_ = item["entries"][chunk]
        return state, reason
    sender, _, code, is_rejected, request_id = chunk[0]
    if is_rejected:
        return "rejected", ""
    _, reason, is_final = item["destinations"].get(sender, ("", "", False))
    if code or is_final:
        return "dead", code or reason
    if request_id:
        return "again", ""
    return ("delivered" if item["settled"] else "waiting"), ""


def _event_ids(rows: bytes) -> tuple[str, ...]:
    """Return the event ids of concatenated MessagePack maps; an item that is not a map has an empty id."""
    unpacker = msgpack.Unpacker(strict_map_key=False, max_buffer_size=0)
    unpacker.feed(rows)
    return tuple(row.get("event_id", "") if isinstance(row, dict) else "" for row in unpacker)
