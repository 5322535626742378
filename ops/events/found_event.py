"""Where an event is, and what became of it."""

from dataclasses import dataclass

from ops.events.seen_event import SeenEvent
from worker.span import ChunkKey, Span
from worker.states import Entry

QUEUED = "queued"
"""The state of an event in the overflow queue."""
ON_STREAM = "on_stream"
"""The state of an event on the stream, of which the ledger knows nothing yet."""


@dataclass(frozen=True, slots=True)
class FoundEvent:
    """Where an event is, and what became of it.

    Attributes:
        state: QUEUED, ON_STREAM or, once it is planned, that of its chunk.
        entry: of its chunk; None if it is in no chunk.
        database: its Treasure Data database; empty if it was never sent.
        unique_id: the id under which its chunk is sent.
        at: when the state began, UNIX seconds; 0 if unknown.
        owner: for a copy, the record that counts instead.
        is_forced: a forced replay sends it once more.
    """

    seen: SeenEvent
    state: str
    entry: Entry | None = None
    span: Span | None = None
    key: ChunkKey | None = None
    database: str = ""
    unique_id: str = ""
    at: float = 0.0
    owner: str = ""
    is_forced: bool = False

    @property
    def reason(self) -> str:
        """Why it waits, is dead or was rejected."""
        return self.seen.code or (self.entry.reason if self.entry is not None else "")
