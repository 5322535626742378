"""Limits how many tables an account may have, so that no sender can fill a database with them.

Before Sluice creates a table, it notes it in the ledger under its account. If a span has more new tables than the account may have, or
the account has no room left, the worker reads these notes before it plans the span. Rows of all tables beyond the limit then become one
chunk.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial

from worker.ledger import Ledger


@dataclass(eq=False)
class Tables:
    """The accounts' tables, as far as this function instance knows them: those that exist are `known`, by account."""

    _ledger: Ledger
    known: defaultdict[str, set[str]] = field(default_factory=partial(defaultdict, set), init=False)
    _full: set[str] = field(default_factory=set, init=False)

    def may_create(self, account: str, table: str, limit: int) -> bool:
        """Note that a table is about to be created; return whether the limit allows it."""
        if table in self.known[account] or self._ledger.note_table(account, table, limit):
            self.known[account].add(table)
            return True
        self._full.add(account)
        return False

    def excess(self, account: str, tables: Iterable[str], limit: int) -> frozenset[str]:
        """Return those of an account's tables that would exceed its limit."""
        known = self.known[account]
        new = [table for table in tables if table not in known]
        if not new or (len(new) <= limit and account not in self._full):
            return frozenset()
        noted = self._ledger.tables(account)
        known |= noted
        self._full.discard(account)
        room = max(0, limit - len(noted))
        return frozenset([table for table in new if table not in noted][room:])
