"""Recognises the rows of persons to forget, by keyed hashes of a column's value.

Nothing here keeps a value. A hash is of the account, the column and the value's text, or of what HashedColumns makes of that text. Most
rows are never decoded: the column's name is searched in the bytes, and only the value behind it is looked at.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import msgpack

from shared import json_codec
from shared.errors import InvalidJsonError
from shared.person_hash import hasher, text_of
from shared.rows import column_name
from shared.rows import text_of as json_text
from worker.rows import values
from worker.span import TOO_MANY_TABLES, Group
from worker.treasure_data.statement import RowId

_EMPTY_STR, _STR8 = 0xA0, 0xD9  # in MessagePack
_LONGEST_VALUE = 1 << 20  # bytes: no row is as large


@dataclass(frozen=True, slots=True)
class Person:
    """A person to forget, in one account.

    Attributes:
        id: of the request.
        hashes: of the values that the column has in the person's rows.
        before: UNIX milliseconds; only rows that the ingest received until then.
    """

    id: str
    account: str
    column: str
    hashes: tuple[bytes, ...]
    before: int


class Found(NamedTuple):
    """A row of a person: the request that it matches, and the id by which Treasure Data finds the row; None of an original."""

    request: str
    id: RowId | None = None


class Piece(NamedTuple):
    """A value of a chunk's payload: a row or, of what never became rows, an original.

    Attributes:
        data: its bytes without the rows of persons to forget; empty if nothing is left.
        rows: how many rows it had.
        forgotten: those of persons.
    """

    data: bytes
    rows: int
    forgotten: tuple[Found, ...] = ()


@dataclass(frozen=True)
class Persons:
    """Persons to forget, and the key that their hashes are made with."""

    key: bytes = field(repr=False)
    persons: tuple[Person, ...]

    @cached_property
    def matchers(self) -> "dict[str, Matcher]":
        """What recognises the persons of each account."""
        by_account: dict[str, dict[str, dict[bytes, Person]]] = {}
        for person in self.persons:
            of = by_account.setdefault(person.account, {}).setdefault(person.column, {})
            of |= dict.fromkeys(person.hashes, person)
        return {account: Matcher(self.key, account, columns) for account, columns in by_account.items()}

    def of(self, account: str, received_at: int = 0) -> "Matcher | None":
        """Return what recognises an account's persons in rows that the ingest received then (UNIX milliseconds) or later; None if none can be there."""
        matcher = self.matchers.get(account)
        return None if matcher is None or received_at > matcher.before else matcher


class Matcher:
    """Recognises rows of one account's persons. Rows that the ingest received later than `before` (UNIX milliseconds) are nobody's."""

    def __init__(self, key: bytes, account: str, columns: Mapping[str, Mapping[bytes, Person]]) -> None:
        self._columns = {column: dict(persons) for column, persons in columns.items()}
        self._names = {column: _behind(column) for column in columns}
        self._hashers = {column: hasher(key, account, column) for column in columns}
        self.before = max(person.before for persons in columns.values() for person in persons.values())

    def _may_be_in(self, payload: bytes) -> bool:
        """Return whether rows may be of a person, without decoding them. If not, none is."""
        return any(
            not self._columns[column].keys().isdisjoint(map(self._hashers[column], _texts(payload, name)))
            for column, name in self._names.items()
        )

    def request(self, row: Mapping[Any, Any]) -> str:
        """Return the request that a row matches; empty if it matches none."""
        received_at = row.get("received_at")
        matches = (self._request_of(column, row.get(column), received_at) for column in self._columns)
        return next(filter(None, matches), "")

    def request_of_event(self, original: bytes, received_at: int | None = None) -> str:
        """Return the request that an event matches, given its JSON; empty if it matches none, or is no JSON.

        Any of the members counts whose names become the same column's. A row has the first, and the others in columns of other names.
        """
        try:
            event = json_codec.parse(original)
        except InvalidJsonError:
            return ""
        members = event.items() if isinstance(event, dict) else ()
        columns = ((column_name(name), value) for name, value in members)
        matches = (
            self._request_of(column, column_value(value), received_at)
            for column, value in columns
            if column in self._columns
        )
        return next(filter(None, matches), "")

    def _request_of(self, column: str, value: Any, received_at: Any) -> str:
        person = None if value is None else self._columns[column].get(self._hashers[column](text_of(value)))
        is_later = person is not None and type(received_at) is int and received_at > person.before
        return "" if person is None or is_later else person.id

    def pieces(self, payload: bytes, group: Group) -> list[Piece]:
        """Return the payload of a chunk in pieces, without the rows of persons; nothing if it has none."""
        if not group.code and not self._may_be_in(payload):
            return []
        found = [self._piece(data, value, group) for data, value in _unpacked(payload)]
        return found if any(piece.forgotten for piece in found) else []

    def found(self, payload: bytes, group: Group) -> Iterator[tuple[int, Any]]:
        """Yield the rows of persons in the payload of a chunk, and events that never became rows, each with a row's number in it."""
        number = 0
        for data, value in _unpacked(payload):
            piece = self._piece(data, value, group)
            if piece.forgotten and group.code == TOO_MANY_TABLES:
                yield from ((number, row) for _, row in self.found(value[2], group._replace(code="")))
            elif piece.forgotten:
                yield number, json_codec.parse(value) if group.code else value
            number += piece.rows

    def _piece(self, data: bytes, value: Any, group: Group) -> Piece:
        if group.code == TOO_MANY_TABLES:
            table, number, packed = value
            rows = self.pieces(packed, group._replace(code=""))
            left = [row.data for row in rows if row.data]
            if rows:
                data = bytes(msgpack.packb((table, len(left), b"".join(left)))) if left else b""
            return Piece(data, number, tuple(found for row in rows for found in row.forgotten))
        if group.code:
            request = self.request_of_event(value) if isinstance(value, bytes) else ""
            return Piece(b"", 1, (Found(request),)) if request else Piece(data, 1)
        request = self.request(value) if isinstance(value, dict) else ""
        if not request:
            return Piece(data, 1)
        return Piece(b"", 1, (Found(request, RowId.of(value)),))


def column_value(value: Any) -> Any:
    """Return what a row would have of an event's member."""
    return json_text(value) if isinstance(value, (list, dict)) else value


def _behind(name: str) -> re.Pattern[bytes]:
    """Return a pattern that finds a column's name, and captures the value behind it if it is text of less than 256 bytes."""
    return re.compile(
        re.escape(bytes(msgpack.packb(name))) + rb"(?=([\xa0-\xbf].{0,31}|\xd9.{1,256})?)", re.DOTALL
    )


def _texts(payload: bytes, behind: re.Pattern[bytes]) -> set[bytes]:
    """Return the texts of the values behind a column's name. Bytes that only look like the name give something else."""
    texts = behind.findall(payload)
    found = {
        text[1 : text[0] - _EMPTY_STR + 1] if text[0] < _STR8 else text[2 : 2 + text[1]]
        for text in texts
        if text
    }
    if b"" in texts:
        found |= {_text(payload, one.end()) for one in behind.finditer(payload) if one[1] is None}
    return found


def _text(payload: bytes, start: int) -> bytes:
    unpacker = msgpack.Unpacker(strict_map_key=False, raw=True)
    unpacker.feed(payload[start : start + _LONGEST_VALUE])
    try:
        value = unpacker.unpack()
    except (ValueError, TypeError, msgpack.UnpackException):
        return b""
    return value if isinstance(value, bytes) else text_of(value)


def _unpacked(payload: bytes) -> Iterator[tuple[bytes, Any]]:
    """Yield each MessagePack value of a payload: its bytes, and itself; raise InvalidObjectError if it holds something else."""
    begin = 0
    for value, end in values(payload):
        yield payload[begin:end], value
        begin = end
