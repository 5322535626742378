"""Writes the outcomes of sends to the ledger, for the worker and for the sender.

`worker.states` alone decides what each event means for a chunk.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from shared.clock import Clock
from shared.telemetry import Telemetry
from worker.ledger import Ledger
from worker.span import ChunkKey, Span, milliseconds
from worker.states import Entry, Event, Happening, Rules, State

MOST_HALVINGS = 64
"""How often one planned chunk is halved to find the rows that Treasure Data refuses."""
MOST_VAIN_HALVINGS = 15
"""The limit while Treasure Data accepts no part of the chunk: then a few bad rows are not the cause."""

ROW_TOO_LARGE = "row_too_large"
"""The reason of a dead chunk that is a single row, too large to import."""
TOO_LARGE = "http_413"
"""Treasure Data's reason for a chunk that is too large. Such a chunk is halved as often as it takes."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of an attempt to send a chunk, or to find out what became of it.

    Attributes:
        surely_not: no attempt of this invocation can have been accepted (meaningless for ACCEPTED).
        words: Treasure Data's own explanation of a refusal.
    """

    event: Event
    reason: str = ""
    surely_not: bool = False
    words: str = ""


class Settlement:
    """Settles chunks of one span for one invocation, which has just appended the span or written that it is about to send.

    Args:
        span: as this invocation wrote it.
        opened: chunks whose doubt this invocation opened.

    Attributes:
        span: as it is in the ledger now.
        changed: the entries that the last write changed.
    """

    def __init__(
        self,
        span: Span,
        opened: Iterable[ChunkKey],
        *,
        ledger: Ledger,
        rules: Rules,
        clock: Clock,
        telemetry: Telemetry,
    ) -> None:
        self.span = span
        self.changed: Mapping[ChunkKey, Entry] = {}
        self._opened = frozenset(opened)
        self._is_own = True  # nobody has written the span since this invocation did
        self._ledger = ledger
        self._rules = rules
        self._clock = clock
        self._telemetry = telemetry

    def settle(self, outcomes: Mapping[ChunkKey, Outcome]) -> None:
        """Write the outcomes; if another invocation has written meanwhile, apply them to what it wrote, and try again.

        Raises:
            LedgerUnavailableError: the ledger cannot be reached. The sender finds the span.
        """
        while True:
            before = self.span
            changes = self._changes(outcomes)
            if not changes and before.settled:
                return
            won, self.span = self._ledger.update(before.with_entries(changes, settled=True))
            if won:
                self.changed = changes
                for key, entry in changes.items():
                    if entry.state is State.DEAD and before.entry(key).state is not State.DEAD:
                        report_dead(self._telemetry, before, key, entry)
                return
            self._is_own = False

    def _changes(self, outcomes: Mapping[ChunkKey, Outcome]) -> dict[ChunkKey, Entry]:
        """Return the entries that the outcomes change."""
        now = milliseconds(self._clock.now())
        changes: dict[ChunkKey, Entry] = {}
        # chunks to halve come last: whether halving is in vain depends on what else was accepted
        for key, outcome in sorted(outcomes.items(), key=lambda one: one[1].event is Event.PARTLY_REFUSED):
            if key.path and key not in self.span.entries:
                continue  # since joined with its other half
            current = self.span.entry(key)
            happening = Happening(
                outcome.event,
                now,
                outcome.reason,
                certain=outcome.surely_not and self._is_own and key in self._opened,
                words=outcome.words,
            )
            if outcome.event is Event.PARTLY_REFUSED:
                happening = self._divided(happening, key, self.span.with_entries(changes))
            entry = self._rules.follow(current, happening)
            if entry != current:
                changes[key] = entry
                if entry.state is State.SPLIT:
                    changes |= dict.fromkeys(key.halves, self._rules.half(entry))
        return changes

    def _divided(self, happening: Happening, key: ChunkKey, span: Span) -> Happening:
        """Return a partial refusal with the answer to whether the chunk can be halved."""
        is_row = span.rows(key) < 2
        if happening.reason == TOO_LARGE and is_row:
            return replace(happening, reason=ROW_TOO_LARGE)
        if is_row or not span.can_split(key):
            return happening
        if happening.reason != TOO_LARGE:
            leaves = list(span.leaves(key.planned))
            is_vain = all(span.entry(leaf).state is not State.DELIVERED for leaf in leaves)
            if len(leaves) > (MOST_VAIN_HALVINGS if is_vain else MOST_HALVINGS):
                return happening
        return replace(happening, divisible=True)


def report_dead(telemetry: Telemetry, span: Span, key: ChunkKey, entry: Entry) -> None:
    """Log and count that a chunk of the span that the log is about is dead."""
    rows = span.rows(key)
    telemetry.count("RowsDead", rows)
    telemetry.warning(
        "rows are dead",
        reason=entry.reason,
        account=key.account,
        table=key.group.label,
        rows=rows,
        chunk=key.name,
    )
