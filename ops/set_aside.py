"""What is set aside, as the ledger has it: its worklist says where to look, the spans say what is there."""

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
"""States by their names on the command line."""
NAMES = {state: name for name, state in KINDS.items()}

_AT_ONCE = 10  # as many as a client has connections
_BATCH = 100


@dataclass(frozen=True, slots=True)
class SetAsideChunk:
    """A chunk that is set aside: its span, its key and what the ledger says of it."""

    span: Span
    key: ChunkKey
    entry: Entry


def chunks(ledger: Ledger, selection: Selection) -> Iterator[SetAsideChunk]:
    """Yield the chunks that are set aside and selected, each as the ledger has it when it is read.

    What was set aside within the last moments may not be on the worklist yet.

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
