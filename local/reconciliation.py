"""Whether everything that was accepted is accounted for.

The two sides come from different places: what was accepted from the gateway's answers, what became of it from
Treasure Data's rows and from the objects that are set aside.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from local.sender import Exchange
from shared.accounts import Account

NOWHERE = "(no account)"
DEAD_LETTER = "dead_letter"


class Place(NamedTuple):
    """Where an account's rows of one table go."""

    database: str
    table: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """Rows that were found somewhere.

    Attributes:
        place: their database, or their account's, and their table.
        event_ids: of each row.
        kind: as what they are set aside, in the ledger's word; empty in Treasure Data.
        reason: why they are set aside.
    """

    place: Place
    event_ids: tuple[str, ...]
    kind: str = ""
    reason: str = ""


@dataclass(slots=True)
class Reconciliation:
    """The count of one run.

    Attributes:
        requests: that were sent.
        without_events: of these, how many carry none, such as preflights.
        refused: of these, how many were refused as a whole, by code.
        faults: answers that are missing or contradict themselves.
        rejected: events that were rejected, by code.
        accepted: events that were accepted, by place.
        delivered: rows in Treasure Data, by place.
        set_aside: rows that are set aside, by place.
        dead_letters: of these, the rows for good, by reason.
        in_flight: what will change yet, by what it is: records, messages, spans, and rows that are aside for a while.
    """

    requests: int = 0
    without_events: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    rejected: Counter[str] = field(default_factory=Counter)
    accepted: Counter[Place] = field(default_factory=Counter)
    delivered: Counter[Place] = field(default_factory=Counter)
    set_aside: Counter[Place] = field(default_factory=Counter)
    dead_letters: Counter[str] = field(default_factory=Counter)
    in_flight: dict[str, int] = field(default_factory=dict)
    _accepted_ids: Counter[tuple[Place, str]] = field(default_factory=Counter)
    _outcome_ids: Counter[tuple[Place, str]] = field(default_factory=Counter)

    def count_exchange(self, sent: Exchange, accounts: Mapping[str, Account]) -> None:
        """Add a request and its answer."""
        self.requests += 1
        verdict = sent.acknowledgement
        if sent.fault:
            self.faults.append(f"{sent.request.step}: {sent.fault}")
        elif verdict.refused:
            self.refused[verdict.refused] += 1
        elif not verdict.accepted and not verdict.rejected:
            self.without_events += 1
        self.rejected.update(verdict.rejected)
        for event in verdict.accepted:
            place = place_of(event.account, event.table, accounts)
            self.accepted[place] += 1
            if event.event_id:
                self._accepted_ids[place, event.event_id] += 1

    def count_outcomes(
        self, delivered: Iterable[Outcome], set_aside: Iterable[Outcome], in_flight: Mapping[str, int]
    ) -> None:
        """Set what was found, in place of what was found before."""
        self.delivered, self.set_aside, self.dead_letters = Counter(), Counter(), Counter()
        self._outcome_ids = Counter()
        flight = Counter(in_flight)
        for rows, counts in ((delivered, self.delivered), (set_aside, self.set_aside)):
            for found in rows:
                counts[found.place] += len(found.event_ids)
                self._outcome_ids.update((found.place, event_id) for event_id in found.event_ids)
                if found.kind == DEAD_LETTER:
                    self.dead_letters[found.reason] += len(found.event_ids)
                elif found.kind:
                    flight[f"rows {found.kind}"] += len(found.event_ids)
        self.in_flight = dict(flight)

    @property
    def places(self) -> list[Place]:
        """All places, in order."""
        return sorted({*self.accepted, *self.delivered, *self.set_aside})

    @property
    def differences(self) -> dict[Place, int]:
        """Events that are missing, by place; more than there should be are below zero."""
        balance = {
            place: self.accepted[place] - self.delivered[place] - self.set_aside[place]
            for place in self.places
        }
        return {place: count for place, count in balance.items() if count}

    @property
    def outstanding(self) -> int:
        """How many accepted events are not found yet."""
        return self.accepted.total() - self.delivered.total() - self.set_aside.total()

    @property
    def settled(self) -> bool:
        """Whether nothing is on its way any more."""
        return not any(self.in_flight.values())

    @property
    def adds_up(self) -> bool:
        """Whether each accepted event is one row or one row that is set aside, and nothing is on its way."""
        return not self.faults and not self.differences and self.settled and not self.mismatched_ids

    @property
    def mismatched_ids(self) -> dict[tuple[Place, str], int]:
        """Events by place and id that are missing (above zero) or there too often (below); of those that brought an id."""
        odd = {}
        for key, count in self._accepted_ids.items():
            if self._outcome_ids[key] != count:
                odd[key] = count - self._outcome_ids[key]
        return odd


def place_of(account: str, table: str, accounts: Mapping[str, Account]) -> Place:
    """Return where an account's rows of a table belong."""
    known = accounts.get(account)
    return Place(known.database if known else NOWHERE, table)
