"""The delivery protocol, as tables and pure functions. `chaos.judge` names the rule that each wrong event breaks.

Records arrive in the shards of a Kinesis stream. A *worker* groups records into a *span*, cuts their rows into *chunks*
(rows of one table, one import each), stores the span's *object* in S3 and appends the span's *item* to the *ledger* in
DynamoDB. From then on the stream may move on. The worker sends the chunks to Treasure Data (TD) and *settles* the span
with one write. A *sender* takes up what still waits, once a minute or by hand: it writes what it is about to do, sends,
and writes what came of it. Every write requires the version of the item that its writer read, and raises it. Anybody
may be killed at any step, any write may land late, any answer may be lost, a stalled process may go on later.

**Index and gaps.** The object has the chunks as they are sent, and an index: for each record its number and its rows
in each chunk. A record belongs to a span only if the span's index has its number, not because it lies between its
borders. A shard's spans form a *chain*: each follows the end of the last. Records that were passed over, before or
within a span, lie in a *gap*, which has a chain of its own.

**Doubt.** TD ignores an import under an id that it has taken within the last hour. A chunk is *in doubt* while TD may
have it and nobody knows: from the write before its first send until an answer proves something. A doubt keeps its
start, database and generation, and with them the import's id. Until minute 45 the chunk may be sent again, under the
same id. Until minute 70 nothing happens. Then a sender asks TD; only proven absence allows the next generation, a new
id. Without proof from TD a doubt is cleared only by the invocation that opened it, only on its own version (nobody
else has written the item since), and only if every attempt under the id was surely rejected or never sent.

**Claims.** The stream may hold copies of a request. The rows of a copy that must claim count only if its record owns
the request's claim, which is the first record to insert it. These must: a record that says so; one that arrived more
than LATE after it was received, by its own stamp or by the latest stamp in its chain before; and every record of a gap,
in the same transaction as the append. A claim moves only from a record that was passed over, or is gone.

**Put again.** A put to Kinesis that may have happened, because its answer was lost, is repeated later, with a claim and
the mark *again*. If its record owns the claim, its rows are chunks in state *again* until every shard has *passed* T =
received + LATE. Then each first copy that does not have to claim is in an index. If one is there and counts, the chunk
is a *copy*; otherwise it waits like others. A shard has passed T once the latest stamp in its chain is after T + MARGIN
or, if the shard is closed, once an empty last span has ended its chain.

**Forgetting.** A person's rows leave an object by a new one: each chunk with such rows is *cut anew*. The rows that stay become a chunk
of a name that the span never had, so of another id; the rows that leave are counted as `forgotten`; the index of records stays whole. One
write on the version that was read does it, and only to chunks without doubt. A chunk with a doubt in one half keeps its bytes, and its other
halves are replaced. Rows that were delivered leave an object only after TD has deleted them. What is sent meanwhile is found by later
searches, the last of them when nothing that was received before can still be on its way.

A run is a sequence of `Event`, in true order; of conditional writes it has only those that took effect. Begin with
STATES, TRANSITIONS, ANSWERS and RULES: they say all that a run may do, and the rest of this module makes them exact.
"""

from collections.abc import Callable, Iterable, Mapping
from copy import replace
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

END = 10**60  # after every sequence number: the border of the empty span that ends a closed shard's chain
KEYS = 2**128  # the hash keys of Kinesis
type Owner = tuple[str, int]  # a record, by its shard (never by a gap) and number


@dataclass(frozen=True)
class Times:
    """The protocol's times, in the events' unit: here seconds. `clock`: how far two clocks may differ."""

    same_id: float = 45 * 60  # TD's memory of an hour, less an invocation of 15 minutes
    ask: float = 70 * 60  # TD's memory, and ten minutes until a query sees what was imported
    invocation: float = 120  # how long a worker may still be at work on a span that it appended
    late: float = 900  # LATE
    margin: float = 300  # MARGIN: how far stamps may run back, within a shard or from a shard to its children
    orphan: float = 86_400  # how long an object stays that no item names
    retention: float = 7 * 86_400  # how long the stream keeps a record, and lists a shard that has one
    index: float = 21 * 86_400  # how long an index stays: the stream's retention, and 14 days
    clock: float = 60
    damaged: float = 3600  # a record of this age does not wait for an index that S3 answers with other bytes


class Chain(NamedTuple):
    """A shard's chain, or one of its gaps'. Without a shard: the chain of a span that was made from others."""

    shard: str
    gap: str = ""
    tag: str = ""  # of a forced replay: it delivers `source` once more, once for each tag
    source: str = ""


class Place(NamedTuple):
    """Where a span stands: its chain, and the number that it follows there (0: none). Only one span can."""

    chain: Chain
    after: int = 0


class Chunk(NamedTuple):
    """A chunk as it was appended. `database` is None if the account was not looked up or the database had failed."""

    name: str  # without "/"
    rows: int
    database: str | None = None
    request: str = ""  # of rows that were put again: one chunk for each request and table
    received: float = 0  # of rows that were put again: when the request came in
    sendable: bool = True  # False: not decodable, or of too many tables; kept for an operator


class Entry(NamedTuple):
    """What became of a chunk. `since`: when its doubt began, None without doubt."""

    state: str
    since: float | None = None
    generation: int = 0
    database: str | None = None
    may_be_there: bool = False  # of a dead chunk: TD may have the rows


class Record(NamedTuple):
    """A record, as an index has it."""

    number: int
    arrival: float  # its stamp
    request: str = ""  # empty for a record without rows (a marker)
    received: float = 0
    claims: bool = False  # it carries a claim, or is late
    counts: bool = True  # False: another record owns the request's claim
    again: bool = False
    rows: tuple[tuple[str, int], ...] = ()  # how many of its rows are in which chunk


class Shard(NamedTuple):
    """A shard, as an answer of ListShards has it."""

    name: str
    low: int = 0
    high: int = KEYS - 1
    is_open: bool = True
    parents: tuple[str, ...] = ()


@dataclass(frozen=True)
class Item:
    """A span in the ledger. What a missing entry means: see `entry_of`."""

    place: Place
    first: int = 0
    last: int = 0
    planned_at: float = 0
    numbers: frozenset[int] = frozenset()  # the ledger has their count and digest, the index themselves
    chunks: tuple[Chunk, ...] = ()
    latest: float = 0  # the latest stamp of the chain up to here
    object: str = ""
    digest: str = ""  # of the index
    version: int = 1
    done: bool = False  # somebody has settled it
    entries: tuple[tuple[str, Entry], ...] = ()

    @cached_property
    def by_key(self) -> dict[str, Entry]:
        """The entries, by key."""
        return dict(self.entries)

    @cached_property
    def by_name(self) -> dict[str, Chunk]:
        """The chunks, by name."""
        return {one.name: one for one in self.chunks}


NOWHERE = Place(Chain(""))
# fmt: off
EVENTS = {  # what happened: the fields of `Event` that it uses beside `at` and `by`
    "object put": "name, digest (of the index), records, chunks (name, rows, digest of the body)",
    "object deleted": "name",
    "object lost": "name: it is gone, and no part of Sluice has deleted it",
    "claimed": "claims (request and owner): inserted on their own, before the append",
    "appended": "item, claims (inserted or taken over with it); in the same transaction for an edited chunk: place, version, changes",
    "written": "place, version (required), changes (key and entry; a removed entry as delivered), done; name and digest if the object was written anew; removed (chunks) and added, if chunks were cut anew",
    "sent": "an import begins: call, place, key, generation, database, digest (of the body)",
    "answered": "answer (one of ANSWERS), place, key, generation; call and database if to an import; started if to another call",
    "probed": "the answer to an import without rows: database, answer",
    "listed": "shards: an answer of ListShards",
    "acknowledged": "name (of a shard), numbers: the stream moves on past these records",
    "stream deleted": "(nothing): its shards, and their records, are gone",
    "tag bound": "name (of a tag), started and until: the arrivals that it stands for",
    "ledger restored": "(nothing): from a backup; it lacks what happened since",
    "ledger repaired": "items, claims and tags (name, started and until): what it says now that an operator has compared it with the objects",
}
STATES = {
    "waiting": "to be sent. In doubt while `since` is set: Treasure Data may have it",
    "again": "put on the stream again; nobody knows yet whether its first copy counts. In doubt after a repair",
    "dead": "cannot be delivered as it is; an operator decides. With `may_be_there`, Treasure Data may have it",
    "delivered": "Treasure Data has it",
    "split": "its two halves are chunks of their own",
    "replaced": "a span with edited rows has taken its place",
    "dropped": "an operator gave it up",
    "copy": "its first copy counts",
    "forgotten": "rows of persons who are forgotten: only their number is kept",
}
FINAL = frozenset({"delivered", "replaced", "dropped", "copy", "forgotten"})
HAS, ABSENT, PERSONS = "TD has it", "TD does not have it", "all of it is of forgotten persons"
REFUSED, NOT_TAKEN, NOTHING = "refused", "not taken", "nothing"
SURE = frozenset({REFUSED, NOT_TAKEN})  # an attempt with such an answer was not taken
ANSWERS = {  # exactly as documented, from the service that may give it: (to which call, what, what it proves)
    "imported": ("import", "200 with the MD5 of our bytes; 409 in Treasure Data's own error document", HAS),
    "refused": ("import", "400, 413, 422 or another final 4xx in Treasure Data's own error document", REFUSED),
    "not now": ("import", "401, 403, 404, 429 in Treasure Data's own error document", NOT_TAKEN),
    "unsent": ("import", "no connection at all", NOT_TAKEN),
    "counted": ("query", "a count equal to the number of rows asked for (between 0 and it proves nothing): one line, one array, one integer; job status `success`, `num_records` 1", HAS),
    "counted none": ("query", "a count of 0 in that shape; the job started 70 minutes into the doubt, and the table shows our columns or the count is of all rows of these seconds", ABSENT),
    "gone": ("listing", "Treasure Data's own 404, then a listing from that host, 70 minutes into the doubt, without the name", ABSENT),
    "persons": ("S3", "the chunk's bytes, 70 minutes into the doubt: all of its rows are of persons who are forgotten", PERSONS),
    "too large": ("import", "a proxy's 413, which concerns this chunk alone", NOTHING),
    "unknown": ("any", "anything else: 5xx, a proxy's page, another MD5, no answer", NOTHING),
}
RULES = {
    "object before append": "A span with chunks is appended after S3 has acknowledged its object, with this index and these chunks.",
    "append once": "One conditional put appends a span; a place is taken once.",
    "append at the end": "A span follows the end of its chain. An edit or a forced replay has a chain of its own.",
    "latest arrival": "An item keeps the latest stamp of its chain so far.",
    "member by index": "A record is in one span, by the numbers in the index.",
    "claim": "A record that carries a claim counts only if it owns it.",
    "claim late ones": "A record that arrived later than LATE counts only with a claim, and its index says so.",
    "replay in gaps": "A replay appends only in gaps, of a closed shard once its chain is ended.",
    "claim in gaps": "A record in a gap counts only with a claim.",
    "claim with append": "In a gap, and to take a claim over, the claim is written in the transaction that appends.",
    "take over": "A claim is taken over only from a record that its chain has passed over, or whose shard a whole listing lacks.",
    "refuse for an owner": "A record does not count only if another one owns its claim.",
    "free what was passed over": "A record does not stay uncounted for an owner that its chain had passed over: it takes the claim over.",
    "look up": "Rows that were put again are chunks in state `again`, whose fate a sender decides.",
    "one chunk an envelope": "Rows of two requests that were put again do not share a chunk.",
    "forced by span": "A forced replay appends one span for each original and tag.",
    "tag keeps range": "A tag stands for the range of its first use.",
    "plan before moving on": "The stream moves on only past records that are in a span.",
    "settle by version": "A write requires the version that its writer read.",
    "first write settles": "The first write after the append names every chunk that is not delivered, and settles the span.",
    "leave to the worker": "Nobody else writes while the worker that appended the span may still be at work.",
    "known transitions": "A chunk changes only as the table of transitions says.",
    "only proof delivers": "Treasure Data has a chunk only if the writer was told so. One that is all of forgotten persons counts as delivered where others are asked about: a search then deletes what is there.",
    "own clearing": "What is in doubt is refused or split only by its opener, on its own version, every attempt surely rejected; or once absence is proved.",
    "untried by version": "A doubt is cleared only by its opener, on its own version, every attempt surely rejected or not sent; or once absence is proved.",
    "halve": "Only a chunk of two rows or more is split. Its halves wait without doubt.",
    "ask": "A new generation, which is a new id, needs proof of absence, 70 minutes into the doubt or later, unless UNASKABLE_DOUBT=send or an operator has it sent without proof. Of a copy that was never sent, Treasure Data proves nothing while an index does.",
    "doubt keeps database": "While a chunk waits, a doubt keeps its start, its generation, and its database, unless that is proved to lack it; of a dead one, the account's current database is asked, too.",
    "drop without doubt": "Only what has no doubt is dropped, edited or sent elsewhere; dropped also what is dead and gone, so that nobody can ask.",
    "replace at once": "One transaction, or one write, adds the rows that take its place and gives up the old chunk.",
    "cut without doubt": "Only a chunk without doubt, and not in state `again`, is cut anew.",
    "cut under a new name": "The rows that stay of a chunk that is cut anew have a name that no chunk of the span has had.",
    "cut only persons": "What is cut anew stays in its state, row for row, or is forgotten.",
    "gone is not absent": "An object or index that is proved deleted shows nothing: what was in doubt, or again, stays in doubt.",
    "rewrite keeps what waits": "An object that is written anew has every chunk that is not final, and all of the index.",
    "whole listing": "To decide, the sender has a listing whose open shards cover every hash key, made after T + MARGIN.",
    "all shards": "Every shard must have passed T, parents of listed shards too.",
    "until copies claim": "T is received + LATE, the time from which a copy must claim.",
    "margin": "A stamp shows that a shard has passed T only if it is after T + MARGIN.",
    "close": "A closed shard has passed only once its chain is ended; only a closed shard's chain is.",
    "look after passing": "The indexes decide: a first copy that counts without a claim makes it `copy`, none `waiting`.",
    "fence before send": "A chunk is sent by who wrote its doubt, or wrote the item since, under that generation.",
    "look at the clock": "A chunk is sent only in the first 45 minutes of its doubt, which begins no later than the first send.",
    "same bytes": "A chunk is always sent as the same bytes: those that its object was stored with.",
    "probe first": "After a failure, an instance sends no rows to a database until a probe without rows succeeded.",
    "hold a restored ledger": "From a restore to the repair nobody claims, appends, writes or sends.",
    "repair by objects": "A repair gives each record whose object is there its span and its claim again, and puts in doubt whatever Treasure Data may have.",
    "new id after a repair": "What a repair put in doubt is never sent under that id: nobody knows when the doubt really began.",
    "delete by ledger": "The sweep deletes an object if all its chunks are final, or if no item has named it for a day.",
    "index outlives rows": "An index stays for the stream's retention and 14 days.",
}
# fmt: on


@dataclass(frozen=True)
class Event:
    """Something that a service saw. EVENTS says which fields an event uses."""

    what: str
    at: float  # the true time
    by: str  # the invocation, as "instance/invocation"; a replay's instance begins with "replay"
    name: str = ""
    digest: str = ""
    place: Place = NOWHERE
    key: str = ""  # of a chunk: its name, or with "/0" and "/1" a half's
    version: int = 0
    changes: tuple[tuple[str, Entry], ...] = ()
    done: bool = True
    item: Item = Item(NOWHERE)
    claims: tuple[tuple[str, Owner], ...] = ()
    records: tuple[Record, ...] = ()
    chunks: tuple[tuple[str, int, str], ...] = ()
    call: int = 0  # a number for each import
    generation: int = 0
    database: str | None = None
    answer: str = ""
    started: float = 0
    until: float = 0
    shards: tuple[Shard, ...] = ()
    numbers: tuple[int, ...] = ()
    removed: tuple[str, ...] = ()
    added: tuple[Chunk, ...] = ()
    items: tuple[Item, ...] = ()
    tags: tuple[tuple[str, float, float], ...] = ()


def form(entry: Entry) -> str:
    """Return the entry's state, but "doubt" for a waiting chunk in doubt, "dead, doubt" and "again, doubt" for others."""
    if entry.state == "waiting":
        return "waiting" if entry.since is None else "doubt"
    if entry.state == "again" and entry.since is not None:
        return "again, doubt"
    return "dead, doubt" if entry.may_be_there else entry.state


def entry_of(item: Item, key: str) -> Entry:
    """Return a chunk's entry. Without one it is delivered, or before the first settlement as it was appended."""
    if (found := item.by_key.get(key)) is not None or item.done:
        return found or Entry("delivered")
    chunk = item.by_name[key]
    if chunk.request or not chunk.sendable:
        return Entry("again" if chunk.request else "dead")
    return Entry("waiting", None if chunk.database is None else item.planned_at, 0, chunk.database)


def halves(key: str) -> tuple[str, str]:
    """Return the keys of a split chunk's halves."""
    return f"{key}/0", f"{key}/1"


def rows_of(item: Item, key: str) -> int:
    """Return how many rows a chunk or a half has. The second half has the odd row."""
    name, *path = key.split("/")
    rows = item.by_name[name].rows
    for half in path:
        rows = rows // 2 if half == "0" else rows - rows // 2
    return rows


def keys_of(item: Item, *, split: bool = False) -> list[str]:
    """Return the keys of a span's chunks: of split ones their halves, with `split` also themselves."""
    found = [chunk.name for chunk in item.chunks]
    for key in found:
        found += halves(key) if entry_of(item, key).state == "split" else ()
    return [key for key in found if split or entry_of(item, key).state != "split"]


def changed(item: Item, event: Event) -> Item:
    """Return an item after a write."""
    kept = {key: entry for key, entry in item.by_key.items() if key.split("/")[0] not in event.removed}
    chunks = tuple(one for one in item.chunks if one.name not in event.removed) + event.added
    entries = tuple((kept | dict(event.changes)).items())
    new = replace(item, version=item.version + 1, done=event.done, entries=entries, chunks=chunks)
    return replace(new, object=event.name, digest=event.digest) if event.name else new


class Change(NamedTuple):
    """What the condition of a transition looks at."""

    old: Entry
    new: Entry
    rows: int
    own: bool  # the writer opened this doubt, and all writes since are its own
    attempts: frozenset[str]  # what the answers to all imports of this generation prove
    told: frozenset[str]  # what the writer's own answers prove
    decision: str  # what the indexes make of rows put again and never sent: a state, or the rule that forbids to decide
    with_span: bool  # it adds the other rows, too: a transaction that appends a span, or a write with chunks
    gone: bool  # the object, or for rows put again some index, is deleted


def _sure(it: Change) -> bool:
    return it.old.since is None or ABSENT in it.told or (it.own and it.attempts <= SURE)


# fmt: off
CONDITIONS: dict[str, Callable[[Change], bool]] = {
    "only proof delivers": lambda it: bool({HAS, PERSONS} & it.told),
    "untried by version": _sure,
    "own clearing": lambda it: _sure(it) and (it.old.since is None or it.new.state == "dead" or bool({REFUSED, ABSENT} & it.told)),
    "halve": lambda it: it.rows > 1,
    "ask": lambda it: ABSENT in it.told and it.new.generation > it.old.generation and it.decision in {"", "waiting", "gone is not absent"},
    "look after passing": lambda it: it.decision == it.new.state,
    "gone is not absent": lambda it: it.gone,
    "replace at once": lambda it: it.with_span,
}
TRANSITIONS = (  # name, forms before, forms after, what happens, rules
    ("plan", ("",), ("doubt", "waiting", "again", "dead"), "A span is appended: `doubt` where a database is known", ("object before append",)),
    ("open", ("waiting",), ("doubt",), "A sender is about to send it", ("settle by version",)),
    ("deliver", ("waiting", "doubt"), ("delivered",), "Treasure Data has it", ("only proof delivers",)),
    ("clear", ("doubt",), ("waiting",), "It was not sent, or rejected for now", ("untried by version",)),
    ("refuse", ("waiting", "doubt"), ("dead",), "Treasure Data refuses it; or it surely has not got it, and its account does, or its object is gone", ("own clearing",)),
    ("split", ("doubt",), ("split",), "Treasure Data refuses its rows, or anybody its size", ("halve", "own clearing")),
    ("renew", ("doubt",), ("doubt", "waiting"), "Treasure Data does not have it: a new id, the account's current database", ("ask",)),
    ("take", ("again",), ("waiting",), "No first copy counts", ("look after passing",)),
    ("take up", ("dead, doubt", "again, doubt"), ("doubt",), "Likewise, if it was never sent, or a repair does not know; Treasure Data is asked then", ("look after passing",)),
    ("recognise", ("again", "again, doubt", "dead, doubt"), ("copy",), "The first copy counts", ("look after passing",)),
    ("find", ("dead, doubt",), ("delivered",), "Treasure Data has it", ("only proof delivers",)),
    ("lose", ("doubt", "again", "again, doubt"), ("dead, doubt",), "Its object, or an index that it needs, is gone", ("gone is not absent",)),
    ("drop", ("waiting", "dead"), ("dropped",), "An operator gives it up", ("drop without doubt",)),
    ("give up", ("dead, doubt",), ("dropped",), "The same: nobody can ask, because its object is gone", ("gone is not absent",)),
    ("replace", ("waiting", "dead"), ("replaced",), "An operator edits or repairs it; or as for `cut`", ("drop without doubt", "replace at once")),
    ("cut", ("delivered",), ("replaced",), "A person in it is forgotten, and another half is in doubt: chunks of other names have its other rows", ("replace at once",)),
    ("revive", ("dead",), ("waiting", "doubt"), "An operator sends it again, under a new id", ("drop without doubt",)),
    ("revive by name", ("dead, doubt",), ("waiting", "doubt"), "The same, after asking", ("ask",)),
)
# fmt: on


def transition_of(old: Entry, new: Entry) -> str:
    """Return the name of the transition between two entries, "" if there is none. Only a waiting or dead chunk has an id."""
    rises = old.state in {"waiting", "dead"} and new.state == "waiting" and old.generation != new.generation
    fits = (name for name, before, after, *_ in TRANSITIONS if form(old) in before and form(new) in after)
    return next((name for name in fits if rises == name.startswith(("renew", "revive"))), "")


def broken_by(it: Change) -> str:
    """Return the rule that a chunk's change breaks, "" if none."""
    old, new, name = form(it.old), form(it.new), transition_of(it.old, it.new)
    if not name and old == new:
        moves = ABSENT in it.told and it.old == replace(it.new, database=it.old.database)
        return "" if old != "doubt" or it.old == it.new or moves else "doubt keeps database"
    if not name:
        gives_up = "doubt" in old and new in {"dropped", "replaced"}
        return "drop without doubt" if gives_up else "known transitions"
    rules = next(row[4] for row in TRANSITIONS if row[0] == name)
    broken = next((rule for rule in rules if rule in CONDITIONS and not CONDITIONS[rule](it)), "")
    return it.decision if broken == "look after passing" and it.decision in RULES else broken


def must_claim(record: Record, chain: Chain, latest: float, times: Times) -> str:
    """Return the rule by which a record must own its claim to count, "" if none. `latest`: its chain's stamp before."""
    if not record.request or not chain.shard:
        return ""
    if chain.gap:
        return "claim in gaps"
    if max(record.arrival, latest) - record.received > times.late:
        return "claim late ones"
    return "claim" if record.claims else ""


def covers(shards: Iterable[Shard]) -> bool:
    """Return whether the open ones of these shards cover every hash key."""
    reach = 0
    for shard in sorted((one for one in shards if one.is_open), key=lambda one: one.low):
        reach = max(reach, shard.high + 1) if shard.low <= reach else reach
    return reach >= KEYS


def first_copy(request: str, records: Iterable[Record]) -> bool:
    """Return whether an index has a copy of a request that counts without having had to claim."""
    return any(one.request == request and one.counts and not one.claims and not one.again for one in records)


def undecided(received: float, shards: Mapping[str, tuple[float, bool, bool]], times: Times) -> str:
    """Return the rule by which rows put again must wait, "" if every shard has passed.

    Of each shard: the latest stamp in its chain, whether an empty last span has ended the chain, whether it is closed.
    """
    until, margin = received + times.late, times.margin
    for latest, is_ended, is_closed in shards.values():
        if not is_ended and latest <= until + margin:
            if latest > until:
                return "margin"
            if latest > received + margin:
                return "until copies claim"
            return "close" if is_closed else "all shards"
    return ""


def due(entry: Entry, now: float, times: Times) -> str:
    """Return a sender's next step for a chunk: "send", "wait", "ask", "decide", or "" if it is not the sender's."""
    if entry.state != "waiting":
        return "decide" if entry.state == "again" else ""
    age = 0 if entry.since is None else now - entry.since
    return "send" if age <= times.same_id else "ask" if age >= times.ask else "wait"


def fenced(entry: Entry, now: float, database: str) -> Entry:
    """Return what a sender writes before it sends. `database` is the account's current one; a doubt keeps its own."""
    return Entry("waiting", now, entry.generation, database) if entry.since is None else entry


def renewed(entry: Entry, now: float, database: str) -> Entry:
    """Return what a sender writes before it sends a chunk again whose absence is proved."""
    return Entry("waiting", now, entry.generation + 1, database)


def settled(entry: Entry, proof: str, *, own: bool, rows: int) -> Entry:
    """Return what is written after an import. `own`: by the doubt's opener, on its own version, all attempts SURE."""
    may_clear = own and proof in SURE and entry.since is not None
    if entry.state != "waiting" or (proof != HAS and not may_clear):
        return entry
    if proof == NOT_TAKEN:
        return replace(entry, since=None)
    return Entry("delivered" if proof == HAS else "split" if rows > 1 else "dead", None, entry.generation)
