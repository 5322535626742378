"""Finds out whether every shard has passed a time: all that it received before then is in a span or in a gap.

An open shard has passed a time when its chain's latest arrival is later, with a margin, because arrival times run back a little. A closed
shard receives nothing more, but a worker may still append what it read long ago; so the sender closes the chain first, with an empty
span behind all sequence numbers. Parents that a listed child names count as closed, listed or not.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from shared.clock import Clock
from shared.errors import UnprovenError
from worker.chain import ChainId
from worker.ledger import BEHIND_ALL, Ledger
from worker.markers import Markers
from worker.record import Number
from worker.shards import Shard, Shards

MARGIN_SECONDS = 300
"""By how much arrival times may run back from one record to the next, of a shard or between a shard and its children."""


@dataclass(frozen=True, slots=True)
class Lineage:
    """A shard that records may have landed on.

    Attributes:
        shard: as Kinesis lists it; None if it only is the parent of a listed one.
    """

    chain: ChainId
    shard: Shard | None

    @property
    def is_open(self) -> bool:
        """Whether it still receives records."""
        return self.shard is not None and self.shard.is_open


@dataclass(eq=False)
class Passing:
    """Looks at the ends of the shards' chains.

    Args:
        markers: puts markers; None for a command, which only reads.
    """

    _shards: Shards
    _ledger: Ledger
    _markers: Markers | None
    _clock: Clock

    def lineages(self) -> list[Lineage]:
        """Return all shards, from one whole listing made now: those listed, and the parents that they name and that were ever seen.

        Raises:
            UnprovenError: the listing lacks shards, or is older than one of the chains.
        """
        listed = {shard.shard_id: shard for shard in self._shards.whole()}
        noted = self._ledger.chains()
        found = [Lineage(self._shards.chain_of(shard), shard) for shard in listed.values()]
        newest = max(one.chain.lowest for one in found)
        if any(self._is_newer(chain, newest) for chain in noted):
            raise UnprovenError("Kinesis lists the shards as they were")
        for one in found:
            if self._markers is not None and one.chain not in noted:
                self._ledger.note_chain(one.chain)
        parents = {parent for shard in listed.values() for parent in shard.parents} - listed.keys()
        return found + [Lineage(chain, None) for chain in noted if chain.shard in parents]

    def _is_newer(self, chain: ChainId, newest: Number) -> bool:
        """Return whether a chain is of a shard that was made after the newest listed one, not of a deleted stream with higher numbers.

        Stamps may be ahead, and the chain of a deleted stream may be closed long after. What was planned and stamped when this stream
        existed is of this stream.
        """
        end = self._ledger.end(chain) if chain.lowest > newest else None
        if end is None:
            return False
        return min(end.latest, end.planned_at) / 1000 >= self._shards.created_at() + MARGIN_SECONDS

    def obstacle(self, moment: int) -> str:
        """Return which shard has not passed a time (UNIX milliseconds) yet, with the reason; empty if all have.

        Open shards that have not get a marker. The listing must be made after `moment` and the margin by this machine's clock.

        Raises:
            UnprovenError, UnavailableError: as `lineages`.
        """
        bound = moment + MARGIN_SECONDS * 1000
        if self._clock.now() * 1000 <= bound:
            return "it is too early"
        behind = [
            one
            for one in self.lineages()
            if not self.has_passed(one, bound) and (one.is_open or not self._ledger.close(one.chain))
        ]
        self._mark(behind)
        return f"the shard {behind[0].chain.shard} has not passed that time" if behind else ""

    def mark(self, moment: int) -> None:
        """Put a marker on each open shard whose chain's latest arrival is not later than `moment` (UNIX milliseconds)."""
        try:
            self._mark([one for one in self.lineages() if not self.has_passed(one, moment)])
        except UnprovenError:
            return  # the next run sees them all

    def _mark(self, behind: Iterable[Lineage]) -> None:
        for lineage in behind:
            if self._markers is not None and lineage.shard is not None and lineage.is_open:
                self._markers.put(lineage.shard)

    def has_passed(self, lineage: Lineage, bound: int) -> bool:
        """Return whether a chain's latest arrival is later than `bound` (UNIX milliseconds), or the chain is closed.

        Raises:
            UnprovenError: Kinesis lists a shard as open whose chain is closed, so the listing is old and may lack its children.
        """
        end = self._ledger.end(lineage.chain)
        if end is not None and end.last == BEHIND_ALL and lineage.is_open:
            raise UnprovenError("Kinesis does not list the newest shards")
        return end is not None and (end.latest > bound or end.last == BEHIND_ALL)
