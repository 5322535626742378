"""Chains: each shard's spans form one, and so do the spans of a hole, of a forced replay and of an overflow message.

A chain's name is the partition key of its spans in the ledger, and part of the id of every chunk:

    <stream>@<start>#<shard>                                        of a shard
    <stream>@<start>#<shard>#force#<tag>/<account>/<table>          of a forced replay, beside the shard's; * stands for any
    <any of these>#<after>                                          of a hole before the span that follows `after`
    overflow#<id>                                                   of an envelope that could not be put on the stream

`start` is the shard's first possible sequence number. A recreated stream has shards with the same names as the old one;
this number distinguishes them.
"""

import re
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple, Self

from worker.record import Number, number

_FORCE = "#force#"
NO_STREAM = ""
"""The stream of overflow chains."""
OVERFLOW = "overflow"
"""The start of an overflow chain's name; `#` and an id follow."""

_OVERFLOW = f"{OVERFLOW}#"
_NAME = re.compile(
    rf"(?P<stream>[^@#]+)@(?P<start>\d+)#(?P<shard>[^#]+)(?:{_FORCE}(?P<replay>[^#]+))?(?P<holes>(?:#\d+)*)"
)


@dataclass(frozen=True)
class ChainId:
    """Identifies a chain.

    Attributes:
        stream: the stream; empty for an overflow chain.
        start: the shard's first possible sequence number; a recreated stream has other ones.
        shard: the shard's id; for an overflow chain, the id of the envelope or message.
        replay: the forced replay, `tag/account/table`; empty without one.
        holes: for a hole, the `after` of the span that it precedes; for a hole in a hole, one more, and so on.
    """

    stream: str
    start: str
    shard: str
    replay: str = ""
    holes: tuple[Number, ...] = ()

    @classmethod
    def overflow(cls, name: str) -> Self:
        """Return the chain of an envelope, or of a message without one, that could not be put on the stream."""
        return cls(NO_STREAM, "", name)

    @classmethod
    def parse(cls, name: str) -> Self:
        """Return the chain with this name.

        Raises:
            ValueError: it does not name a chain.
        """
        if name.startswith(_OVERFLOW):
            return cls.overflow(name.removeprefix(_OVERFLOW))
        parts = _NAME.fullmatch(name)
        if parts is None:
            raise ValueError(f"{name!r} does not name a chain")
        holes = tuple(parts["holes"].split("#")[1:])
        return cls(parts["stream"], parts["start"], parts["shard"], parts["replay"] or "", holes)

    @cached_property
    def name(self) -> str:
        """The name in the ledger."""
        if self.is_overflow:
            return f"{_OVERFLOW}{self.shard}"
        replay = f"{_FORCE}{self.replay}" if self.replay else ""
        return "#".join((f"{self.stream}@{self.start}#{self.shard}{replay}", *self.holes))

    @cached_property
    def lowest(self) -> Number:
        """The lowest sequence number that a record of the shard can have."""
        return number(self.start)

    @property
    def is_overflow(self) -> bool:
        """Whether it is an overflow chain."""
        return not self.stream

    @property
    def is_forced(self) -> bool:
        """Whether it is the chain of a forced replay, or of a hole in one."""
        return bool(self.replay)

    @cached_property
    def root(self) -> Self:
        """The shard's own chain, without replay and holes."""
        return replace(self, replay="", holes=()) if self.replay or self.holes else self

    def hole(self, after: Number) -> Self:
        """Return the chain of the hole before the span that follows `after`."""
        return replace(self, holes=(*self.holes, after))

    def forced(self, replay: str) -> Self:
        """Return the chain of a forced replay beside this one."""
        return replace(self, replay=replay)


class ClaimOwner(NamedTuple):
    """The owner of the claim on an envelope: the copy of the envelope that counts.

    Attributes:
        chain: the chain of the record's shard, without replay and holes; or the envelope's overflow chain.
        number: the record's sequence number; None for an overflow chain.
    """

    chain: ChainId
    number: Number | None = None

    @classmethod
    def record(cls, chain: ChainId, number: Number) -> Self:
        """Return a record as an owner: the same one, whether a chain, a hole of it or a forced replay beside it holds the record."""
        return cls(chain.root, number)

    @classmethod
    def parse(cls, name: str) -> Self:
        """Return the owner with this name.

        Raises:
            ValueError: it does not name an owner.
        """
        if name.startswith(_OVERFLOW):
            return cls(ChainId.parse(name))
        chain, _, number = name.rpartition("#")
        return cls(ChainId.parse(chain), number)

    @property
    def name(self) -> str:
        """The text for the ledger: the overflow chain's name, or `chain#sequence number`."""
        return self.chain.name if self.number is None else f"{self.chain.name}#{self.number}"
