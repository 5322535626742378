"""Checks that every accepted event is accounted for.

The two sides have independent sources: accepted events come from the gateway's responses, outcomes from the rows in
Treasure Data and the span objects.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from local.sender import Exchange
from shared.accounts import Account

NOWHERE = "(no account)"
DEAD = "dead"


class TablePlace(NamedTuple):
    """A table in the database that an account's rows are loaded into."""

    database: str
    table: str


@dataclass(frozen=True, slots=True)
class TableOutcome:
    """The outcome of some rows.

    Attributes:
        place: the table that they are in, or were meant for.
        event_ids: the event id of each row.
        kind: the ledger's name for their state; empty if they are in Treasure Data.
        reason: why they wait or are dead.
    """

    place: TablePlace
    event_ids: tuple[str, ...]
    kind: str = ""
    reason: str = ""


@dataclass(slots=True)
class Reconciliation:
    """The counts of one run.

    Attributes:
        requests: number of requests exchanged.
        without_events: of these, requests that carry no events, such as preflights.
        refused: of these, requests that were refused as a whole, by code.
        errors: responses that are missing or inconsistent.
        rejected: rejected events by code.
        accepted: accepted events by place.
        delivered: rows in Treasure Data by place.
        undelivered: rows that wait or are dead, by place.
        dead: of these, dead ones by reason.
        unsettled: what is not settled yet, by kind: records, messages, and rows that wait.
    """

    requests: int = 0
    without_events: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)
    rejected: Counter[str] = field(default_factory=Counter)
    accepted: Counter[TablePlace] = field(default_factory=Counter)
    delivered: Counter[TablePlace] = field(default_factory=Counter)
    undelivered: Counter[TablePlace] = field(default_factory=Counter)
    dead: Counter[str] = field(default_factory=Counter)
    unsettled: Counter[str] = field(default_factory=Counter)
    _accepted_ids: Counter[tuple[TablePlace, str]] = field(default_factory=Counter)
    _outcome_ids: Counter[tuple[TablePlace, str]] = field(default_factory=Counter)

    def count_exchange(self, exchange: Exchange, accounts: Mapping[str, Account]) -> None:
        """Add a request and its response."""
        self.requests += 1
        if exchange.error:
            self.errors.append(f"{exchange.request.step}: {exchange.error}")
        elif exchange.refused:
            self.refused[exchange.refused] += 1
        elif not exchange.events:
            self.without_events += 1
        for one in exchange.events:
            if one.code:
                self.rejected[one.code] += 1
                continue
            place = place_of(exchange.account, one.table, accounts)
            self.accepted[place] += 1
            if event_id := one.event.get("event_id"):
                self._accepted_ids[place, str(event_id)] += 1

    def count_outcomes(
        self,
        delivered: Iterable[TableOutcome],
        undelivered: Iterable[TableOutcome],
        unsettled: Mapping[str, int],
    ) -> None:
        """Replace the outcomes that were counted before."""
        self.delivered, self.undelivered, self.dead = Counter(), Counter(), Counter()
        self._outcome_ids = Counter()
        coming = Counter(unsettled)
        for rows, counts in ((delivered, self.delivered), (undelivered, self.undelivered)):
            for outcome in rows:
                counts[outcome.place] += len(outcome.event_ids)
                self._outcome_ids.update((outcome.place, event_id) for event_id in outcome.event_ids)
                if outcome.kind == DEAD:
                    self.dead[outcome.reason] += len(outcome.event_ids)
                elif outcome.kind:
                    coming[f"rows {outcome.kind}"] += len(outcome.event_ids)
        self.unsettled = +coming

    @property
    def places(self) -> list[TablePlace]:
        """All places, sorted."""
        return sorted({*self.accepted, *self.delivered, *self.undelivered})

    @property
    def differences(self) -> dict[TablePlace, int]:
        """Missing events by place; a negative number means too many rows."""
        balance = {
            place: self.accepted[place] - self.delivered[place] - self.undelivered[place]
            for place in self.places
        }
        return {place: count for place, count in balance.items() if count}

    @property
    def outstanding(self) -> int:
        """Accepted events without an outcome so far."""
        return self.accepted.total() - self.delivered.total() - self.undelivered.total()

    @property
    def repeated_ids(self) -> dict[tuple[TablePlace, str], int]:
        """Events with more than one row, accepted or not, by place and id."""
        return {key: count for key, count in self._outcome_ids.items() if key[1] and count > 1}

    @property
    def settled(self) -> bool:
        """Whether nothing waits or is in flight."""
        return not self.unsettled

    @property
    def adds_up(self) -> bool:
        """Whether every accepted event is exactly one row, delivered or dead, and nothing waits or is in flight."""
        return not self.errors and not self.differences and self.settled and not self.mismatched_ids

    @property
    def mismatched_ids(self) -> dict[tuple[TablePlace, str], int]:
        """Events that are missing (positive) or duplicated (negative), by place and id; events without an id are left out."""
        mismatched = {}
        for key, count in self._accepted_ids.items():
            if self._outcome_ids[key] != count:
                mismatched[key] = count - self._outcome_ids[key]
        return mismatched


def place_of(account: str, table: str, accounts: Mapping[str, Account]) -> TablePlace:
    """Return the place of an account's rows of a table."""
    known = accounts.get(account)
    return TablePlace(known.database if known else NOWHERE, table)
