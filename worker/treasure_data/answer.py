"""Parses responses from Treasure Data's address, which a proxy, a cache or a wrong host may have sent instead.

A response settles something only if it is exactly what Treasure Data documents. docs/internals/delivery.md lists for each call which
responses are believed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

# What Treasure Data's OpenAPI requires; `details` is known from its Ruby client.
_ERROR_MEMBERS = {"error", "message", "text", "severity", "status_code"}
_COLUMNS = {"event_id": "string", "received_at": "long"}
"""The columns, beside `time`, by which rows are queried, and the types that the query needs."""


class _Column(Struct, array_like=True):
    name: str
    kind: str


@dataclass(frozen=True)
class TdAnswer:
    """An HTTP response."""

    status: int
    body: bytes

    @cached_property
    def document(self) -> dict[str, Any]:
        """The JSON object in the body; empty if there is none."""
        return _decoded(self.body, dict[str, Any]) or {}

    @property
    def is_refusal(self) -> bool:
        """Whether it is Treasure Data's own error document."""
        document = self.document
        return document.keys() - {"details"} == _ERROR_MEMBERS and document["status_code"] == self.status

    def confirms(self, members: Mapping[str, str]) -> bool:
        """Return whether it is a 200, and its document has these members."""
        return self.status == 200 and members.items() <= self.document.items()

    def names(self, member: str) -> set[str] | None:
        """Return the names in a listing of `databases` or `tables`; None if it is not such a listing."""
        found = self.document.get(member)
        if self.status != 200 or not isinstance(found, list):
            return None
        names = [one["name"] for one in found if isinstance(one, dict) and isinstance(one.get("name"), str)]
        return set(names) if len(names) == len(found) else None

    def shows_columns(self, table: str) -> bool | None:
        """Return whether the table has the columns by which rows are queried; None if the response does not show the table."""
        shown = columns(self.document) if self.confirms({"name": table}) else None
        return None if shown is None else _COLUMNS.items() <= shown.items()

    def counts(self, number: int) -> list[int] | None:
        """Return the counts in a job's result, which is one line with an array of this many integers; None if it is anything else."""
        counts = _decoded(self.body, list[Annotated[int, Meta(ge=0)]]) if self.status == 200 else None
        return counts if counts is not None and len(counts) == number else None


NO_ANSWER = TdAnswer(0, b"")
"""It settles nothing."""


def _decoded[T](text: bytes | str, form: type[T]) -> T | None:
    """Return JSON as a value of this form; None if it is anything else."""
    try:
        return msgspec.json.decode(text, type=form)
    except (msgspec.MsgspecError, RecursionError):
        return None


def columns(table: Mapping[str, Any]) -> dict[str, str] | None:
    """Return the types of a table's columns, as Treasure Data describes the table; None if it does not show them."""
    shown = _decoded(str(table.get("schema")), list[_Column])
    return None if shown is None else {"time": "long"} | {one.name: one.kind for one in shown}


def moment(text: object) -> float:
    """Parse a time in Treasure Data's format into UNIX seconds; return minus infinity if it is not a time."""
    try:
        date = datetime.fromisoformat(str(text).replace(" UTC", "+00:00"))
    except ValueError:
        return float("-inf")
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
