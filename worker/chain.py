"""Chains of spans. Each shard has one, and so has whatever else a span is appended for.

A chain's name is the partition key of its spans in the ledger:

    <stream>@<start>#<shard>        the records of a shard
    <chain>#<after>                 records before the first one of the span that follows `after`
    <chain>#<after>!                records between the borders of that span that the span does not have
    force#<tag>#<after>#<chain>     rows of one span that a forced replay sends again
    edit#<id>                       new rows in place of a chunk
    overflow#<id>                   a message of the overflow queue that is not an envelope

`start` is the shard's first possible sequence number. A recreated stream has shards with the same names as the old one;
this number distinguishes them.
"""

import re
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import NamedTuple, Self

from worker.record import Number, number

_SHARD = re.compile(r"(?P<stream>[^@#]+)@(?P<start>\d+)#(?P<shard>[^#]+)(?P<gaps>(?:#\d+!?)*)")
FORCED = "force#"
"""With this begin the names of forced replays' chains."""
_FORCED = re.compile(r"force#(?P<tag>[^#]+)#(?P<after>\d+)#(?P<chain>.+)")
_OTHER = re.compile(r"(?:edit|overflow)#.+")


@dataclass(frozen=True)
class ChainId:
    """Identifies a chain.

    Attributes:
        stream: the stream; empty if it is not the chain of a shard or of a gap.
        shard: the shard's id; for other chains, the whole name.
        gaps: for a gap, the `after` of the span that it precedes, or `after!` if it lies between the span's borders; for a gap in a
            gap, one more, and so on.
    """

    stream: str
    start: str
    shard: str
    gaps: tuple[str, ...] = ()

    @staticmethod
    @lru_cache(maxsize=4096)
    def parse(name: str) -> "ChainId":
        """Return the chain with this name, or raise ValueError; spans share their chain, as there may be a hundred thousand in memory."""
        if parts := _SHARD.fullmatch(name):
            return ChainId(
                parts["stream"], parts["start"], parts["shard"], tuple(parts["gaps"].split("#")[1:])
            )
        forced = _FORCED.fullmatch(name)
        if forced is None and not _OTHER.fullmatch(name):
            raise ValueError(f"{name!r} does not name a chain")
        if forced is not None:
            ChainId.parse(forced["chain"])
        return ChainId("", "", name)

    @classmethod
    def forced(cls, tag: str, original: "ChainId", after: Number) -> Self:
        """Return the chain of a forced replay of one span."""
        return cls("", "", f"force#{tag}#{after}#{original.name}")

    @classmethod
    def edit(cls, name: str) -> Self:
        """Return the chain of new rows in place of a chunk; `name` identifies the chunk."""
        return cls("", "", f"edit#{name}")

    @classmethod
    def overflow(cls, message_id: str) -> Self:
        """Return the chain of a message that is not an envelope."""
        return cls("", "", f"overflow#{message_id}")

    @cached_property
    def name(self) -> str:
        """The name in the ledger."""
        if not self.stream:
            return self.shard
        return "#".join((f"{self.stream}@{self.start}#{self.shard}", *self.gaps))

    @cached_property
    def lowest(self) -> Number:
        """The lowest sequence number that a record of the shard can have."""
        return number(self.start)

    @property
    def is_of_stream(self) -> bool:
        """Whether its spans hold records of the stream."""
        return bool(self.stream)

    @property
    def is_forced(self) -> bool:
        """Whether it is the chain of a forced replay."""
        return self.shard.startswith(FORCED)

    @cached_property
    def root(self) -> "ChainId":
        """The shard's own chain, without gaps."""
        return replace(self, gaps=()) if self.gaps else self

    def before(self, after: Number) -> Self:
        """Return the chain of the gap before the first record of the span that follows `after`."""
        return replace(self, gaps=(*self.gaps, after))

    def within(self, after: Number) -> Self:
        """Return the chain of the gaps between the borders of the span that follows `after`."""
        return replace(self, gaps=(*self.gaps, f"{after}!"))


class Owner(NamedTuple):
    """The owner of the claim on an envelope: the record whose copy of the envelope counts. Its chain is that of its shard, without gaps."""

    chain: ChainId
    number: Number

    @classmethod
    def parse(cls, name: str) -> Self:
        """Return the owner with this name; raise ValueError if it does not name one."""
        chain, _, number = name.rpartition("#")
        return cls(ChainId.parse(chain), number)

    @property
    def name(self) -> str:
        """The text for the ledger: `chain#sequence number`."""
        return f"{self.chain.name}#{self.number}"
