"""Requests to the double of Treasure Data, for tests."""

import gzip
from collections.abc import Iterable
from typing import Any
from uuid import uuid4

import msgpack

from doubles.treasure_data import API_KEY, Request, Response, TreasureData

AUTHORIZED = {"Authorization": f"TD1 {API_KEY}"}


def import_body(rows: Iterable[object]) -> bytes:
    """Return the body of an import: msgpack, one row after another, gzipped."""
    return gzip.compress(b"".join(msgpack.packb(row) for row in rows), mtime=0)


def call(td: TreasureData, method: str, target: str, body: bytes = b"", **headers: str) -> Response:
    """Send one request with the key that may do everything."""
    return td.handle(Request(method, target, tuple((AUTHORIZED | headers).items()), body))


def with_tables(td: TreasureData, *tables: str) -> TreasureData:
    """Create tables, named as database.table, and their databases."""
    for name in tables:
        td.create(*name.split("."))
    return td


def put(td: TreasureData, table: str, rows: Iterable[Any], unique_id: str | None = None) -> Response:
    """Import rows into a table, named as database.table, under a unique_id, by default a new one."""
    target = f"/v3/table/import_with_id/{table.replace('.', '/')}/{unique_id or uuid4().hex}/msgpack.gz"
    return call(td, "PUT", target, import_body(rows))
