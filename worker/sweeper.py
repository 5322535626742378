"""The sweeper: deletes objects of set-aside chunks that are no longer needed.

Normally the invocation that settles a chunk deletes its object. The sweeper lists the bucket to find objects that were left behind, and
checks in the ledger whether each may be deleted. It also settles open spans with expired records, which no batch will contain again.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass

from shared.errors import BucketUnavailableError, HeldError, InvalidObjectError
from worker.deadline import Deadline
from worker.execution import Delivery
from worker.set_aside import Listed
from worker.span import Span

YOUNGEST_SECONDS = 3600.0
"""The sweeper skips objects younger than this: their writer may be about to update the ledger."""


@dataclass(slots=True)
class Sweep:
    """The objects that a sweep found, by what it did with them.

    Attributes:
        deleted: objects that it has deleted.
        needed: objects that are still needed, or could not be deleted.
        unknown: objects that belong to no span in the ledger.
        complete: it has looked at every object.
    """

    deleted: int = 0
    needed: int = 0
    unknown: int = 0
    complete: bool = True


class Sweeper:
    """Sweeps the bucket."""

    def __init__(self, delivery: Delivery, end_expired: Callable[[Span, Deadline], None]) -> None:
        self._end_expired = end_expired
        self._retention_seconds = delivery.rules.retention_seconds
        self._store = delivery.store
        self._ledger = delivery.ledger
        self._clock = delivery.clock
        self._telemetry = delivery.telemetry

    def run(self, deadline: Deadline) -> Sweep:
        """Sweep, as far as the time allows.

        Raises:
            BucketUnavailableError: S3 cannot be reached.
            LedgerUnavailableError: the ledger cannot be reached.
        """
        sweep = Sweep()
        for spans in self._ledger.open_spans(self._clock.now() - self._retention_seconds):
            for span in spans:
                if not deadline.near:
                    self._end(span, deadline)
        for listed in self._store.listed():
            if deadline.near:
                sweep.complete = False
                break
            if self._clock.now() - listed.written_at >= YOUNGEST_SECONDS:
                self._sweep(listed, sweep)
        self._telemetry.info("sweep", **asdict(sweep))
        return sweep

    def _end(self, span: Span, deadline: Deadline) -> None:
        try:
            self._end_expired(span, deadline)
        except (HeldError, BucketUnavailableError) as reason:
            self._telemetry.warning(
                "an open span with expired records cannot be settled yet",
                shard=span.chain.shard,
                reason=str(reason),
            )

    def _sweep(self, listed: Listed, sweep: Sweep) -> None:
        try:
            chunk = self._store.read(listed.name)
        except InvalidObjectError:
            span = None
        else:
            span = self._ledger.get(chunk.place)
        if span is None or not self._store.is_name_of(listed.name, span, chunk):
            sweep.unknown += 1
            self._telemetry.warning("the bucket holds an object of an unknown span", object=listed.name)
        elif self._store.may_delete(span, chunk.key) and self._store.delete(listed.name):
            sweep.deleted += 1
        else:
            sweep.needed += 1
