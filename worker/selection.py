"""Selects the chunks that a run of the redrive handles, by state, account, table, reason, time or place."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from worker.delivery import Decision, Entry, State
from worker.ledger import Ledger, Place
from worker.span import ChunkKey

SCHEDULED = (State.PARKED, State.IN_DOUBT)
"""The states that scheduled runs handle."""
REJECTED_SECONDS = 90 * 86_400.0
"""How far back to look for rejected events; most of their objects have expired long before."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Selects the chunks that match every attribute that is not None.

    Attributes:
        since: only chunks set aside then or later (UNIX seconds).
        decision: what an operator has decided about them; it selects nothing.
        place: only chunks of this span.
        chunk: only this chunk and its halves.
    """

    states: tuple[State, ...] = SCHEDULED
    account: str | None = None
    table: str | None = None
    reason: str | None = None
    since: float | None = None
    decision: Decision | None = None
    place: Place | None = None
    chunk: ChunkKey | None = None

    @classmethod
    def from_event(cls, event: Mapping[str, Any]) -> "Selection":
        """Return the selection in an event: `kinds`, `account`, `table`, `reason`, `since` and `decision`, each optional.

        An event of the schedule selects nothing in particular; its `account` is the AWS account.
        """
        if event.get("source") == "aws.events":
            return cls()
        decision = event.get("decision")
        return cls(
            tuple(State(kind) for kind in event.get("kinds", ())) or SCHEDULED,
            event.get("account"),
            event.get("table"),
            event.get("reason"),
            event.get("since"),
            None if decision is None else Decision(decision),
        )

    def places(self, ledger: Ledger, now: float) -> Iterator[Place]:
        """Yield the spans to look in; `now` is UNIX seconds. The ledger's index, which lists them, may lag."""
        if self.place is not None:
            yield self.place
            return
        yield from ledger.worklist(dead=False)
        if State.DEAD_LETTER in self.states or State.REJECTED in self.states:
            yield from ledger.worklist(dead=True)
        if State.REJECTED in self.states:
            yield from ledger.rejected(max(self.since or 0.0, now - REJECTED_SECONDS), now)

    def has(self, key: ChunkKey, entry: Entry) -> bool:
        """Return whether a chunk is selected."""
        return (
            entry.state in self.states
            and self.account in (None, key.account)
            and self.table in (None, key.group.table if key.group.is_rejected else key.group.label)
            and self.reason in (None, entry.reason)
            and (self.since is None or entry.aside_at >= self.since * 1000)
            and self.chunk in (None, *key.lineage())
        )
