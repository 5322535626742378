"""Actors that forget a person, and the scenes in which they meet those that deliver.

The person is `p`: the rows that a chunk's name lists. What is left out is named by a rule of the specification or of RULES here.
"""

from collections.abc import Iterable, Iterator
from copy import replace
from functools import cache
from typing import NamedTuple

from chaos.specification import Chain, Chunk, Entry, Event, Item, Place, entry_of, form, keys_of
from chaos.specification_actors import (
    _DECIDER,
    _PASSED,
    _PUT_AGAIN,
    START,
    _delivered,
    _past,
    _planned,
    chunk,
    editor,
    forcer,
    operator,
    sender,
    worker,
)
from chaos.specification_explorer import Actor, Delete, Program, Read, Scene, World, names

PERSON = "p"
_HAVE_ROWS = frozenset({"waiting", "dead", "delivered"})
RULES = {
    "delete before cutting": "Rows that were delivered leave an object only once Treasure Data has deleted them.",
    "wait until it is shown": "A statement is believed to have found a row only some time after the row was delivered.",
    "ask for others": "Whether Treasure Data has a chunk in doubt is asked by rows of others, because a statement may have deleted the person's.",
    "search again": "A last search is made when nothing that was received before can still be on its way.",
}
"""Rules of forgetting that no single event breaks."""


@cache
def forgetter(place: Place, person: str = PERSON, *, is_last: bool = False) -> Actor:
    """A search of one span: delete in Treasure Data, put the new object, write the item, delete the old object."""

    def run(out: frozenset[str]) -> Program:
        if is_last and "search again" in out:
            return
        view: World = yield Read(objects=True)
        item = view.item(place)
        put = next((one for one in view.objects if item is not None and one.name == item.object), None)
        if item is None or put is None:
            return
        cuts = []
        for cut in _cuts(item, put, person, out):
            if cut.is_delivered and "delete before cutting" not in out:
                found_all = yield Delete((person,))
                if not found_all and "wait until it is shown" not in out:
                    continue
            cuts.append(cut)
        if cuts:
            new, write = _anew(item, put, cuts)
            if (yield new) and (yield write):
                # never the new one, if it lost: another search may have put the same, under the same name
                yield Event("object deleted", 0, "", name=item.object)

    return run


class Cut(NamedTuple):
    """A chunk to cut anew."""

    name: str
    is_delivered: bool  # a part of it was
    is_stuck: bool  # another part is in doubt
    added: tuple[Chunk, ...]
    changes: dict[str, Entry]


def _cuts(item: Item, put: Event, person: str, out: frozenset[str]) -> Iterator[Cut]:
    """Yield what can be cut of an item."""
    for name in (name for name, *_ in put.chunks if person in names(name)):
        keys = [key for key in keys_of(item) if key.split("/")[0] == name]
        moved = [key for key in keys if _may_cut(item, key, out)]
        is_stuck = moved != keys
        if not moved or (is_stuck and not any(person in names(key) for key in moved)):
            continue
        pieces = [_pieces(item, key, person, stuck=is_stuck) for key in moved]
        yield Cut(
            name,
            any(entry_of(item, key).state == "delivered" for key in moved),
            is_stuck,
            tuple(one for added, _ in pieces for one in added),
            {key: entry for _, changes in pieces for key, entry in changes.items()},
        )


def _anew(item: Item, put: Event, cuts: Iterable[Cut]) -> tuple[Event, Event]:
    """Return the put of the new object, and the write that names it."""
    removed = tuple(one.name for one in cuts if not one.is_stuck)
    added = tuple(chunk for one in cuts for chunk in one.added)
    changes = {key: entry for one in cuts for key, entry in one.changes.items()}
    chunks = (
        *(one for one in put.chunks if one[0] not in removed),
        *((one.name, one.rows, one.name) for one in added if changes[one.name].state in _HAVE_ROWS),
    )
    kept = {one[0] for one in chunks}
    records = tuple(
        replace(one, rows=tuple(row for row in one.rows if row[0] in kept)) for one in put.records
    )
    name = repr((item.place, chunks, "anew"))
    new = Event("object put", 0, "", name=name, digest=name, records=records, chunks=chunks)
    write = Event("written", 0, "", place=item.place, version=item.version, changes=tuple(changes.items()))
    return new, replace(write, name=name, digest=name, removed=removed, added=added)


def _may_cut(item: Item, key: str, out: frozenset[str]) -> bool:
    entry = entry_of(item, key)
    if not item.done and "leave to the worker" not in out:
        return False
    return entry.state != "again" and ("doubt" not in form(entry) or "cut without doubt" in out)


def _pieces(item: Item, key: str, person: str, *, stuck: bool) -> tuple[list[Chunk], dict[str, Entry]]:
    """Return the chunks that take the place of one, and all entries that change with it."""
    entry, changes = entry_of(item, key), {}
    if stuck:
        changes[key] = entry._replace(state="replaced")
    if entry.state in {"dropped", "copy"} and not stuck:
        counted = replace(chunk(names(key)), name=f"{'+'.join(names(key))}**")
        return [counted], changes | {counted.name: entry}
    if entry.state not in _HAVE_ROWS:
        return [], changes
    rest = [row for row in names(key) if row not in person]
    gone = [row for row in names(key) if row in person]
    found = []
    if rest:
        found.append(chunk(rest))
        changes[found[-1].name] = entry
    if gone:
        found.append(replace(chunk(gone), name=f"{chunk(gone).name}*"))
        changes[found[-1].name] = Entry("forgotten")
    return found, changes


def by_value(_out: frozenset[str]) -> Program:
    """Delete the person's rows in Treasure Data by a statement that looks for the value."""
    yield Delete((PERSON,))


def search(place: Place) -> Actor:
    """Return the last search of a span."""
    return forgetter(place, is_last=True)


def _dead(*chunks: str) -> tuple[Event, ...]:
    """Return a settled span whose chunks are dead."""
    put, item = _planned(*chunks, sendable=False)
    dead = tuple((one.name, Entry("dead")) for one in item.chunks)
    return _past(put, replace(item, done=True, entries=dead))


@cache
def search_for_q(place: Place) -> Actor:
    """Return the last search of a span for the person `q`."""
    return forgetter(place, "q", is_last=True)


_FORGET = forgetter(START)
_REPLAYED = forgetter(Place(Chain("", tag="f", source=str(START))))
_JUMPS = ((20, "d"), (80, "d"))
SCENES = (
    Scene("forget beside a worker and a sender", (worker("pq"), sender(START), _FORGET), sender, jumps=_JUMPS, faults=1, healers=(worker("pq"),), forgets=PERSON, last=search),
    Scene("forget beside a sender in doubt", (sender(START), _FORGET), sender, past=_past(*_planned("pq")), jumps=_JUMPS, faults=2, forgets=PERSON, last=search),
    Scene("delete by value, beside a sender in doubt", (sender(START), by_value), sender, past=_past(*_planned("pq")), jumps=((20, "d"), (20, "d")), faults=1, forgets=PERSON, last=search),
    Scene("forget what waits, beside a sender", (sender(START), _FORGET), sender, past=_past(*_planned("pq", database=None)), start=30, jumps=_JUMPS, faults=2, forgets=PERSON, last=search),
    Scene("forget twice, beside an operator", (_FORGET, forgetter(START, PERSON), operator(START, drops=False)), sender, past=_dead("pq"), start=30, forgets=PERSON, last=search),
    Scene("forget beside an edit", (editor(START), _FORGET), sender, past=_dead("pq"), start=30, forgets=PERSON, last=search),
    Scene("forget what was delivered, beside a forced replay", (forcer(START, "f", 0, 3), _FORGET, _REPLAYED), sender, past=_delivered("p", "q"), start=30, forgets=PERSON, last=search),
    Scene("forget what was put again", (_PASSED, _PUT_AGAIN, _DECIDER, forgetter(Place(Chain("t")), "q")), sender, rows="q", start=50, jumps=((20, "d"),), faults=0, healers=(_PASSED, _PUT_AGAIN, _DECIDER), forgets="q", last=search_for_q),
)  # fmt: skip  # a table
LEFT_OUT = (
    ("forget beside a worker and a sender", "settle by version"),
    ("forget twice, beside an operator", "settle by version"),
    ("forget beside an edit", "settle by version"),
    ("forget beside a sender in doubt", "cut without doubt"),
    ("forget what waits, beside a sender", "delete before cutting"),
    ("forget beside a sender in doubt", "wait until it is shown"),
    ("delete by value, beside a sender in doubt", "ask for others"),
    ("forget what was delivered, beside a forced replay", "search again"),
    ("forget beside an edit", "search again"),
)
"""Rules without which a scene breaks a promise."""
