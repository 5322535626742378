"""Claims: of all copies of an envelope on the stream, the rows of one count.

An envelope whose sender may repeat it, or that the drainer has put, says so (`claim`). Its rows count only for the record
that owns the claim of its request id. Claims are asked for once, before the plan, which stores what was decided; whatever
executes the plan later asks nobody.
"""

from collections.abc import Sequence
from functools import partial
from itertools import batched

from shared.clock import Clock
from worker.chain import OVERFLOW, ChainId
from worker.executor import Executors, run_parallel
from worker.ledger import MOST_CLAIMS, Claim, Ledger
from worker.record import Number, Record
from worker.span import Span

_REPEATED_SECONDS = 30 * 86_400  # for which a sender may repeat a request
_QUEUED_SECONDS = 14 * 86_400  # for which an envelope may wait in the overflow queue


class Claims:
    """Claims envelopes for records.

    Args:
        ledger: where claims are.
        executors: run calls in parallel.
        clock: tells how old a claim is.
        retention_seconds: how long the stream keeps a record.
    """

    def __init__(self, ledger: Ledger, executors: Executors, clock: Clock, retention_seconds: float) -> None:
        self._ledger = ledger
        self._executors = executors
        self._clock = clock
        self._retention_seconds = retention_seconds
        self.seconds_kept = _REPEATED_SECONDS + retention_seconds + _QUEUED_SECONDS
        """Longer than a copy can still be planned."""

    def decide(self, records: Sequence[Record], chain: ChainId) -> tuple[Sequence[Record], frozenset[Number]]:
        """Decide which records count.

        Args:
            records: without gaps, in the shard's order.
            chain: the shard's.

        Returns:
            The records up to the first that cannot be decided now, and the numbers of those that do not count.

        Raises:
            LedgerUnavailableError: the ledger cannot be reached.
        """
        first: dict[str, Record] = {}
        for record in records:
            if record.claim:
                first.setdefault(record.request_id, record)
        claims = self._claim({one: owner_name(chain, record.number) for one, record in first.items()})
        ignored: set[Number] = set()
        for place, record in enumerate(records):
            if not record.claim:
                continue
            claim = claims.get(record.request_id)
            if claim is None:
                return records[:place], frozenset(ignored)
            me = owner_name(chain, record.number)
            if claim.owner != me and not (
                first[record.request_id] is record and self._takes_over(record, me, claim, chain)
            ):
                ignored.add(record.number)
        return records, frozenset(ignored)

    def _claim(self, wanted: dict[str, str]) -> dict[str, Claim]:
        parts = [dict(part) for part in batched(wanted.items(), MOST_CLAIMS, strict=False)]
        jobs = [partial(self._ledger.claim, part, self.seconds_kept) for part in parts]
        claims: dict[str, Claim] = {}
        for answer in run_parallel(self._executors, jobs):
            claims |= answer
        return claims

    def _takes_over(self, record: Record, me: str, claim: Claim, chain: ChainId) -> bool:
        """Take over a claim whose owner was never planned and never will be: its stream or the retention has gone."""
        if claim.owner.startswith(f"{OVERFLOW}#"):
            return False
        name, _, number = claim.owner.rpartition("#")
        held_by = ChainId.parse(name)
        is_gone = (
            held_by.created_at != chain.created_at
            or self._clock.now() - claim.claimed_at > self._retention_seconds
        )
        if not is_gone or isinstance(self._ledger.locate(held_by, number), Span):
            return False
        return self._ledger.take_over(record.request_id, me, claim.owner)


def owner_name(chain: ChainId, number: Number) -> str:
    """Return what names a record as the owner of a claim."""
    return f"{chain.root.name}#{number}"
