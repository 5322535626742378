"""Writes the outcomes of sends to the ledger, for the worker and for the sender.

`worker.states` alone decides what each event means for a chunk.
"""

from collections.abc import Collection, Mapping
from copy import replace
from dataclasses import dataclass

from shared.clock import Clock
from shared.telemetry import Telemetry
from worker.ledger import Ledger
from worker.span import ChunkKey, Span, milliseconds
from worker.states import Entry, Event, Happening, Rules, State
from worker.treasure_data.client import Outcome

MOST_HALVINGS = 64
"""How often one planned chunk is halved to find the rows that Treasure Data refuses."""
MOST_VAIN_HALVINGS = 15
"""The limit while Treasure Data accepts no part of the chunk: then a few bad rows are not the cause."""

ROW_TOO_LARGE = "row_too_large"
"""The reason of a dead chunk that is a single row, too large to import."""
TOO_LARGE = "http_413"
"""Treasure Data's reason for a chunk that is too large. Such a chunk is halved as often as it takes."""


@dataclass(eq=False)
class Settlement:
    """Settles chunks for an invocation that has just appended their span, or written that it is about to send them."""

    _ledger: Ledger
    _rules: Rules
    _clock: Clock
    _telemetry: Telemetry

    def settle(self, span: Span, opened: Collection[ChunkKey], outcomes: Mapping[ChunkKey, Outcome]) -> Span:
        """Write the outcomes of sends to a span, as this invocation wrote it; return what is written then.

        If another invocation has written meanwhile, they are applied to what it wrote. `opened` are the chunks whose doubt this invocation opened.
        """
        while True:
            changes = self._changes(span, opened, outcomes)
            if not changes and span.settled:
                return span
            won, current = self._ledger.update(span.with_entries(changes, settled=True))
            if won:
                self.report(span, changes)
                return current
            span, opened = current, ()  # from now on, no attempt of this invocation proves anything

    def report(self, before: Span, changes: Mapping[ChunkKey, Entry]) -> None:
        """Log and count the chunks that changes of a span have made dead."""
        for key, entry in changes.items():
            if entry.state is State.DEAD and before.entry(key).state is not State.DEAD:
                report_dead(self._telemetry, before, key, entry)

    def _changes(
        self, span: Span, opened: Collection[ChunkKey], outcomes: Mapping[ChunkKey, Outcome]
    ) -> dict[ChunkKey, Entry]:
        now = milliseconds(self._clock.now())
        changes: dict[ChunkKey, Entry] = {}
        # chunks to halve come last: whether halving is in vain depends on what else was accepted
        for key, outcome in sorted(outcomes.items(), key=lambda one: one[1].event is Event.PARTLY_REFUSED):
            if key.planned not in span.chunks:
                continue  # cut again since
            current, certain = span.entry(key), outcome.surely_not and key in opened
            happening = Happening(outcome.event, now, outcome.reason, certain=certain, words=outcome.words)
            if outcome.event is Event.PARTLY_REFUSED:
                happening = _divided(happening, key, span.with_entries(changes))
            entry = self._rules.follow(current, happening)
            if entry != current:
                changes[key] = entry
                if entry.state is State.SPLIT:
                    changes |= dict.fromkeys(key.halves, self._rules.half(entry))
        return changes


def _divided(happening: Happening, key: ChunkKey, span: Span) -> Happening:
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
