"""A forced replay: sends rows again that Treasure Data has lost, although the ledger says that they were delivered.

It has a chain of its own beside each shard's, named by a tag. The rows of one tag are sent once, however often the replay is run,
interrupted or resumed. The chain's name also holds the account and the table, because the rows of a span must never change.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from shared import names
from shared.errors import InvalidReplayError
from worker.record import NOBODY, Record

_TAG_LENGTH = 64
_NO_MARKS = str.maketrans("", "", "-_.:")


@dataclass(frozen=True, slots=True)
class ForcedReplay:
    """The rows to send again: of one account and table, or of all (None). The tag names the replay."""

    tag: str
    account: str | None = None
    table: str | None = None

    def __post_init__(self) -> None:
        """Refuse members that cannot be part of a chain's name."""
        plain = (
            self.tag.isascii() and self.tag.translate(_NO_MARKS).isalnum() and self.tag == self.tag.lower()
        )
        if not plain or len(self.tag) > _TAG_LENGTH:
            raise InvalidReplayError(f"{self.tag!r} is not a tag: use 1 to 64 of a-z, 0-9, -, _, . and :")
        if self.account is not None and not names.is_account(self.account):
            raise InvalidReplayError(f"{self.account!r} is not an account")
        if self.table is not None and not names.is_table(self.table):
            raise InvalidReplayError(f"{self.table!r} is not a table")

    @classmethod
    def from_event(cls, event: Mapping[str, Any]) -> Self:
        """Return the replay in an event's `forced`: `tag`, and optionally `account` and `table`.

        Raises:
            InvalidReplayError: a member is invalid.
        """
        asked = event["forced"]
        return cls(asked["tag"], asked.get("account"), asked.get("table"))

    @classmethod
    def parse(cls, name: str) -> Self:
        """Return the replay with this name."""
        tag, account, table = name.split("/")
        return cls(tag, None if account == "*" else account, None if table == "*" else table)

    @property
    def name(self) -> str:
        """The part of its chains' names that identifies it."""
        return f"{self.tag}/{self.account or '*'}/{self.table or '*'}"

    def narrow(self, records: Iterable[Record]) -> list[Record]:
        """Return the records with only the rows that this replay sends; a record without such rows belongs to no account.

        Originals that could not become rows were never delivered, and are left out.
        """
        return [
            self._with(
                record,
                tuple(block for block in record.blocks if self.table in (None, block[0]))
                if self.account in (None, record.account)
                else (),
            )
            for record in records
        ]

    @staticmethod
    def _with(record: Record, blocks: tuple[tuple[str, int, bytes], ...]) -> Record:
        if blocks:
            return record._replace(claim=0, blocks=blocks, refused=(), rejected=())
        return Record(record.number, record.arrived_at, NOBODY, "", record.received_at, "", 0, blocks=())
