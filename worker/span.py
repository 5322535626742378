"""A span: the records of one shard that are planned as one piece, as it stands in the ledger.

What was planned (borders, databases, cut) never changes. What became of the chunks is told by the exceptions from the
plan: while the span is open, a chunk without an entry is pending; once it is done, delivered.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import lru_cache
from typing import Any

from worker.record import Number

SECONDS_KEPT = 366 * 86_400
"""How long a settled span is remembered: longer than any retention, so that no replay finds it gone."""


class State(StrEnum):
    """What became of a chunk."""

    PENDING = "pending"
    DELIVERED = "delivered"
    ASIDE = "aside"


class Kind(StrEnum):
    """Why a chunk is set aside."""

    PARKED = "parked"
    IN_DOUBT = "in_doubt"
    DEAD_LETTER = "dead_letter"


@dataclass(frozen=True, slots=True)
class Cut:
    """The limits by which chunks are cut into parts."""

    rows: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Entry:
    """What the ledger says of a chunk.

    Attributes:
        state: pending, delivered or aside.
        rows: how many it holds.
        since: UNIX milliseconds of the first attempt that Treasure Data may have taken; None while there is none.
        kind: of an aside chunk.
        reason: of an aside chunk, one word.
        database: where it goes; empty for the plan's.
        generation: how often it was given a new id, after Treasure Data was asked and had nothing.
        split: it was too large, and its halves, named `….0` and `….1`, stand for it.
    """

    state: State = State.PENDING
    rows: int = 0
    since: int | None = None
    kind: str = ""
    reason: str = ""
    database: str = ""
    generation: int = 0
    split: bool = False

    def to_item(self) -> dict[str, Any]:
        """Return it as a value of DynamoDB."""
        item: dict[str, Any] = {"s": {"S": self.state}, "n": {"N": str(self.rows)}}
        if self.since is not None:
            item["since"] = {"N": str(self.since)}
        for name, text in (("k", self.kind), ("why", self.reason), ("db", self.database)):
            if text:
                item[name] = {"S": text}
        if self.generation:
            item["gen"] = {"N": str(self.generation)}
        if self.split:
            item["split"] = {"BOOL": True}
        return {"M": item}

    @classmethod
    def from_item(cls, value: Mapping[str, Any]) -> "Entry":
        """Return what `to_item` made this of."""
        item = value["M"]
        return cls(
            state=State(item["s"]["S"]),
            rows=int(item["n"]["N"]),
            since=int(item["since"]["N"]) if "since" in item else None,
            kind=item.get("k", _EMPTY)["S"],
            reason=item.get("why", _EMPTY)["S"],
            database=item.get("db", _EMPTY)["S"],
            generation=int(item["gen"]["N"]) if "gen" in item else 0,
            split="split" in item,
        )


_EMPTY = {"S": ""}
_DELIVERED = Entry(State.DELIVERED)


@lru_cache(maxsize=16)
def _pending(since: int) -> Entry:
    """Return what is said of a chunk without an entry: asked for several times a chunk, and the same for a whole span."""
    return Entry(since=since)


@dataclass(frozen=True, slots=True)
class Span:
    """A span of a chain.

    Attributes:
        chain: the chain's name: the stream, when it was created, and the shard; holes and forced replays add to it.
        after: last sequence number of the preceding span.
        first: first sequence number.
        last: last sequence number.
        planned_at: UNIX milliseconds.
        databases: by owner (an account, or `account:key id` where that key was revoked) the database, or `!` and the
            reason why its rows are set aside.
        cut: by which chunks are cut into parts.
        counts: rows by `owner/table`.
        version: grows by one with every write.
        writer: names the last write.
        done: no chunk is pending.
        chunks: exceptions from the plan, by `owner/table/part`.
    """

    chain: str
    after: Number
    first: Number
    last: Number
    planned_at: int
    databases: Mapping[str, str]
    cut: Cut
    counts: Mapping[str, int]
    version: int = 1
    writer: str = ""
    done: bool = False
    chunks: Mapping[str, Entry] = field(default_factory=dict)

    def chunk(self, key: str) -> Entry:
        """Return what the ledger says of a chunk."""
        entry = self.chunks.get(key)
        if entry is not None:
            return entry
        return _DELIVERED if self.done else _pending(self.planned_at)

    def leaves(self, key: str) -> Iterator[str]:
        """Yield the chunks that stand for a planned one: itself, or the parts that it was split into."""
        entry = self.chunks.get(key)
        if entry is None or not entry.split:
            yield key
        else:
            yield from self.leaves(f"{key}.0")
            yield from self.leaves(f"{key}.1")

    def destination(self, key: str) -> str:
        """Return the database that a chunk goes to, or `!` and a reason."""
        owner, table, _ = key.split("/")
        if table.startswith("-"):
            return f"!{table[1:]}"
        return self.chunk(key).database or self.databases[owner]

    def unique_id(self, key: str, database: str, generation: int) -> str:
        """Return the id under which a chunk travels to a database: the same rows always under the same id."""
        return self._digest(key, database, str(generation))

    def object_id(self, key: str) -> str:
        """Return the name of the chunk's object in S3, which outlives a change of database or generation."""
        return self._digest(key, "aside", "")

    def _digest(self, key: str, *rest: str) -> str:
        members = (self.chain, self.after, key, str(self.cut.rows), str(self.cut.bytes), *rest)
        return hashlib.sha256("\n".join(members).encode()).hexdigest()[:32]

    def with_chunks(self, changes: Mapping[str, Entry], *, done: bool = False) -> "Span":
        """Return the span with these chunks changed; of a done span only what is aside is kept."""
        chunks = {**self.chunks, **changes}
        if done or self.done:
            chunks = {
                key: entry for key, entry in chunks.items() if entry.state is State.ASIDE and not entry.split
            }
        return replace(self, chunks=chunks, done=done or self.done)

    @property
    def expires_at(self) -> int | None:
        """UNIX seconds at which it may be forgotten; None while it is open or anything of it is aside."""
        if not self.done or self.chunks:
            return None
        return self.planned_at // 1000 + SECONDS_KEPT

    def to_item(self) -> dict[str, Any]:
        """Return it as an item of DynamoDB."""
        item = {
            "pk": {"S": self.chain},
            "sk": {"S": self.after},
            "first": {"S": self.first},
            "last": {"S": self.last},
            "at": {"N": str(self.planned_at)},
            "m": {"M": {owner: {"S": database} for owner, database in self.databases.items()}},
            "cut": {"M": {"rows": {"N": str(self.cut.rows)}, "bytes": {"N": str(self.cut.bytes)}}},
            "g": {"M": {group: {"N": str(count)} for group, count in self.counts.items()}},
            "v": {"N": str(self.version)},
            "w": {"S": self.writer},
            "st": {"S": "done" if self.done else "open"},
        }
        if self.chunks:
            item["x"] = self.chunks_item()
        return item

    def chunks_item(self) -> dict[str, Any]:
        """Return the exceptions from the plan as a value of DynamoDB."""
        return {"M": {key: entry.to_item() for key, entry in self.chunks.items()}}

    @classmethod
    def from_item(cls, item: Mapping[str, Any]) -> "Span":
        """Return what `to_item` made this of."""
        cut = item["cut"]["M"]
        return cls(
            chain=item["pk"]["S"],
            after=item["sk"]["S"],
            first=item["first"]["S"],
            last=item["last"]["S"],
            planned_at=int(item["at"]["N"]),
            databases={owner: value["S"] for owner, value in item["m"]["M"].items()},
            cut=Cut(int(cut["rows"]["N"]), int(cut["bytes"]["N"])),
            counts={group: int(value["N"]) for group, value in item["g"]["M"].items()},
            version=int(item["v"]["N"]),
            writer=item["w"]["S"],
            done=item["st"]["S"] == "done",
            chunks={key: Entry.from_item(value) for key, value in item.get("x", {"M": {}})["M"].items()},
        )
