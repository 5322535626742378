"""A forced replay: rows that Treasure Data has lost go out again, though the ledger has them as delivered.

It has a chain of its own beside each shard's, named by a tag: the rows of one tag are sent once, however often the
replay is run, broken off or resumed. Which rows it concerns is part of the chain's name, because a span's rows never
change.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from shared import errors, names
from worker.record import NOBODY, Record, is_reason

_TAG_LENGTH = 64


class InvalidReplayError(errors.InvalidReplayError):
    """An event asks for a replay that cannot be; the message says why."""


@dataclass(frozen=True, slots=True)
class Forced:
    """What is sent again.

    Attributes:
        tag: names the replay: lower case letters, digits, `-`, `_`, `.` and `:`, at most 64.
        account: only this account's rows.
        table: only this table's.
    """

    tag: str
    account: str | None = None
    table: str | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot stand in a chain's name."""
        plain = (
            self.tag.isascii() and self.tag.translate(_NO_MARKS).isalnum() and self.tag == self.tag.lower()
        )
        if not plain or len(self.tag) > _TAG_LENGTH:
            raise InvalidReplayError(f"{self.tag!r} cannot be a tag: 1 to 64 of a-z, 0-9, -, _, . and :")
        if self.account is not None and not names.is_account(self.account):
            raise InvalidReplayError(f"{self.account!r} cannot be an account")
        if self.table is not None and not names.is_table(self.table):
            raise InvalidReplayError(f"{self.table!r} cannot be a table")

    @classmethod
    def from_event(cls, event: Mapping[str, Any]) -> Self | None:
        """Return what an event's `forced` asks for: `tag`, and optionally `account` and `table`; None without it.

        Raises:
            InvalidReplayError: it cannot be done.
        """
        asked = event.get("forced")
        return None if asked is None else cls(asked["tag"], asked.get("account"), asked.get("table"))

    def chain(self, root: str) -> str:
        """Return the name of the chain beside a shard's."""
        return f"{root}{FORCED}{self.tag}/{self.account or '*'}/{self.table or '*'}"

    def narrow(self, records: Iterable[Record]) -> list[Record]:
        """Return the records with the blocks that it concerns alone; a record without any names no account."""
        return [self._narrow(record) for record in records]

    def _narrow(self, record: Record) -> Record:
        number, arrived_at, (version, account, key_id, received_at, request_id, attempt, blocks) = record
        if self.account is not None and account != self.account:
            blocks = ()
        blocks = tuple(
            block for block in blocks if not is_reason(block[0]) and self.table in (None, block[0])
        )  # what could not become rows was never delivered
        if not blocks:
            return number, arrived_at, (version, NOBODY, "", received_at, "", 0, ())
        return number, arrived_at, (version, account, key_id, received_at, request_id, attempt, blocks)


FORCED = "#force#"
"""Stands between a shard's chain and what names the replay."""

_NO_MARKS = str.maketrans("", "", "-_.:")
