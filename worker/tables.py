"""How many tables an account may have, so that no sender fills a database with them.

Tables that Sluice creates are noted in the ledger, per account, before they are created. If a span has more new tables than an account
may have, or the account has no room left, the notes are read before it is planned: rows of tables that would be too many become one
chunk, whatever their number.
"""

from collections import defaultdict
from collections.abc import Iterable

from worker.ledger import Ledger


class Tables:
    """What this function instance knows of accounts' tables.

    Attributes:
        known: by account, tables that are there.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.known: defaultdict[str, set[str]] = defaultdict(set)
        self._full: set[str] = set()

    def may_create(self, account: str, table: str, limit: int) -> bool:
        """Note that a table is about to be created; return whether it may be.

        Raises:
            LedgerUnavailableError: the ledger cannot be reached.
        """
        if table in self.known[account] or self._ledger.note_table(account, table, limit):
            self.known[account].add(table)
            return True
        self._full.add(account)
        return False

    def excess(self, account: str, tables: Iterable[str], limit: int) -> frozenset[str]:
        """Return which of the tables of an account's rows would be too many.

        Raises:
            LedgerUnavailableError: the ledger cannot be reached.
        """
        known = self.known[account]
        new = [table for table in tables if table not in known]
        if not new or (len(new) <= limit and account not in self._full):
            return frozenset()
        noted = self._ledger.tables(account)
        known |= noted
        self._full.discard(account)
        room = max(0, limit - len(noted))
        return frozenset([table for table in new if table not in noted][room:])
