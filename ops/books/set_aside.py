"""Set-aside chunks according to the ledger: its worklist says which spans have some, and the spans say which."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import batched

from worker.delivery import Entry, State
from worker.ledger import Ledger
from worker.selection import Selection
from worker.span import ChunkKey, Span

KINDS = {
    "parked": State.PARKED,
    "doubt": State.IN_DOUBT,
    "dead": State.DEAD_LETTER,
    "rejected": State.REJECTED,
}
"""States by their name on the command line."""
NAMES = {state: name for name, state in KINDS.items()}

_AT_ONCE = 10  # as many as a boto3 client has connections
_BATCH = 100


@dataclass(frozen=True, slots=True)
class SetAsideChunk:
    """A set-aside chunk: its span, its key and its entry in the ledger."""

    span: Span
    key: ChunkKey
    entry: Entry


def chunks(ledger: Ledger, selection: Selection) -> Iterator[SetAsideChunk]:
    """Yield the selected set-aside chunks, each with its entry when the ledger was read.

    Chunks set aside moments ago may not be on the worklist yet.

    Raises:
        LedgerUnavailableError: the ledger cannot be reached.
    """
    places = dict.fromkeys(selection.places(ledger, time.time()))
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        for batch in batched(places, _BATCH, strict=False):
            for span in filter(None, threads.map(ledger.get, batch)):
                for key, entry in span.entries.items():
                    if selection.has(key, entry):
                        yield SetAsideChunk(span, key, entry)
