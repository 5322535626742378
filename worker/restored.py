"""Recognizes a ledger that was restored from a backup, or lost.

It lacks what happened since: the worker would plan records anew that are delivered, and the sender would send rows again. DynamoDB restores
into a new table, always, and the ledger's items say which table they were written in. While the two differ, or while an empty ledger has a
bucket with spans, nothing is planned or sent; `sluice doctor --repair-ledger` compares the ledger with the bucket.
"""

from dataclasses import dataclass, field

from shared.clock import Clock
from shared.errors import HeldError, LedgerUnavailableError
from shared.telemetry import Telemetry
from worker.ledger import WRITTEN_IN, Ledger
from worker.span_object import SpanObjects

CHECK_SECONDS = 60.0
"""How long a function instance relies on what it saw."""

_SOON_SECONDS = 5.0  # after a look that failed
_MOST_SECONDS = 180.0  # no table is deleted and restored within this time


def written_in(ledger: Ledger, objects: SpanObjects) -> str:
    """Return when the table was created that the ledger's items were written in; empty if they do not say, and there are no spans."""
    created: str = ledger.noted(WRITTEN_IN) or ""
    if not created and any(one.chain.is_of_stream for one in objects.listed()):
        created = ledger.noted(WRITTEN_IN) or "unknown"  # the first instance may just have said so
    return created


@dataclass(eq=False)
class RestoreGuard:
    """Keeps one function instance from working with a restored ledger."""

    _ledger: Ledger
    _objects: SpanObjects
    _clock: Clock
    _telemetry: Telemetry
    _created: str = field(default="", init=False)
    _checked_at: float = field(default=float("-inf"), init=False)
    _seen_at: float = field(default=float("-inf"), init=False)

    def check(self) -> bool:
        """Return whether the ledger's table is another one than this instance last saw, so that what it remembers of it is void.

        If the ledger was restored, this raises HeldError. DynamoDB may fail to describe a table while it serves items: an instance that has lately
        seen the right table goes on then, and soon looks again; for any other, this raises UnavailableError, as it does if S3 does not answer.
        No instance goes on without a table: soon after, a restored one may be there.
        """
        now, was = self._clock.now(), self._created
        if 0 <= now - self._checked_at < CHECK_SECONDS:
            return False
        created = was
        try:
            created = self._ledger.created()
            known = written_in(self._ledger, self._objects)
            if not known:
                self._ledger.note(WRITTEN_IN, created)
            elif known != created:
                self._telemetry.count("LedgerRestored")
                raise HeldError(HeldError.RESTORED_LEDGER)
        except LedgerUnavailableError:
            if created != was or not 0 <= now - self._seen_at < _MOST_SECONDS:
                raise
            self._checked_at = now - CHECK_SECONDS + _SOON_SECONDS
            return False
        self._created, self._checked_at, self._seen_at = created, now, now
        return created != was
