"""Where an event is, and what became of it."""

from dataclasses import dataclass
from enum import StrEnum

from ops.events.seen_event import SeenEvent
from worker.span import ChunkKey, Span
from worker.states import Entry


class Stage(StrEnum):
    """What became of an event."""

    QUEUED = "queued"
    ON_STREAM = "on_stream"
    WAITING = "waiting"
    AGAIN = "again"
    DELIVERED = "delivered"
    DEAD = "dead"
    DROPPED = "dropped"
    REPLACED = "replaced"
    COPY = "copy"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class FoundEvent:
    """Where an event is, and what became of it.

    Attributes:
        entry: of its chunk; None if it is in no chunk.
        database: its Treasure Data database; empty if it was never sent.
        unique_id: the id under which its chunk is sent.
        at: when the stage began, UNIX seconds; 0 if unknown.
        owner: for a copy, the record that counts instead.
        is_forced: a forced replay sends it once more.
    """

    seen: SeenEvent
    stage: Stage
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
