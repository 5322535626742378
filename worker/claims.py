"""Claims ensure that only one of all copies of an envelope on the stream counts.

An envelope that its sender may repeat, or that the drainer has put, has `claim` set. So does, in effect, a record that arrived so late
that its envelope may have been put again meanwhile, and every record in a gap. The rows of such a record count only if it owns the claim of
its request id. The worker decides that once, before it appends a span; the span's index keeps the answer.
"""

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import batched
from typing import NamedTuple

from shared.clock import Clock
from shared.errors import HeldError
from worker.chain import ChainId, Owner
from worker.executor import Executors, run_parallel
from worker.ledger import MOST_CLAIMS, MOST_CLAIMS_WITH_APPEND, Claim, Claiming, Gap, Ledger
from worker.membership import Membership
from worker.record import NOBODY, Number, Records
from worker.shards import Shards
from worker.span import Span

LATE_SECONDS = 300
"""A record that arrives longer than this after the ingest received it must own its envelope's claim to count.

The protocol rests on this number: the sender decides about an envelope that was put again once no record of it can arrive without a
claim. It is part of the format of the data and must never change.
"""

MOST_LOOKUPS = 250
"""A span has at most this many records whose claims others own, so that looking for these takes seconds, and their names fit into its item."""
QUEUED_SECONDS = 14 * 86_400
"""How long an envelope may wait in the overflow queue."""
_REPEATED_SECONDS = 30 * 86_400  # how long a sender may repeat a request
_LATEST_SECONDS = 86_400
"""How long after it left the stream a worker may still have a record, with ample room."""
DAMAGED_SECONDS = 3600
"""For so long after a record arrived, it waits for an index that S3 answers with other bytes: most such answers are false, and pass."""
FROM_JSON = "json#"
"""Begins the derived request id of a record in JSON form, before its number."""


class _Wish(NamedTuple):
    """A record that must own a claim, under this request id."""

    number: Number
    request_id: str
    arrived_at: float


@dataclass(frozen=True, slots=True)
class _Batch:
    """What is known of the records to decide.

    Attributes:
        begins: the sequence number of the first of them.
        first: by request id, the first record that must own its claim: it claims.
        claims: by request id, the claim that holds; None if nobody has it.
        gaps: of the claims' owners, those that no span has, and where they would be appended; None if a damaged index hides it.
        made: claims to make with the append.
        gone: chains of shards that were looked for, and whether the stream has lost them.
    """

    gap: Gap
    begins: Number
    first: Mapping[str, Owner]
    claims: Mapping[str, Claim | None]
    gaps: Mapping[Owner, Gap | None]
    made: dict[str, Claiming] = field(default_factory=dict)
    gone: dict[ChainId, bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Decided:
    """Which records count.

    Attributes:
        records: those before the first that could not be decided; those that must own a claim have one.
        uncounted: the positions of those that do not count.
        with_append: claims to make in the transaction that appends their span, by request id.
        owners: by the number of a record that does not count, because of a record that is in no span yet: the request id and that record.
    """

    records: Records
    uncounted: frozenset[int] = frozenset()
    with_append: dict[str, Claiming] = field(default_factory=dict)
    owners: dict[Number, tuple[str, Owner]] = field(default_factory=dict)

    def before(self, end: int) -> "Decided":
        """Return what is decided of the records before a position, which is not the first."""
        records = self.records[:end]
        last = records.numbers[-1]
        return Decided(
            records,
            frozenset(position for position in self.uncounted if position < end),
            {one: claim for one, claim in self.with_append.items() if claim.owner.number <= last},
            {number: owner for number, owner in self.owners.items() if number <= last},
        )


@dataclass(eq=False)
class Claims:
    """Claims envelopes for records."""

    _ledger: Ledger
    _membership: Membership
    _shards: Shards
    _executors: Executors
    _clock: Clock

    def seconds_kept(self) -> int:
        """Return how long a claim is kept: longer than a copy of its envelope can still be planned."""
        return _REPEATED_SECONDS + round(self._shards.retention_seconds()) + QUEUED_SECONDS

    def decide(self, records: Records, gap: Gap) -> Decided:
        """Decide which records count that are to be appended in a gap; raise HeldError if the first one cannot be decided now."""
        in_gap = bool(gap.chain.gaps)
        wishes = _wishes(records, gap)
        if not wishes:
            return Decided(records)
        if in_gap and len(wishes) > MOST_CLAIMS_WITH_APPEND:
            last = list(wishes)[MOST_CLAIMS_WITH_APPEND]
            records = records[: bisect_left(records.numbers, last)]
            wishes = {number: wish for number, wish in wishes.items() if number < last}
        first: dict[str, Owner] = {}
        for wish in wishes.values():
            first.setdefault(wish.request_id, Owner(gap.chain.root, wish.number))
        claims = self._claims_of(first, in_gap=in_gap)
        others = {
            first[one].number: claim.owner
            for one, claim in claims.items()
            if claim is not None and not claim.is_fixed and claim.owner != first[one]
        }
        if len(others) > MOST_LOOKUPS:
            last = sorted(others)[MOST_LOOKUPS]
            records = records[: bisect_left(records.numbers, last)]
            others = {number: owner for number, owner in others.items() if number < last}
        gaps = self._membership.gaps_of(set(others.values()), self._executors)
        uncounted: set[int] = set()
        batch = _Batch(gap, records.numbers[0], first, claims, gaps)
        end = len(records)
        for position, number in enumerate(records.numbers):
            answer = self._counts(wishes.get(number), batch)
            if answer is None or len(batch.made) > MOST_CLAIMS_WITH_APPEND:
                end = position
                break
            if not answer:
                uncounted.add(position)
        if not end:
            raise HeldError(HeldError.UNDECIDED_COPY)
        copies = [wishes[records.numbers[position]] for position in uncounted]
        not_planned = {
            wish.number: (wish.request_id, claim.owner)
            for wish in copies
            if (claim := claims[wish.request_id]) is not None and claim.owner in gaps
        }
        return Decided(records.claimed(wishes), frozenset(uncounted), batch.made, not_planned).before(end)

    def awaited(self, span: Span) -> dict[str, Owner]:
        """Return the owners of a span's copies that may still be planned: no span has them, and nobody has taken their claims over.

        They were on the stream before the span was planned; what the stream has lost since is never planned. This raises HeldError for the
        same reasons as `decide`, and UnavailableError.
        """
        age = self._clock.now() - span.planned_at / 1000
        if not span.copies or age > self._shards.retention_seconds() + _LATEST_SECONDS:
            return {}
        gaps = self._membership.gaps_of(span.copies.values(), self._executors)
        found = {one: owner for one, owner in span.copies.items() if owner in gaps}
        for ids in batched(list(found), MOST_CLAIMS_WITH_APPEND, strict=False):
            for one, claim in self._ledger.claims(ids).items():
                if claim.owner != found[one]:
                    del found[one]
        return found

    def _counts(self, wish: _Wish | None, batch: _Batch) -> bool | None:
        """Return whether a record counts; None if that is unknown now."""
        if wish is None:
            return True
        if wish.request_id not in batch.claims:
            return None
        claim, first = batch.claims[wish.request_id], batch.first[wish.request_id]
        me, is_first = Owner(first.chain, wish.number), wish.number == first.number
        if claim is None:
            if is_first:
                batch.made[wish.request_id] = Claiming(me)
            return is_first
        if claim.owner == me:
            if batch.gap.chain.gaps:
                batch.made.setdefault(wish.request_id, Claiming(me, me))
            return wish.request_id not in batch.made or batch.made[wish.request_id].owner == me
        if not is_first or claim.is_fixed:
            return False
        is_passed = self._is_passed(claim.owner, wish, batch)
        if is_passed:
            batch.made[wish.request_id] = Claiming(me, claim.owner)
        return is_passed

    def _claims_of(self, owners: dict[str, Owner], *, in_gap: bool) -> dict[str, Claim | None]:
        """Return the claim that holds for each request id, None if nobody has it; ids without an answer are left out.

        In a gap they are None too: the append's transaction decides.
        """
        if in_gap:  # there are few
            return dict.fromkeys(owners) | self._ledger.claims(owners)
        parts = [dict(part) for part in batched(owners.items(), MOST_CLAIMS, strict=False)]
        jobs = [partial(self._ledger.claim, part, self.seconds_kept()) for part in parts]
        return {one: claim for answer in run_parallel(self._executors, jobs) for one, claim in answer.items()}

    def _is_passed(self, owner: Owner, wish: _Wish, batch: _Batch) -> bool | None:
        """Return whether a claim's owner is in no span, and can only be appended in a gap any more, where it must claim again.

        That is so if its chain has gone on behind it, or does so by this very append; or if its shard is gone for certain. None while
        the record that wants the claim must wait for a damaged index.
        """
        gap = batch.gap
        if owner.chain == gap.chain and gap.after < owner.number < batch.begins:
            return True
        if owner not in batch.gaps:
            return False
        place = batch.gaps[owner]
        if place is None:
            return None if self._clock.now() - wish.arrived_at < DAMAGED_SECONDS else False
        if place.chain != owner.chain:
            return True
        if owner.chain not in batch.gone:
            batch.gone[owner.chain] = self._shards.is_gone(owner.chain)
        return batch.gone[owner.chain]


def _wishes(records: Records, gap: Gap) -> dict[Number, _Wish]:
    """Return the records that must own a claim, by number, in order; in a gap, that is every record with an account."""
    in_gap, late = bool(gap.chain.gaps), LATE_SECONDS * 1000
    latest = max(max(records.arrivals) * 1000, gap.latest)
    if not in_gap and latest - min(records.receipts) <= late and not any(records.claims):
        return {}
    owned = (records.numbers, records.request_ids, records.accounts, records.claims)
    columns = zip(*owned, records.arrivals, records.receipts, strict=True)
    return {
        number: _Wish(number, request_id or f"{FROM_JSON}{number}", arrived_at)
        for number, request_id, account, claim, arrived_at, received_at in columns
        if account != NOBODY and (claim or in_gap or max(arrived_at * 1000, gap.latest) - received_at > late)
    }
