"""The specification of the delivery protocol: its judge, its properties, and all interleavings of a few actors."""

import re
import sys
from copy import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaos import judge as judge_module
from chaos import specification
from chaos.judge import judge
from chaos.specification import (
    END,
    HAS,
    KEYS,
    REFUSED,
    RULES,
    Chain,
    Chunk,
    Entry,
    Event,
    Item,
    Place,
    Record,
    Shard,
    Times,
    covers,
    due,
    rows_of,
    settled,
)
from chaos.specification_actors import LEFT_OUT, SCENES
from chaos.specification_explorer import TIMES, Explorer, Scene

DAY, MINUTE = 86_400.0, 60.0
STANDARD = sys.stdlib_module_names
WORKER, SENDER, OTHER, OPERATOR = "w/1", "s/1", "t/1", "o/1"
S1, S2 = Chain("s1"), Chain("s2")
HERE = Place(S1)
RECORD = Record(1, 10, "r", 5, rows=(("a", 2),))
CHUNK = Chunk("a", 2, "db")
DEAD = Chunk("a", 2, sendable=False)
WAITING, DROPPED = Entry("waiting"), Entry("dropped")
BOTH = (Shard("s1", 0, KEYS // 2), Shard("s2", KEYS // 2))


def planned(
    place: Place = HERE,
    *records: Record,
    chunks: tuple[Chunk, ...] = (CHUNK,),
    at: float = 20,
    by: str = WORKER,
    **more: object,
) -> list[Event]:
    """Return the put of a span's object and the append of its item."""
    records = records or (RECORD,)
    numbers = [one.number for one in records]
    name = f"{place} {numbers}"
    stored = tuple((one.name, one.rows, f"bytes of {one.name}") for one in chunks)
    put = Event("object put", at, by, name, "d", records=records, chunks=stored)
    borders, latest = (numbers[0], numbers[-1]), max(one.arrival for one in records)
    item = Item(place, *borders, at, frozenset(numbers), chunks, latest, name, "d")
    return [put, Event("appended", at, by, item=replace(item, **more))]


def sent(at: float, by: str = WORKER, key: str = "a", call: int = 1, **more: object) -> Event:
    """Return an import that begins."""
    begun = Event("sent", at, by, place=HERE, key=key, call=call, database="db", digest=f"bytes of {key}")
    return replace(begun, **more)


def imported(at: float, by: str, answer: str, key: str = "a", call: int = 1, **more: object) -> list[Event]:
    """Return an import and its answer."""
    begun = sent(at, by, key, call, **more)
    return [begun, replace(begun, what="answered", answer=answer)]


def wrote(at: float, by: str, version: int, place: Place = HERE, **changes: Entry) -> Event:
    """Return a write. A half's key is `a_0` here."""
    entries = tuple((key.replace("_", "/"), entry) for key, entry in changes.items())
    return Event("written", at, by, place=place, version=version, changes=entries)


def asked(at: float, by: str, answer: str, generation: int = 0) -> Event:
    """Return the answer to a query that started at the same time."""
    return Event("answered", at, by, place=HERE, key="a", answer=answer, generation=generation, started=at)


def doubt(since: float, generation: int = 0, database: str = "db") -> Entry:
    """Return a chunk in doubt."""
    return Entry("waiting", since, generation, database)


def listed(at: float, by: str = SENDER, shards: tuple[Shard, ...] = BOTH) -> Event:
    """Return an answer of ListShards."""
    return Event("listed", at, by, shards=shards)


def claimed(number: int, by: str = WORKER, shard: str = "s1") -> Event:
    """Return a claim for the request `r`, inserted on its own."""
    return Event("claimed", 20, by, claims=(("r", (shard, number)),))


def marker(shard: Chain, number: int, arrival: float, after: int = 0) -> list[Event]:
    """Return the append of a span of one record without rows. It has no object."""
    bare = planned(Place(shard, after), Record(number, arrival), chunks=(), done=True, object="", digest="")
    return bare[1:]


AGAIN = Record(2, 1000, "r", 5, claims=True, again=True, rows=(("a", 2),))
AGAIN_CHUNK = Chunk("a", 2, None, "r", 5)
THERE = Place(S2)
PUT_AGAIN = [claimed(2, shard="s2"), *planned(THERE, AGAIN, chunks=(AGAIN_CHUNK,), at=1010)]
PASSED = [*marker(S1, 3, 1300), *marker(S2, 3, 1300, after=2)]
FIRST_COPY = planned(HERE, RECORD)
BEHIND_FIRST = [*marker(S1, 3, 1300, after=1), *marker(S2, 3, 1300, after=2)]
DEAD_COPY = [
    *PUT_AGAIN,
    Event("object lost", 1020, "x/1", PUT_AGAIN[1].name),
    wrote(1401, SENDER, 1, THERE, a=Entry("dead", may_be_there=True)),
    PUT_AGAIN[1],
    *marker(S2, 3, 1300, after=2),
]
DELIVERED = [*planned(), *imported(21, WORKER, "imported"), wrote(22, WORKER, 1)]
HALVED = wrote(22, WORKER, 1, a=Entry("split"), a_0=WAITING, a_1=WAITING)
SPLIT = [*planned(), *imported(21, WORKER, "refused"), HALVED]
EDITED = Place(Chain("", source="edit a"))
_NEW = {"chunks": (Chunk("b", 2),), "done": True, "entries": (("b", WAITING),)}
EDIT = planned(EDITED, replace(RECORD, number=0), at=300, by=OPERATOR, **_NEW)
REPLACES = replace(EDIT[1], place=HERE, version=1, changes=(("a", Entry("replaced")),))
FORCED = Place(Chain("", tag="f", source="s1 0"))
BOUND = Event("tag bound", 300, OPERATOR, "f", started=0, until=50)
GONE = Event("object lost", 30 * DAY, "sweep/1", planned()[0].name)

RESTORED, REPAIRED = Event("ledger restored", 30, OPERATOR), Event("ledger repaired", 5000, OPERATOR)
IN_DOUBT = replace(planned(done=True)[1].item, entries=(("a", doubt(2000)),))


def takes_over(place: Place, shard: str) -> list[Event]:
    """Return the put and the append of a record that takes a claim over."""
    put, append = planned(place, replace(RECORD, claims=True))
    return [put, replace(append, claims=(("r", (shard, 1)),))]


def cut(
    version: int,
    *added: Chunk,
    removed: tuple[str, ...] = ("a",),
    kept: tuple[str, ...] = (),
    **changes: Entry,
) -> list[Event]:
    """Return the put of an object without a person's rows, and the write that names it: chunks whose names end in f are forgotten."""
    chunks = [(one.name, one.rows, f"bytes of {one.name}") for one in added if not one.name.endswith("f")]
    old = [(name, 2, f"bytes of {name}") for name in kept]
    put = Event("object put", 700, SENDER, "cut", "d", records=(RECORD,), chunks=(*chunks, *old))
    of = {one.name: Entry("forgotten") for one in added if one.name.endswith("f")}
    write = wrote(700, SENDER, version, **of, **changes)
    return [put, replace(write, name="cut", digest="d", removed=removed, added=added)]


FORGOTTEN = cut(2, Chunk("b", 1), Chunk("cf", 1), b=Entry("delivered"))
GOOD = {
    "a worker plans, sends and settles": DELIVERED,
    "a worker is killed; a sender sends under the same id and is told that it was there": [
        *planned(), sent(21), wrote(600, SENDER, 1, a=doubt(20)), *imported(601, SENDER, "imported", call=2), wrote(602, SENDER, 2, a=Entry("delivered")),
    ],
    "an answer is lost; after 70 minutes a query proves absence; a new id": [
        *planned(), *imported(21, WORKER, "unknown"), wrote(22, WORKER, 1, a=doubt(20)), asked(4300, SENDER, "counted none"),
        wrote(4310, SENDER, 2, a=doubt(4310, 1, "new")), *imported(4311, SENDER, "imported", generation=1, database="new", call=2), wrote(4312, SENDER, 3, a=Entry("delivered")),
    ],
    "rows are refused: halves; one is delivered, one dead, revived and then dropped": [
        *SPLIT, wrote(100, SENDER, 2, a_0=doubt(100), a_1=doubt(100)), *imported(101, SENDER, "imported", "a/0"), *imported(101, SENDER, "refused", "a/1", 2),
        wrote(102, SENDER, 3, a_0=Entry("delivered"), a_1=Entry("dead")), wrote(900, OPERATOR, 4, a_1=Entry("waiting", None, 1)), wrote(950, OPERATOR, 5, a_1=DROPPED),
    ],
    "a dead chunk is edited": [*planned(chunks=(DEAD,)), EDIT[0], REPLACES],
    "rows put again: a first copy counts": [*FIRST_COPY, *PUT_AGAIN, *BEHIND_FIRST, listed(1400), wrote(1401, SENDER, 1, THERE, a=Entry("copy"))],
    "rows put again have died, and their object is back: the first copy counts": [*FIRST_COPY, *DEAD_COPY, *BEHIND_FIRST[:1], listed(6000), wrote(6001, SENDER, 2, THERE, a=Entry("copy"))],
    "rows put again have died, and their object is back: no first copy counts": [*DEAD_COPY, *PASSED[:1], listed(6000), wrote(6001, SENDER, 2, THERE, a=doubt(1401, database=""))],
    "rows put again: no first copy; one shard was closed": [
        *PUT_AGAIN, *marker(S2, 3, 1300, after=2), listed(1400, shards=(Shard("s2", parents=("s1",)),)),
        Event("appended", 1401, SENDER, item=Item(Place(S1), END, END, 1401, done=True)), wrote(1402, SENDER, 1, THERE, a=WAITING),
    ],
    "a database fails: the worker leaves its chunk, a probe opens it": [
        *planned(), *imported(21, WORKER, "unsent"), wrote(22, WORKER, 1, a=WAITING), Event("probed", 300, SENDER, database="db", answer="unknown"),
        Event("probed", 360, SENDER, database="db", answer="imported"), wrote(361, SENDER, 2, a=doubt(361)), *imported(362, SENDER, "imported", call=2), wrote(363, SENDER, 3, a=Entry("delivered")),
    ],
    "an operator drops what waits": [*planned(chunks=(Chunk("a", 2),)), wrote(600, OPERATOR, 1, a=DROPPED)],
    "the object of a chunk in doubt is gone; Treasure Data has it": [
        *planned(), GONE, wrote(31 * DAY, SENDER, 1, a=Entry("dead", may_be_there=True)), asked(32 * DAY, OPERATOR, "counted"), wrote(32 * DAY, OPERATOR, 2, a=Entry("delivered")),
    ],
    "the object of a chunk in doubt is gone; an operator asks": [
        *planned(), GONE, wrote(31 * DAY, SENDER, 1, a=Entry("dead", may_be_there=True)), asked(32 * DAY, OPERATOR, "counted none"), wrote(32 * DAY, OPERATOR, 2, a=Entry("waiting", None, 1)),
    ],
    "the object of a chunk in doubt is gone; an operator drops it": [
        *planned(), GONE, wrote(31 * DAY, SENDER, 1, a=Entry("dead", may_be_there=True)), wrote(32 * DAY, OPERATOR, 2, a=DROPPED),
    ],
    "a copy takes a claim over from a record that was passed over": [claimed(1), *marker(S1, 2, 10), *takes_over(THERE, "s2")],
    "a copy takes a claim over from a record whose shard is gone": [claimed(7, shard="s7"), listed(19, WORKER), *takes_over(HERE, "s1")],
    "a ledger is restored and repaired": [*planned(), sent(21), RESTORED, replace(REPAIRED, items=(IN_DOUBT,)), asked(6300, SENDER, "counted"), wrote(6301, SENDER, 1, a=Entry("delivered"))],
    "a person is forgotten in what was delivered, and the old object goes at once": [*DELIVERED, *FORGOTTEN, replace(GONE, what="object deleted", at=701, by=SENDER)],
    "an answer is lost; after 70 minutes all of the chunk is of persons": [*planned(), *imported(21, WORKER, "unknown"), asked(4300, SENDER, "persons"), wrote(4310, SENDER, 1)],
    "a person is forgotten in one half, while the other is in doubt": [
        *SPLIT, wrote(100, SENDER, 2, a_0=doubt(100), a_1=doubt(100)), *imported(101, SENDER, "imported", "a/1"), *imported(102, SENDER, "unknown", "a/0", 2),
        wrote(103, SENDER, 3, a_1=Entry("delivered")), *cut(4, Chunk("cf", 1), removed=(), kept=("a",), a_1=Entry("replaced")),
    ],
}  # fmt: skip  # one line a step or two


def again(*before: Event, **more: Entry) -> list[Event]:
    """Return a run that decides rows put again after these events."""
    return [*PUT_AGAIN, *before, wrote(1401, SENDER, 1, THERE, **(more or {"a": WAITING}))]


TAKEN_UP = wrote(600, SENDER, 1, a=doubt(20))
GAP = Place(Chain("s1", gap="1"))
WRONG = {
    "object before append": planned()[1:],
    "append once": [*planned(), planned(HERE, Record(2, 10), chunks=(), done=True)[0], replace(planned(HERE, Record(2, 10), chunks=(), done=True)[1])],
    "append at the end": [*planned(), *marker(S1, 3, 30, after=2)],
    "replay in gaps": [replace(one, by="replay 1") for one in planned()],
    "latest arrival": [planned()[0], planned(latest=9)[1]],
    "member by index": [*planned(), *planned(GAP, Record(1, 10), chunks=(), done=True)],
    "claim": planned(HERE, replace(RECORD, claims=True)),
    "claim late ones": planned(HERE, replace(RECORD, arrival=906)),
    "claim in gaps": [*marker(S1, 3, 9), planned(GAP)[0], replace(planned(GAP)[1], by=SENDER)],
    "claim with append": [*marker(S1, 3, 9), claimed(1), *planned(GAP)],
    "take over": [claimed(7, shard="s7"), *takes_over(HERE, "s1")],
    "refuse for an owner": planned(HERE, replace(RECORD, counts=False, rows=()), chunks=(), done=True),
    "free what was passed over": [
        claimed(1), *marker(S1, 2, 10), *planned(THERE, replace(RECORD, claims=True, counts=False), Record(2, 10, rows=(("a", 2),)), at=300),
    ],
    "look up": [claimed(2, shard="s2"), *planned(THERE, AGAIN, chunks=(CHUNK,))],
    "one chunk an envelope": [*PUT_AGAIN[:1], *planned(THERE, AGAIN, replace(RECORD, number=3, request="q"), chunks=(AGAIN_CHUNK,))],
    "forced by span": [BOUND, *planned(FORCED), *planned(replace(FORCED, after=1))],
    "tag keeps range": [BOUND, *planned(FORCED, replace(RECORD, arrival=60))],
    "plan before moving on": [*planned(), Event("acknowledged", 30, "k/1", "s1", numbers=(1, 2))],
    "settle by version": [*planned(), *imported(21, WORKER, "imported"), TAKEN_UP, wrote(602, WORKER, 1)],
    "first write settles": [*planned(), replace(wrote(22, WORKER, 1), done=False)],
    "leave to the worker": [*planned(), replace(TAKEN_UP, at=40)],
    "known transitions": [*DELIVERED, wrote(600, SENDER, 2, a=WAITING)],
    "only proof delivers": [*planned(), *imported(21, WORKER, "unknown"), wrote(22, WORKER, 1)],
    "own clearing": [*planned(), sent(21), TAKEN_UP, *imported(601, SENDER, "refused", call=2), wrote(602, SENDER, 2, a=Entry("dead"))],
    "untried by version": [*planned(), TAKEN_UP, *imported(601, SENDER, "unknown"), wrote(602, WORKER, 2, a=WAITING)],
    "halve": [*SPLIT[:-1], wrote(22, WORKER, 1, a=Entry("split"), a_0=WAITING, a_1=doubt(22))],
    "ask": [*planned(), asked(4100, SENDER, "counted none"), wrote(4300, SENDER, 1, a=doubt(4300, 1))],
    "doubt keeps database": [*planned(), replace(TAKEN_UP, changes=(("a", doubt(20, 0, "new")),))],
    "drop without doubt": [*planned(), wrote(600, OPERATOR, 1, a=DROPPED)],
    "replace at once": [*planned(chunks=(DEAD,)), wrote(600, OPERATOR, 1, a=Entry("replaced")), *EDIT],
    "cut without doubt": [*planned(), *cut(1, Chunk("b", 1), Chunk("cf", 1), b=WAITING)],
    "cut under a new name": [*DELIVERED, *cut(2, Chunk("a", 1), Chunk("cf", 1), a=Entry("delivered"))],
    "cut only persons": [*DELIVERED, *cut(2, Chunk("b", 1), b=Entry("delivered"))],
    "gone is not absent": [*planned(), wrote(600, SENDER, 1, a=Entry("dead", may_be_there=True))],
    "rewrite keeps what waits": [*planned(), replace(planned()[0], name="new", chunks=()), replace(TAKEN_UP, name="new", digest="d")],
    "whole listing": again(*PASSED, listed(1400, shards=BOTH[:1])),
    "all shards": again(*PASSED[2:], listed(1400)),
    "until copies claim": again(*marker(S1, 3, 306), *PASSED[2:], listed(1400)),
    "margin": again(*marker(S1, 3, 906), *PASSED[2:], listed(1400)),
    "close": again(*PASSED[2:], listed(1400, shards=(Shard("s2", parents=("s1",)),))),
    "look after passing": [*FIRST_COPY, *again(*BEHIND_FIRST, listed(1400))],
    "fence before send": [*planned(), sent(600, SENDER)],
    "look at the clock": [*planned(), sent(21 + 46 * MINUTE)],
    "same bytes": [*planned(), sent(21, digest="half of it")],
    "probe first": [*planned(chunks=(CHUNK, Chunk("b", 1, "db")), digest="d"), *imported(21, WORKER, "unknown"), sent(23, key="b", call=2)],
    "delete by ledger": [*planned(), replace(GONE, what="object deleted")],
    "hold a restored ledger": [*planned(), RESTORED, *imported(40, WORKER, "imported")],
    "repair by objects": [*planned(), REPAIRED],
    "new id after a repair": [*planned(), replace(REPAIRED, items=(replace(IN_DOUBT, entries=(("a", doubt(4000)),)),)), wrote(5001, SENDER, 1, a=doubt(4000)), sent(5002, SENDER)],
    "index outlives rows": [*DELIVERED, replace(GONE, what="object deleted", at=3 * DAY)],
}  # fmt: skip  # one line a rule

TWO = (CHUNK, Chunk("b", 1, "db"))
HALF_DONE = [
    *planned(chunks=TWO),
    *imported(21, WORKER, "imported"),
    *imported(21, WORKER, "refused", "b", 2),
    wrote(22, WORKER, 1, b=Entry("dead")),
]
ANEW = replace(planned(chunks=TWO)[0], name="new", chunks=(("b", 1, "bytes of b"),))
REWRITTEN = [*HALF_DONE, ANEW, replace(wrote(9 * DAY, "sweep/1", 2), name="new", digest="d")]
DELETED = replace(GONE, what="object deleted")
CLOSED = Event("appended", 1401, SENDER, item=Item(Place(S1), END, END, 1401, done=True))
UNCOUNTED, MORE = replace(RECORD, claims=True, counts=False, rows=()), Record(2, 10, rows=(("a", 2),))
ALSO_GOOD = {
    "a clock is 59 seconds slow": [*planned(), sent(20 + 45 * MINUTE + 59), asked(20 + 70 * MINUTE - 59, SENDER, "counted none"), wrote(5000, SENDER, 1, a=doubt(5000, 1))],
    "a clock is 59 seconds fast": [*planned(planned_at=79), wrote(140, SENDER, 1, a=doubt(79)), sent(140, SENDER)],
    "a copy does not count: its owner is in a span": [claimed(1), *planned(HERE, replace(RECORD, claims=True)), *planned(THERE, UNCOUNTED, MORE, at=900)],
    "a copy does not count: its owner may still be planned": [claimed(7), *marker(S1, 2, 10), *planned(THERE, UNCOUNTED, MORE, at=900)],
    "a copy does not count: its owner was passed over a moment ago": [claimed(1), *marker(S1, 2, 10), *planned(THERE, UNCOUNTED, MORE, at=190)],
    "the stream moves on past what is planned": [*planned(), Event("acknowledged", 30, "k/1", "s1", numbers=(1,))],
    "an object that no item names is deleted after a day": [planned()[0], replace(DELETED, at=20 + DAY)],
    "an object whose chunks are final is deleted after three weeks": [*DELIVERED, replace(DELETED, at=20 + 21 * DAY)],
    "an object is written anew without what is final, and the old one is deleted a day later": [*REWRITTEN, replace(DELETED, at=10 * DAY)],
    "an object is deleted twice": [DELETED, DELETED],
    "an account refuses what surely was not taken": [*planned(), *imported(21, WORKER, "not now"), wrote(22, WORKER, 1, a=Entry("dead"))],
    "a shard opens after T: it need not pass": [*again(*PASSED, listed(1400), listed(1402, OTHER, (*BOTH, Shard("s9"))))],
    "a first copy can be read in one index, another is gone": [*FIRST_COPY, *planned(Place(Chain("s4")), RECORD), Event("object lost", 30, "x/1", planned(Place(Chain("s4")), RECORD)[0].name), *again(*BEHIND_FIRST, listed(1400), a=Entry("copy"))],
}  # fmt: skip  # one line a run
WRONG_TOO = (
    ("claim with append", [claimed(1), *marker(S1, 2, 10), claimed(1, shard="s2")]),
    ("take over", [claimed(1), *planned(), *takes_over(THERE, "s2")]),
    ("look at the clock", planned(planned_at=90)),
    ("look at the clock", [*planned(chunks=(Chunk("a", 2),)), wrote(600, SENDER, 1, a=doubt(900))]),
    ("look at the clock", [*planned(planned_at=80), sent(19)]),
    ("known transitions", planned(done=True)),
    ("known transitions", planned(entries=(("a", doubt(20)),))),
    ("known transitions", [*planned(), wrote(22, WORKER, 1, a=doubt(20), b=DROPPED)]),
    ("append at the end", planned(Place(S1), Record(0, 10), chunks=(), done=True)),
    ("latest arrival", [*marker(S1, 1, 30), replace(marker(S1, 2, 40, after=1)[0], item=replace(marker(S1, 2, 40, after=1)[0].item, latest=29))]),
    ("close", [listed(1400), CLOSED]),
    ("claim late ones", [claimed(1), *planned(HERE, replace(RECORD, arrival=906))]),
    ("tag keeps range", [BOUND, *planned(FORCED, replace(RECORD, arrival=50))]),
    ("tag keeps range", [BOUND, replace(BOUND, until=60)]),
    ("tag keeps range", planned(FORCED, Record(0, 0, rows=(("a", 2),)), chunks=(CHUNK,))),
    ("doubt keeps database", [*planned(), sent(21, database="new")]),
    ("probe first", [*planned(chunks=TWO), *imported(21, WORKER, "unknown"), Event("probed", 22, WORKER, database="db", answer="unknown"), sent(23, key="b", call=2)]),
    ("delete by ledger", [planned()[0], replace(DELETED, at=DAY)]),
    ("delete by ledger", [*REWRITTEN, replace(DELETED, at=9.5 * DAY)]),
    ("rewrite keeps what waits", [*HALF_DONE, ANEW, replace(wrote(9 * DAY, "sweep/1", 2), name="new", digest="other")]),
    ("whole listing", again(*PASSED, listed(1140))),
    ("whole listing", again(*PASSED)),
    ("look after passing", [*FIRST_COPY, *DEAD_COPY, *BEHIND_FIRST[:1], listed(6000), wrote(6001, SENDER, 2, THERE, a=doubt(1401, database=""))]),
    ("ask", [*FIRST_COPY, *DEAD_COPY, *BEHIND_FIRST[:1], listed(6000), replace(asked(6000, SENDER, "counted none"), place=THERE), wrote(6001, SENDER, 2, THERE, a=Entry("waiting", None, 1))]),
    ("gone is not absent", [*FIRST_COPY, GONE, *again(*BEHIND_FIRST, listed(1400))]),
    ("gone is not absent", [*FIRST_COPY, *again(*BEHIND_FIRST, listed(1400), a=Entry("dead", may_be_there=True))]),
    ("all shards", again(*PASSED, listed(1000, OTHER, (*BOTH, Shard("s9"))), listed(1400))),
    ("leave to the worker", [*planned(), replace(TAKEN_UP, at=79)]),
    ("only proof delivers", [*planned(), asked(4100, SENDER, "persons"), wrote(4300, SENDER, 1)]),
    ("repair by objects", [claimed(1), *takes_over(HERE, "s1"), replace(REPAIRED, items=(IN_DOUBT,))]),
    ("repair by objects", [*planned(), sent(21), replace(REPAIRED, items=(replace(IN_DOUBT, entries=(("a", WAITING),)),))]),
    ("cut only persons", [*DELIVERED, *cut(2, Chunk("b", 1), Chunk("cf", 1), b=WAITING)]),
    ("cut under a new name", [*DELIVERED, *FORGOTTEN, *(replace(one, name="cut again") for one in cut(3, Chunk("a", 1), removed=("b",), a=Entry("delivered")))]),
    ("same bytes", [*planned(chunks=(Chunk("a", 2),)), *cut(1, Chunk("b", 1), Chunk("cf", 1), b=WAITING), wrote(701, SENDER, 2, b=doubt(701)), sent(702, SENDER, "b", digest="bytes of a")]),
    ("rewrite keeps what waits", [*planned(chunks=(Chunk("a", 2),)), *cut(1, Chunk("cf", 1), Chunk("d", 1), d=WAITING)[:1], replace(cut(1, Chunk("b", 1), Chunk("cf", 1), b=WAITING)[1])]),
)  # fmt: skip  # one line a run
GOOD |= ALSO_GOOD


@pytest.mark.parametrize("name", GOOD)
def test_judges_a_right_run_right(name: str) -> None:
    """A run that follows the protocol breaks no rule."""
    assert [] == judge(GOOD[name])


WRONG_RUNS = (*((rule, WRONG[rule]) for rule in RULES), *WRONG_TOO)


@pytest.mark.parametrize(("rule", "trace"), WRONG_RUNS, ids=[rule for rule, _ in WRONG_RUNS])
def test_names_the_rule_that_a_run_breaks(rule: str, trace: list[Event]) -> None:
    """For every rule, and every part of it, a run that breaks it alone is told so by that name alone."""
    assert {rule} == {name for _, name in judge(trace)}


@pytest.mark.parametrize("name", sorted(GOOD.keys() - ALSO_GOOD.keys()))
def test_a_write_or_an_answer_that_never_was_is_missed(name: str) -> None:
    """A right run is not right any more without the first event that a later one rests on."""
    trace = GOOD[name]
    needed = {"object put", "answered", "appended"}
    first = next(number for number, event in enumerate(trace) if event.what in needed)

    assert judge([*trace[:first], *trace[first + 1 :]])


def test_needs_nothing_but_the_standard_library() -> None:
    """The specification reads on its own, and its judge needs only it."""
    text = "\n".join(Path(one.__file__ or "").read_text() for one in (specification, judge_module))
    imported = re.findall(r"^\s*(?:from|import) ([\w.]+)", text, re.MULTILINE)

    assert {"chaos.specification"} == {one for one in imported if one.split(".")[0] not in STANDARD}


@given(st.lists(st.integers(1, KEYS - 1), unique=True, max_size=8), st.data())
def test_a_listing_covers_every_key_only_with_all_its_shards(cuts: list[int], data: st.DataObject) -> None:
    """A partition of the keys covers them, in any order, beside any closed shard; with a part left out it does not."""
    borders = [0, *sorted(cuts), KEYS]
    shards = [Shard(f"s{low}", low, high - 1) for low, high in pairwise(borders)]
    closed = Shard("old", is_open=False)
    missing = data.draw(st.sampled_from(shards))

    assert covers(data.draw(st.permutations([*shards, closed])))
    assert not covers([closed, *(shard for shard in shards if shard != missing)])


@given(st.floats(0, 10**6), st.floats(0, 100 * MINUTE))
def test_a_doubt_is_never_sent_after_it_may_be_asked_for(since: float, age: float) -> None:
    """The same id is sent up to minute 45, a query is sent from minute 70 on, and nothing in between."""
    step = due(doubt(since), since + age, Times())

    assert (step == "send") <= (age <= 45 * MINUTE + 1)
    assert (step == "ask") <= (age >= 70 * MINUTE - 1)
    assert step in {"send", "wait", "ask"}


def test_a_refusal_halves_rows_and_kills_a_single_one() -> None:
    """An odd row is in the second half. What does not wait any more stays as it is, also if Treasure Data has it."""
    item = Item(HERE, chunks=(Chunk("a", 5),))
    refused = [settled(doubt(5), REFUSED, own=True, rows=rows) for rows in (1, 2)]

    assert [Entry("dead"), Entry("split")] == refused
    assert [2, 3, 1, 2] == [rows_of(item, f"a/{half}") for half in ("0", "1", "1/0", "1/1")]
    assert DROPPED == settled(DROPPED, HAS, own=True, rows=2)


FAULTLESS = "put again, the first copy"  # 7,000 states, not 100,000
# what an actor reports or leaves out, no service sees
UNSEEN = {"member by index", "free what was passed over"}
SEEN_AS = {"all shards": "until copies claim", "claim with append": "claim in gaps"}  # what it leads to here

ALL_SCENES = {scene.name: scene for scene in SCENES}


@pytest.mark.parametrize("scene", ALL_SCENES.values(), ids=lambda scene: scene.name)
def test_no_interleaving_breaks_a_promise(scene: Scene) -> None:
    """With a fault at any point, every interleaving keeps the promises; the judge agrees with every hundredth."""
    faults = 0 if scene.name.startswith(FAULTLESS) else scene.faults
    explorer = Explorer(replace(scene, faults=faults), judge_every=100)

    assert (True, "", []) == (explorer.run() > 0, explorer.wrong, explorer.trace)


@pytest.mark.parametrize(("scene", "rule"), LEFT_OUT)
def test_a_rule_that_is_left_out_is_missed(scene: str, rule: str) -> None:
    """Without the rule an interleaving breaks a promise, and the judge says by its name why, if a service can see it."""
    explorer = Explorer(ALL_SCENES[scene], frozenset({rule}))
    explorer.run()
    named = {name for _, name in judge((*ALL_SCENES[scene].past, *explorer.trace), TIMES)}

    assert explorer.wrong
    assert rule in UNSEEN or SEEN_AS.get(rule, rule) in named
