"""The input of the worker's modules: an invocation's terms, a batch of one shard's records, and the work on one span."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

from shared.errors import InvalidReplayError
from worker.chain import ChainId
from worker.deadline import Deadline
from worker.forced_replay import ForcedReplay
from worker.plan import Groups
from worker.record import Record
from worker.span import ChunkKey, Span


@dataclass(slots=True)
class Terms:
    """The terms under which an invocation delivers its records.

    Attributes:
        deadline: after it, nothing may be sent; it leaves time to settle.
        forced: the rows to send again whatever the ledger says; None if the ledger decides.
        from_archive: the shard's chain if the records come from the archive; else None. The stream may no longer have the records,
            or the shard.
        is_replay: the records come from a replay, so earlier records may not be settled.
        is_stretch: the batch should hold every record that the shard has between its first and last.
        passed_over: by account and table, the number of rows that a forced replay skips.
    """

    deadline: Deadline
    forced: ForcedReplay | None = None
    from_archive: ChainId | None = None
    is_replay: bool = False
    is_stretch: bool = False
    passed_over: Counter[str] = field(default_factory=Counter)

    @classmethod
    def from_event(cls, event: Mapping[str, Any], deadline: Deadline) -> Self:
        """Return the terms that an event sets.

        Raises:
            InvalidReplayError: `forced` or `chain` is invalid.
        """
        forced = ForcedReplay.from_event(event) if event.get("forced") is not None else None
        chain = _chain_of(event["chain"]) if "chain" in event else None
        is_stretch = forced is None and chain is None
        return cls(deadline, forced, chain, is_replay="replay" in event, is_stretch=is_stretch)


@dataclass(slots=True)
class ShardBatch:
    """Records of one shard, as Lambda or a replay delivered them.

    Attributes:
        is_checked: they have been compared with the shard.
    """

    terms: Terms
    shard: str
    chain: ChainId
    records: list[Record]
    is_checked: bool = False

    def within(self, span: Span) -> list[Record]:
        """Return the records between a span's borders."""
        return [record for record in self.records if span.first <= record.number <= span.last]


class Work(NamedTuple):
    """A span that an invocation has just appended or fenced, and the rows that it still has to send.

    Attributes:
        records: the span's records, without those that have expired.
        opened: chunks whose doubt this invocation opened; None for all.
        is_whole: none of the span's records has expired.
    """

    span: Span
    records: Sequence[Record]
    groups: Groups
    opened: set[ChunkKey] | None = None
    is_whole: bool = True


def _chain_of(name: str) -> ChainId:
    try:
        chain = ChainId.parse(name)
    except ValueError as error:
        raise InvalidReplayError(str(error)) from error
    if chain.is_overflow or chain != chain.root:
        raise InvalidReplayError(f"{chain.name!r} is not the chain of a shard")
    return chain
