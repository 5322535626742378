"""Actors that follow the specification, and the scenes in which `chaos.specification_explorer` lets them meet.

An actor reads like its part of the protocol. `out` names the rules of the specification that it leaves out, to show that they are missed.
"""

from collections.abc import Generator, Iterable
from copy import replace
from functools import cache
from typing import Any

from chaos.specification import (
    HAS,
    KEYS,
    NOT_TAKEN,
    NOTHING,
    Chain,
    Chunk,
    Entry,
    Event,
    Item,
    Place,
    Record,
    Shard,
    changed,
    due,
    entry_of,
    fenced,
    first_copy,
    halves,
    keys_of,
    must_claim,
    renewed,
    rows_of,
    settled,
    undecided,
)
from chaos.specification_explorer import TIMES, Actor, Ask, Call, Program, Read, Scene, World

type Plan = Generator[Call, Any, bool]

FAR = 10**9
SHARD = Chain("s")
START = Place(SHARD)
LISTING = (Shard("s", 0, KEYS // 2 - 1), Shard("t", KEYS // 2))


def chunk(rows: Iterable[str], database: str | None = None) -> Chunk:
    """Return a chunk of these rows."""
    listed = tuple(rows)
    return Chunk("+".join(listed), len(listed), database)


def stored(item: Item, records: tuple[Record, ...] = ()) -> tuple[Event, Item]:
    """Return the put of a span's object, and the item that names it."""
    chunks = tuple((one.name, one.rows, one.name) for one in item.chunks)
    name = repr((item.place, chunks, [one[:2] for one in records]))
    put = Event("object put", 0, "", name=name, digest=name, records=records, chunks=chunks)
    return put, replace(item, object=name, digest=name, numbers=frozenset(one.number for one in records))


def written(item: Item, changes: dict[str, Entry]) -> Event:
    """Return a write on the version that was read. The first one of a span names all of its chunks."""
    every = {} if item.done else {key: entry_of(item, key) for key in keys_of(item, split=True)}
    return Event(
        "written", 0, "", place=item.place, version=item.version, changes=tuple((every | changes).items())
    )


@cache
def sender(place: Place) -> Actor:
    """A sender's turn for a span: read, fence, send or ask, settle."""

    def run(out: frozenset[str]) -> Program:
        view: World = yield Read()
        item = view.item(place)
        if item is None or (not item.done and view.now < item.planned_at + TIMES.invocation):
            return
        changes, sends = {}, []
        for key in keys_of(item):
            entry = entry_of(item, key)
            step = due(entry, view.now, TIMES)
            if step == "ask" and "ask" not in out and (yield Ask(place, key, entry)):
                changes[key] = settled(entry, HAS, own=False, rows=0)
            elif step in {"ask", "send"}:
                new = (renewed if step == "ask" else fenced)(entry, view.now, view.database)
                changes[key] = new._replace(database=view.database) if "doubt keeps database" in out else new
                sends.append(key)
        write = written(item, changes)
        if changes and (yield write):
            opened = [key for key in sends if changes[key] != entry_of(item, key)]
            yield from attempts(changed(item, write), sends, opened, FAR, out)

    return run


def attempts(
    item: Item, sends: Iterable[str], opened: Iterable[str], until: float, out: frozenset[str]
) -> Program:
    """Send chunks whose doubt is written, and settle. `opened`: the doubts that this invocation opened."""
    proofs: dict[str, str] = {}
    for key in sends:
        entry = entry_of(item, key)
        limit = FAR if "look at the clock" in out else min(until, (entry.since or 0) + TIMES.same_id)
        sent = Event("sent", 0, "", place=item.place, key=key, generation=entry.generation, until=limit)
        failed = NOTHING in proofs.values()
        proofs[key] = NOT_TAKEN if failed else (yield replace(sent, database=entry.database))
    answer = False
    while answer is False:
        view: World = yield Read()
        now = view.item(item.place) or item
        changes = {}
        for key, proof in proofs.items():
            old, generation = entry_of(now, key), entry_of(item, key).generation
            rule = "untried by version" if proof == NOT_TAKEN else "own clearing"
            own = (key in opened and now.version == item.version) or rule in out
            new = settled(old, proof, own=own and old.generation == generation, rows=rows_of(now, key))
            if new != old:
                changes[key] = new
                if new.state == "split":
                    changes |= dict.fromkeys(halves(key), Entry("waiting", None, new.generation))
        if not changes and now.done:
            return
        answer = yield written(now, changes)


def worker(*chunks: str) -> Actor:
    """A worker that plans two records of these chunks as one span, sends at once, and settles."""

    def run(out: frozenset[str]) -> Program:
        view: World = yield Read()
        records = tuple(Record(number, number, f"r{number}") for number in (1, 2))
        cut = tuple(chunk(rows, view.database) for rows in chunks)
        put, item = stored(Item(START, 1, 2, view.now, chunks=cut, latest=2), records)
        if "object before append" not in out and not (yield put):
            return
        won = yield Event("appended", 0, "", item=item)
        if "object before append" in out:
            yield put
        if won is None:
            view = yield Read()
            won = view.item(START) == item
        if won:
            yield from attempts(item, keys_of(item), keys_of(item), item.planned_at + 5, out)

    return run


def planner(shard: str, *batches: tuple[Record, ...], replay: bool = False) -> Actor:
    """Plans batches of a shard: locate by the indexes, claim, store, append. What is in a span is done."""

    def run(out: frozenset[str]) -> Program:
        for batch in batches:
            todo = list(batch)
            while todo:
                view: World = yield Read()
                own = [item for item in view.ledger if item.place.chain.shard == shard]
                number, by_border = todo[0].number, "member by index" in out
                if any(number in it.numbers or (by_border and it.first <= number <= it.last) for it in own):
                    todo.pop(0)
                elif not (yield from _plan(view, shard, todo, replay=replay, out=out)):
                    return

    return run


def _plan(view: World, shard: str, todo: list[Record], *, replay: bool, out: frozenset[str]) -> Plan:
    """Append one span: at the end of the chain, or of one record in a gap. The answer is whether to go on."""
    own = [item for item in view.ledger if item.place.chain.shard == shard]
    chain = Chain(shard)
    if todo[0].number < max((item.last for item in own if item.place.chain == chain), default=0):
        chain, todo = Chain(shard, gap=str(todo[0].number)), todo[:1]
    elif replay:
        return False
    before = max(
        (item for item in own if item.place.chain == chain), key=lambda item: item.last, default=Item(START)
    )
    owners, mine, index = dict(view.claims), {}, []
    for record in todo:
        me = (shard, record.number)
        rule = must_claim(record, chain, before.latest, TIMES)
        if not rule or rule in out:
            owner = me
        elif rule == "claim in gaps" and "claim with append" not in out:
            owner = owners.setdefault(record.request, me)
        else:
            owner = yield Event("claimed", 0, "", claims=((record.request, me),))
            if owner is None:
                return False
        takes_over = owner != me and view.passed_over(owner) and "free what was passed over" not in out
        if takes_over or (owner == me and rule == "claim in gaps" and not {rule, "claim with append"} & out):
            owner = mine[record.request] = me
        index.append(record._replace(counts=owner == me, claims=record.claims or rule == "claim late ones"))
    cut = [
        Chunk(name, 1, None, one.request, one.received)
        if one.again and "look up" not in out
        else Chunk(name, 1, view.database)
        for one in index
        for name, _ in one.rows
        if one.counts
    ]
    first, last = todo[0].number, todo[-1].number
    latest = max(before.latest, *(one.arrival for one in todo), 0)
    item = Item(
        Place(chain, before.last), first, last, view.now, chunks=tuple(cut), done=not cut, latest=latest
    )
    if cut:
        put, item = stored(item, tuple(index))
        if not (yield put):
            return False
    item = replace(item, numbers=frozenset(one.number for one in todo))
    return (yield Event("appended", 0, "", item=item, claims=tuple(mine.items()))) is not None


def decider(place: Place) -> Actor:
    """A sender decides rows that were put again: every shard has passed, then the indexes are read."""

    def run(out: frozenset[str]) -> Program:
        early: World = yield Read(objects="look after passing" in out)
        item = early.item(place)
        again = [one for one in item.chunks if entry_of(item, one.name).state == "again"] if item else []
        if not item or not again or (not item.done and early.now < item.planned_at + TIMES.invocation):
            return
        yield Event("listed", 0, "", shards=LISTING)
        times = replace(TIMES, late=0) if "until copies claim" in out else TIMES
        for shard in [place.chain.shard] if "all shards" in out else [one.name for one in LISTING]:
            view: World = yield Read()
            latest = max((one.latest for one in view.ledger if one.place.chain == Chain(shard)), default=0)
            if undecided(again[0].received, {shard: (latest, False, False)}, times):
                return
        view = early if "look after passing" in out else (yield Read(objects=True))
        counts = any(first_copy(again[0].request, put.records) for put in view.objects)
        yield written(item, {again[0].name: Entry("copy" if counts else "waiting")})

    return run


def _planned(*chunks: str) -> tuple[Event, ...]:
    """Return a span that somebody planned and then left alone, of one record for each row."""
    where = [(row, rows) for rows in chunks for row in rows]
    records = tuple(Record(n, n, f"r{n}", rows=((rows, 1),)) for n, (_, rows) in enumerate(where, 1))
    cut = tuple(chunk(rows, "d") for rows in chunks)
    put, item = stored(Item(START, 1, len(records), 0, chunks=cut, latest=len(records)), records)
    return tuple(replace(event, by="900/past") for event in (put, Event("appended", 0, "", item=item)))


_JUMPS = ((20, "e"), (80, "e"))  # a worker may be over; what was in doubt is no more remembered
_A, _B = (Record(number, number, f"r{number}", rows=((row, 1),)) for number, row in ((1, "p"), (3, "r")))
_COPIES = [Record(number, number, "q", claims=True, rows=(("q", 1),)) for number in (2, 4)]
_LIVE = planner("s", (_A, _B), (_COPIES[1],))
_REPLAY = planner("s", (Record(2, 2, "r2", rows=(("q", 1),)),), replay=True)
_AGAIN = Record(1, 10, "q", 0, claims=True, again=True, rows=(("q", 1),))
_MARKERS = [Record(number, arrival) for number, arrival in ((1, 13), (2, 34), (3, 40))]
_FIRST, _LATE = (Record(number, at, "q", 0, rows=(("q", 1),)) for number, at in ((2, 15), (3, 35)))
_PUT_AGAIN = planner("t", (_AGAIN, Record(2, 40)))
_PASSED = planner("s", (_MARKERS[0],), (_FIRST, _MARKERS[2]))
_PASSED_FIRST = planner("s", (_MARKERS[1],), (_LATE,))
_DECIDER = decider(Place(Chain("t")))
SCENES = (
    Scene("a worker and a sender", (worker("pq"), sender(START)), sender, jumps=_JUMPS, healers=(worker("pq"),)),
    Scene("two senders of two chunks", (sender(START), sender(START)), sender, past=_planned("p", "q"), jumps=_JUMPS, faults=1),
    Scene("two releases", (worker("pq"), worker("p", "q")), sender, healers=(worker("pq"),)),
    Scene("a gap, and copies of a request", (_LIVE, planner("s", (_COPIES[0],), replay=True)), sender, rows="pqr", healers=(_LIVE,)),
    Scene("a claim whose record was passed over", (planner("s", (_A, _COPIES[0])), _LIVE), sender, rows="pqr", healers=(_LIVE,)),
    Scene("a record that was passed over", (planner("s", (_A, _B)), _REPLAY), sender, rows="pqr", healers=(planner("s", (_A, _B)), _REPLAY)),
    Scene("put again, the first copy counts", (_PASSED, _PUT_AGAIN, _DECIDER), sender, rows="q", start=50, jumps=((20, "d"),), faults=1, healers=(_PASSED, _PUT_AGAIN, _DECIDER)),
    Scene("put again, the first copy is late", (_PASSED_FIRST, _PUT_AGAIN, _DECIDER), sender, rows="q", start=50, jumps=((20, "d"),), faults=1, healers=(_PASSED_FIRST, _PUT_AGAIN, _DECIDER)),
)  # fmt: skip  # a table
LEFT_OUT = tuple(
    (scene, rule)
    for scene, rules in {
        "a worker and a sender": ("append once", "own clearing", "settle by version", "untried by version", "look at the clock", "ask", "doubt keeps database"),
        "two releases": ("object before append",),
        "a gap, and copies of a request": ("claim", "claim in gaps", "claim with append"),
        "a claim whose record was passed over": ("free what was passed over",),
        "a record that was passed over": ("member by index",),
        "put again, the first copy counts": ("look up", "all shards", "until copies claim", "look after passing"),
        "put again, the first copy is late": ("claim late ones",),
    }.items()
    for rule in rules
)  # fmt: skip  # a table
"""Rules without which a scene breaks a promise."""
