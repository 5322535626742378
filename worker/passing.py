"""Finds out whether every shard has passed a time: all that it received before then is in a span or in a gap.

An open shard has passed a time when its chain's latest arrival is later, with a margin, because arrival times run back a little. A closed
shard receives nothing more, but a worker may still append what it read long ago; so the sender closes the chain first, with an empty
span behind all sequence numbers. Parents that a listed child names count as closed, listed or not.
"""

from collections.abc import Iterable
from dataclasses import KW_ONLY, dataclass, field

from shared.clock import Clock
from shared.errors import ShardUnreadableError, UnprovenError
from shared.telemetry import Telemetry
from worker.chain import ChainId
from worker.ledger import BEHIND_ALL, Ledger
from worker.record import Number
from worker.shards import Shard, Shards

EVERY_SECONDS = 60.0
"""A shard gets at most one marker in this time."""
MARGIN_SECONDS = 300
"""By how much arrival times may run back from one record to the next, of a shard or between a shard and its children."""
CLOCK_SECONDS = 20
"""By how much the clock of a function, or of the machine that takes a watermark, may be wrong."""
_MARKING_SECONDS = 15.0  # after which no more markers are put at once: a stream may have hundreds of shards


@dataclass(eq=False)
class Passing:
    """Looks at the ends of the shards' chains. With `marks`, it puts markers; a command does not."""

    _shards: Shards
    _ledger: Ledger
    _clock: Clock
    _telemetry: Telemetry
    _: KW_ONLY
    marks: bool = True
    _marked_at: dict[ChainId, float] = field(default_factory=dict, init=False)

    def shards(self) -> list[Shard]:
        """Return all shards, from one whole listing made now: those listed, and the parents that they name and that were ever seen.

        If the listing lacks shards, or is older than one of the chains, this raises UnprovenError.
        """
        found, noted = self._shards.whole(), self._ledger.chains()
        newest = max(one.chain.lowest for one in found)
        if any(self._is_newer(chain, newest) for chain in noted):
            raise UnprovenError("Kinesis lists the shards as they were")
        for one in found:
            if self.marks and one.chain not in noted:
                self._ledger.note_chain(one.chain)
        parents = {parent for one in found for parent in one.parents} - {one.shard_id for one in found}
        return found + [Shard(chain) for chain in noted if chain.shard in parents]

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

        Open shards that have not get a marker. The listing must be made after `moment` and the margin by this machine's clock. This raises
        UnprovenError for the same reasons as `shards`, and UnavailableError.
        """
        bound = moment + MARGIN_SECONDS * 1000
        if self._clock.now() * 1000 <= bound:
            return "it is too early"
        behind = [
            one
            for one in self.shards()
            if not self.has_passed(one, bound) and (one.is_open or not self._ledger.close(one.chain))
        ]
        self._mark(behind)
        return f"the shard {behind[0].shard_id} has not passed that time" if behind else ""

    def mark(self, moment: int) -> None:
        """Put a marker on each open shard whose chain's latest arrival is not later than `moment` (UNIX milliseconds)."""
        try:
            self._mark([one for one in self.shards() if not self.has_passed(one, moment)])
        except UnprovenError:
            return  # the next run sees them all

    def _mark(self, behind: Iterable[Shard]) -> None:
        """Put a marker on each open shard, unless it got one a moment ago.

        If Kinesis fails, or takes long, a later run puts it, first on the shards whose last marker is the oldest.
        """
        now, last = self._clock.now(), {one: self._marked_at.get(one.chain, float("-inf")) for one in behind}
        for shard in sorted(last, key=last.__getitem__):
            if self._clock.now() - now > _MARKING_SECONDS:
                return
            is_due = not 0 <= now - last[shard] < EVERY_SECONDS
            if self.marks and shard.is_open and is_due:
                self._marked_at[shard.chain] = now
                try:
                    self._shards.mark(shard)
                except ShardUnreadableError as error:
                    self._telemetry.warning("a marker was not put", reason=str(error))

    def has_passed(self, shard: Shard, bound: int) -> bool:
        """Return whether a chain's latest arrival is later than `bound` (UNIX milliseconds), or the chain is closed.

        If Kinesis lists a shard as open whose chain is closed, this raises UnprovenError: the listing is old and may lack its children.
        """
        end = self._ledger.end(shard.chain)
        if end is not None and end.last == BEHIND_ALL and shard.is_open:
            raise UnprovenError("Kinesis does not list the newest shards")
        return end is not None and (end.latest > bound or end.last == BEHIND_ALL)
