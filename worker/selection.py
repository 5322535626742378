"""Selects the chunks that a run of the sender handles, by state, account, table, reason, time or name."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

from worker.ledger import WORKLIST_KEYS, Ledger
from worker.span import ChunkKey, Place, Span
from worker.states import UNSETTLED, Decision, Entry, State

SCHEDULED = tuple(sorted(UNSETTLED))
"""The states that scheduled runs handle."""
REJECTED_SECONDS = 90 * 86_400.0
"""How far back to look for rejected events; most of their objects have expired long before."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Selects the chunks that match every attribute that is not None.

    Attributes:
        since: only chunks that came into their state then or later (UNIX seconds).
        decision: what an operator has decided about them; it selects nothing.
        chunks: only these chunks and their halves, by span; None for all.
    """

    states: tuple[State, ...] = SCHEDULED
    account: str | None = None
    table: str | None = None
    reason: str | None = None
    since: float | None = None
    decision: Decision | None = None
    chunks: Mapping[Place, frozenset[ChunkKey]] | None = None

    @classmethod
    def from_event(cls, event: Mapping[str, Any]) -> "Selection":
        """Return the selection in an event: `kinds`, `account`, `table`, `reason`, `since`, `decision` and `chunks`, each optional.

        `chunks` is `[[chain, after, chunk], …]`. An invalid member raises ValueError. An event of the schedule selects nothing in particular;
        its `account` is the AWS account.
        """
        if event.get("source") == "aws.events":
            return cls()
        decision, named = event.get("decision"), event.get("chunks")
        return cls(
            tuple(State(kind) for kind in event.get("kinds", ())) or SCHEDULED,
            event.get("account"),
            event.get("table"),
            event.get("reason"),
            event.get("since"),
            None if decision is None else Decision(decision),
            None if named is None else chunks_of(named),
        )

    def places(self, ledger: Ledger, now: float) -> Iterator[Place]:
        """Yield the spans to look in; `now` is UNIX seconds. The ledger's index, which lists them, may lag.

        Runs that begin in different minutes begin with different keys of the index, so that several work side by side, and at different ages: some
        reach the spans of other databases, although more than a run can read wait for one that has failed for days.
        """
        if self.chunks is not None:
            yield from self.chunks
            return
        first, since = int(now // 60), now - 60.0 * 200_000 ** Random(now).random()  # noqa: S311 -- the order is no secret
        kinds = ["waiting"]
        if State.DEAD in self.states or State.REJECTED in self.states:
            kinds.append("dead")
        for kind in kinds:
            for number in range(WORKLIST_KEYS):
                yield from ledger.worklist(kind, (first + number) % WORKLIST_KEYS, since)
        if State.REJECTED in self.states:
            yield from ledger.rejected(max(self.since or 0.0, now - REJECTED_SECONDS), now)

    def of(self, span: Span, ready: Collection[ChunkKey] = ()) -> Iterator[tuple[ChunkKey, Entry]]:
        """Yield the selected chunks of a span, and what was selected, and is `ready` because it waits without a doubt now; each with its entry.

        What was ready and is dead has died since, and would die again.
        """
        for key, entry in span.all_leaves():
            is_tried = key in ready and entry.state is State.DEAD
            is_ready = key in ready and entry.state is State.WAITING and entry.since is None
            if is_ready or (self._has(span, key, entry) and not is_tried):
                yield key, entry

    def _has(self, span: Span, key: ChunkKey, entry: Entry) -> bool:
        group = key.group
        return (
            entry.state in self.states
            and self.account in (None, key.account)
            and self.table in (None, group.table if group.is_rejected else group.label)
            and self.reason in (None, reason_of(key, entry))
            and (self.since is None or (entry.at or span.planned_at) >= self.since * 1000)
            and (
                self.chunks is None or not self.chunks.get(span.place, frozenset()).isdisjoint(key.lineage())
            )
        )


def reason_of(key: ChunkKey, entry: Entry) -> str:
    """Return why a chunk waits, is dead or was rejected, in one word; `sending` while nothing is known."""
    if key.group.is_rejected:
        return key.group.code
    if entry.state is State.AGAIN:
        return "put_again"
    return entry.reason or ("sending" if entry.state is State.WAITING else "")


def chunks_of(named: Any) -> dict[Place, frozenset[ChunkKey]]:
    """Return chunks by span, given `[[chain, after, chunk], …]`; raise ValueError if one of them is invalid."""
    found: dict[Place, set[ChunkKey]] = {}
    for chain, after, chunk in named:
        found.setdefault(Place.parse(chain, after), set()).add(ChunkKey.parse(chunk))
    return {place: frozenset(keys) for place, keys in found.items()}
