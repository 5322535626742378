"""Refuses events of persons, for accounts that no longer accept them. The edge policy has keyed hashes of what identifies the persons."""

from collections.abc import Mapping
from typing import Any

from ingest.privacy import Screen
from shared import rows
from shared.person_hash import hasher, text_of


class RefusedPersons:
    """The persons whose events one account refuses.

    Args:
        key: that the hashes are made with.
        account: the account.
        hashes: of values, by column.
    """

    def __init__(self, key: bytes, account: str, hashes: Mapping[str, frozenset[bytes]]) -> None:
        self._columns = {column: (hasher(key, account, column), some) for column, some in hashes.items()}

    def check(self, members: object) -> None:
        """Reject an event as it was sent, or a row, if a member is a person's.

        Raises:
            Rejected: `refused_person`.
        """
        for name, value in members.items() if isinstance(members, dict) else ():
            column = self._columns.get(rows.column_name(name))
            if column is not None and value is not None:
                hash_of, hashes = column
                if hash_of(text_of(value)) in hashes:
                    raise rows.Rejected("refused_person", "the account refuses events of this person")

    def after(self, screen: Screen | None) -> Screen:
        """Return a screen that then checks the row: a truncated address is known only by then."""

        def both(row: dict[str, Any]) -> None:
            if screen is not None:
                screen(row)
            self.check(row)

        return both
