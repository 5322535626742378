"""Chunks that wait or are dead, and rejected events, according to the ledger: its worklist says which spans have some."""

import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import batched

from ops.background import in_order
from worker.ledger import Ledger
from worker.selection import Selection, reason_of
from worker.span import ChunkKey, Span
from worker.states import Entry, State

KINDS = {"waiting": State.WAITING, "again": State.AGAIN, "dead": State.DEAD, "rejected": State.REJECTED}
"""States by their name on the command line."""
NAMES = {state: name for name, state in KINDS.items()}

_ID_DIGITS = 10
_BATCH = 100  # DynamoDB returns as many items at once


@dataclass(frozen=True, slots=True)
class ListedChunk:
    """A chunk: its span, its key and its entry in the ledger."""

    span: Span
    key: ChunkKey
    entry: Entry

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return self.span.rows(self.key)

    @property
    def since(self) -> float:
        """When it came into its state, UNIX seconds."""
        return (self.entry.at or self.span.planned_at) / 1000

    @property
    def reason(self) -> str:
        """Why it waits, is dead or was rejected, in one word."""
        return reason_of(self.key, self.entry)

    @property
    def id(self) -> str:
        """Its id on the command line and on the console's page."""
        return hashlib.sha256("|".join(self.name).encode()).hexdigest()[:_ID_DIGITS]

    @property
    def name(self) -> list[str]:
        """What names it to the sender: its chain, the number that its span follows, and its key."""
        return [self.span.chain.name, self.span.after, self.key.name]


@dataclass(slots=True)
class RowGroup:
    """What is shown together of waiting or dead rows: how many, and Treasure Data's own explanation."""

    rows: int = 0
    words: str = ""
    _ids: int = 0

    def add(self, chunk: ListedChunk) -> None:
        """Count a chunk."""
        self.rows += chunk.rows
        self.words = self.words or chunk.entry.words
        self._ids ^= int(chunk.id, 16)

    @property
    def which(self) -> str:
        """A text that is the same only for the same chunks."""
        return f"{self._ids:0{_ID_DIGITS}x}"


def chunks(ledger: Ledger, selection: Selection) -> Iterator[ListedChunk]:
    """Yield the selected chunks, each with its entry when the ledger was read. Very recent ones may not be on the worklist yet."""
    places = batched(dict.fromkeys(selection.places(ledger, time.time())), _BATCH, strict=False)
    for found in in_order(ledger.get_all, places):
        for span in found.values():
            yield from (ListedChunk(span, *one) for one in selection.of(span))
