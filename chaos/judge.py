"""Follow a run, event by event, and name the rules of the specification that each event breaks."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from copy import replace
from math import inf

from chaos.specification import (
    ANSWERS,
    END,
    FINAL,
    HAS,
    NOTHING,
    NOWHERE,
    SURE,
    Chain,
    Change,
    Chunk,
    Entry,
    Event,
    Item,
    Owner,
    Place,
    Record,
    Shard,
    Times,
    broken_by,
    changed,
    covers,
    entry_of,
    first_copy,
    form,
    keys_of,
    must_claim,
    rows_of,
    undecided,
)

type Verdict = tuple[str, bool]  # a rule, and whether it is broken

_NO_SPAN = Item(NOWHERE)
_HELD = {"claimed", "appended", "written", "sent", "tag bound"}
_NO_OBJECT = Event("object put", 0, "")


def judge(trace: Iterable[Event], times: Times | None = None) -> list[tuple[int, str]]:
    """Return what is wrong with a run: the position of each wrong event, and the rule that it breaks."""
    one = Judge(times)
    return [(position, rule) for position, event in enumerate(trace) for rule in one.see(event)]


class Judge:
    """Judges one run. `items` is the ledger as the events so far have left it."""

    def __init__(self, times: Times | None = None) -> None:
        self.times = times or Times()
        self.items: dict[Place, Item] = {}
        self._ends: dict[Chain, Item] = {}
        self._behind = defaultdict[Chain, list[Item]](list)  # the spans of each chain, as appended
        self._spans: dict[Owner, Place] = {}
        self._claims: dict[str, Owner] = {}
        self._first: defaultdict[str, set[Place]] = defaultdict(set)  # spans with a first copy of a request
        self._objects: dict[str, Event] = {}
        self._put_at: dict[str, float] = {}  # for the first time: an old version may be brought back later
        self._named: dict[str, tuple[Place, float]] = {}  # the item that names an object, since or until when
        self._purged: set[Place] = set()  # spans whose index is deleted
        self._writers: dict[Place, list[str]] = {}  # of each version
        self._repaired: dict[tuple[Place, str], int] = {}  # of what a repair put in doubt: the generation
        self._opened: dict[tuple[Place, str], int] = {}  # the version that opened a chunk's doubt
        self._fences: dict[tuple[str, Place, str], Entry] = {}  # a doubt as an invocation last wrote it
        # what each one proves
        self._imports = defaultdict[tuple[Place, str, int], dict[int, str]](dict)
        self._told: defaultdict[tuple[str, Place, str], set[tuple[str, int, float]]] = defaultdict(set)
        self._bodies: dict[tuple[Place, str], str] = {}
        self._failed: set[tuple[str, str | None]] = set()  # databases that failed, by instance
        # by invocation: its whole listings, and when it had each one last
        self._listed: defaultdict[str, dict[tuple[Shard, ...], float]] = defaultdict(dict)
        # since when it is known, and since when to be closed
        self._shards: dict[str, tuple[float, float]] = {}
        self._gone: set[str] = set()  # shards of deleted streams
        self.expired: set[str] = set()  # shards that the stream has no record of any more
        self._tags: dict[str, tuple[float, float]] = {}
        self._cut: set[str] = set()  # objects of spans that were cut anew
        self._names: dict[Place, set[str]] = {}  # that chunks of such spans have had
        self._is_restored = False

    def see(self, event: Event) -> list[str]:
        """Return the rules that an event breaks, and follow it as the service did."""
        step = {
            "object put": self._put,
            "object deleted": self._delete,
            "object lost": self._lose,
            "claimed": self._claim,
            "appended": self._append,
            "written": self._write,
            "sent": self._send,
            "answered": self._answer,
            "probed": self._probe,
            "listed": self._list,
            "acknowledged": self._acknowledge,
            "tag bound": self._bind,
            "stream deleted": self._forget,
            "shard expired": self._expire,
            "ledger restored": self._restore,
            "ledger repaired": self._repair,
        }[event.what]
        held = "hold a restored ledger", self._is_restored and event.what in _HELD
        return list(dict.fromkeys(rule for rule, is_broken in (held, *step(event)) if is_broken))

    def _put(self, event: Event) -> list[Verdict]:
        self._objects[event.name] = replace(event, at=self._put_at.setdefault(event.name, event.at))
        self._purged.discard(self._named.get(event.name, (NOWHERE, 0))[0])  # an old version was brought back
        return []

    def _delete(self, event: Event) -> list[Verdict]:
        put = self._objects.pop(event.name, event)
        place, since = self._named.get(event.name, (NOWHERE, put.at))
        item = self.items.get(place, _NO_SPAN)
        if item.object != event.name:
            # what was cut anew goes at once, and so does an object that nobody but its writer knows
            is_early = event.at < max(put.at, since) + self.times.orphan and put is not event
            is_allowed = event.name in self._cut or (place == NOWHERE and put.by == event.by)
            return [("delete by ledger", is_early and not is_allowed)]
        self._purged.add(place)
        waits = any(entry_of(item, key).state not in FINAL for key in keys_of(item))
        is_early = event.at < item.planned_at + self.times.index
        return [("delete by ledger", waits), ("index outlives rows", is_early and not waits)]

    def _lose(self, event: Event) -> list[Verdict]:
        self._objects.pop(event.name, None)
        self._purged.add(self._named.get(event.name, (NOWHERE, 0))[0])
        return []

    def _claim(self, event: Event) -> Iterator[Verdict]:
        for request, owner in event.claims:
            before = self._claims.get(request, owner)
            if before != owner:
                yield "claim with append", event.what == "claimed"
                yield "take over", not self._is_passed_over(before, event.by)
            self._claims[request] = owner

    def _is_passed_over(self, owner: Owner, by: str) -> bool:
        """Return whether a record is in no span, and its chain is past it or a whole listing lacks its shard."""
        seen = self._listed.get(by, ())
        listed = [{name for shard in shards for name in (shard.name, *shard.parents)} for shards in seen]
        is_behind = self._end(Chain(owner[0])).last >= owner[1]
        return owner not in self._spans and (is_behind or any(owner[0] not in names for names in listed))

    def _is_free(self, owner: Owner, at: float) -> bool:
        """Return whether a record was passed over before an invocation that is at work at this time began."""
        began, spans = at - self.times.invocation - self.times.clock, self._behind[Chain(owner[0])]
        is_lost = any(
            place.chain.shard == owner[0] and self.items[place].first <= owner[1] <= self.items[place].last
            for place in self._purged & self.items.keys()
        )  # so no index shows any more that it was passed over
        is_behind = any(item.last >= owner[1] and item.planned_at < began for item in reversed(spans))
        return is_behind and owner not in self._spans and not is_lost

    def _append(self, event: Event) -> Iterator[Verdict]:
        item, place, chain = event.item, event.item.place, event.item.place.chain
        before, put = self._end(chain), self._objects.get(item.object, _NO_OBJECT)
        forms = {form(entry_of(item, key)) for key in keys_of(item)}
        chunks = {(one.name, one.rows) for one in item.chunks}
        stored = {(name, rows) for name, rows, _ in put.chunks}
        is_whole = (item.digest, item.numbers, chunks) == (put.digest, _numbers(put), stored)
        # an older listing may show a closed shard as open
        is_open = self._shards.get(chain.shard, (0.0, inf))[1] == inf
        members = {(chain.shard, number) for number in item.numbers if chain.shard}
        yield "object before append", bool(item.chunks) and not is_whole
        yield "append once", place in self.items
        yield "forced by span", bool(chain.tag and place.after)
        yield "tag keeps range", bool(chain.tag) and chain.tag not in self._tags
        follows = place.after == before.last and (not chain.shard or item.first > place.after)
        yield "append at the end", not follows and place not in self.items
        yield "replay in gaps", event.by.startswith("replay") and not chain.gap and item.first != END
        latest = max([before.latest, *(one.arrival for one in put.records)])
        is_latest = item.latest == latest if put.records else item.latest >= latest or item.first == END
        yield "latest arrival", not is_latest
        yield "look at the clock", item.planned_at > event.at + self.times.clock
        is_written = item.done or bool(item.entries)
        yield "known transitions", is_written and not forms <= {"waiting", "dead", "again"}
        yield "close", item.first == END and is_open and chain.shard not in self._gone
        yield "member by index", bool(members & self._spans.keys())
        self._ends[chain] = item
        self._behind[chain].append(item)
        yield from self._claim(event)  # a claim may move from one record of a gap's span to another
        self._spans |= dict.fromkeys(members, place)
        for record in put.records:
            yield from self._count(event, record, before.latest)
        self._read(place, put)
        if event.version:
            yield from self._write(event)
        self._follow(event, item)

    def _read(self, place: Place, put: Event) -> None:
        """Remember what the object of a span shows."""
        self._bodies |= {(place, name): digest for name, _, digest in put.chunks}
        for one in put.records if place.chain.shard else ():
            if first_copy(one.request, [one]):
                self._first[one.request].add(place)

    def _count(self, event: Event, record: Record, latest: float) -> Iterator[Verdict]:
        """Judge a record of a span that is appended."""
        chain, chunks = event.item.place.chain, {one.name: one for one in event.item.chunks}
        start, end = self._tags.get(chain.tag, (0, 0))
        yield "tag keeps range", bool(chain.tag) and not start <= record.arrival < end
        rule = must_claim(record, chain, latest, self.times)
        owner, me = self._claims.get(record.request), (chain.shard, record.number)
        if not record.counts:
            yield "refuse for an owner", owner in {None, me}
            is_young = event.at - record.arrival < self.times.damaged - self.times.clock
            is_free = owner is not None and is_young and self._is_free(owner, event.at)
            yield "free what was passed over", is_free
            return
        yield rule, bool(rule) and owner != me
        yield rule, rule == "claim late ones" and not record.claims
        is_apart = owner == me and record.request not in dict(event.claims)
        yield "claim with append", rule == "claim in gaps" and is_apart
        for chunk in (chunks[name] for name, _ in record.rows if name in chunks and chain.shard):
            yield "look up", record.again and not chunk.request
            yield "one chunk an envelope", chunk.request not in {"", record.request}

    def _write(self, event: Event) -> Iterator[Verdict]:
        item = self.items.get(event.place, replace(_NO_SPAN, place=event.place))
        new, had = changed(item, event), keys_of(item, split=True)
        if event.removed or event.added:
            yield from self._judge_cut(event, item, new)
        cut = {one.name for one in event.added}
        is_early = event.at < item.planned_at + self.times.invocation - self.times.clock
        yield "settle by version", event.version != item.version
        yield "first write settles", not event.done
        is_other = event.by != self._writers.get(item.place, [""])[0]
        yield "leave to the worker", not item.done and is_early and is_other
        yield "known transitions", not dict(event.changes).keys() <= set(keys_of(new, split=True))
        for key in keys_of(new, split=True):
            entry = entry_of(new, key)
            yield "look at the clock", (entry.since or 0) > event.at + self.times.clock
            if key in cut:
                continue
            if key not in had:
                yield "halve", form(entry) != "waiting"
            elif entry != entry_of(item, key):
                rule = broken_by(self._change(event, item, key, entry))
                yield rule, bool(rule)
        if event.name:
            put = self._objects.get(event.name, _NO_OBJECT)
            waits = {key.split("/")[0] for key in keys_of(new) if entry_of(new, key).state not in FINAL}
            kept = {name for name, *_ in put.chunks}
            is_whole = (event.digest, item.numbers) == (put.digest, _numbers(put)) and waits <= kept
            yield "rewrite keeps what waits", not is_whole
        self._follow(event, new)

    def _judge_cut(self, event: Event, item: Item, new: Item) -> Iterator[Verdict]:
        """Judge a write that gives a span other chunks."""
        put = self._objects.get(event.name, _NO_OBJECT)
        names = self._names.setdefault(item.place, {one.name for one in item.chunks})
        added = {one.name for one in event.added}
        yield "cut under a new name", bool(added & names)
        names |= added
        self._cut.add(item.object)
        self._bodies |= {(item.place, name): digest for name, _, digest in put.chunks if name in added}
        before, after = Counter[str](), Counter[str]()
        doubted, changes = False, dict(event.changes)
        for key in keys_of(item):
            entry = entry_of(item, key)
            gives_up = changes.get(key, entry) != entry and changes[key].state == "replaced"
            if key.split("/")[0] in event.removed or gives_up:
                doubted |= "doubt" in form(entry) or entry.state == "again"
                before[entry.state] += rows_of(item, key) if entry.state != "replaced" else 0
        for one in event.added:
            after[entry_of(new, one.name).state] += one.rows
        yield "cut without doubt", doubted
        gained = after["forgotten"] - before["forgotten"]
        is_same = all(after[one] == before[one] for one in ("dropped", "copy"))
        is_less = all(after[one] <= before[one] for one in ("waiting", "dead", "delivered"))
        is_whole = before.total() == after.total()
        yield "cut only persons", not (is_whole and is_same and is_less and gained >= 0)

    def _change(self, event: Event, item: Item, key: str, new: Entry) -> Change:
        old, place, by = entry_of(item, key), item.place, event.by
        name, is_lost = key.partition("/")[0], form(old) == "dead, doubt" and not old.database
        was_again = old.state == "again" or (is_lost and bool(item.by_name[name].request))
        asked = (old.since or 0) + self.times.ask - self.times.clock
        writers = self._writers[place][self._opened.get((place, key), 1) - 1 :]
        return Change(
            old,
            new,
            rows=rows_of(item, key),
            own=set(writers) == {by},
            attempts=frozenset(self._imports[place, key, old.generation].values()),
            told=frozenset(
                proof
                for proof, generation, started in self._told[by, place, key]
                if proof == HAS or (generation == old.generation and (proof in SURE or started >= asked))
            ),
            decision=self._decision(event, item, key, new) if was_again else "",
            with_span=event.what == "appended" or bool(event.added),
            gone=item.object not in self._objects or (was_again and bool(self._purged)),
        )

    def _decision(self, event: Event, item: Item, key: str, new: Entry) -> str:
        """Return what becomes of rows put again, or the rule by which they must wait."""
        chunk: Chunk = next(one for one in item.chunks if one.name == key)
        passes = chunk.received + self.times.late + self.times.margin
        rule = "whole listing"
        for listed, at in self._listed.get(event.by, {}).items():
            if rule and at + self.times.clock > passes:
                names = {name for one in listed for name in (one.name, *one.parents)}
                names |= {name for name in self._shards if self._may_have(name, passes, event.at)}
                shards = {
                    name: (end.latest, end.last == END, self._shards[name][1] < inf)
                    for name in sorted(names)
                    # nobody can ever have had a record of a shard that expired without a span
                    if (end := self._end(Chain(name))) is not _NO_SPAN or name not in self.expired
                }
                rule = undecided(chunk.received, shards, self.times)
        if rule:
            return rule
        first = self._first[chunk.request]
        is_seen = first - self._purged or new.state == "copy"  # its instance may have read the index before
        return ("copy" if is_seen else "gone is not absent") if first else "waiting"

    def _may_have(self, shard: str, passes: float, at: float) -> bool:
        """Return whether somebody may still append a record of a shard, although no listing shows it."""
        (since, closed), times = self._shards[shard], self.times
        return since <= passes and at <= closed + times.retention + times.invocation + times.clock

    def _follow(self, event: Event, item: Item) -> None:
        """Remember a new version of an item."""
        place, before = item.place, self.items.get(item.place, _NO_SPAN)
        if before.object != item.object:
            self._named |= dict.fromkeys((before.object, item.object), (place, event.at))
        self.items[place] = item
        self._writers.setdefault(place, []).append(event.by)
        for key in keys_of(item):
            entry, had = entry_of(item, key), key in keys_of(before)
            if form(entry) == "doubt":
                self._fences[event.by, place, key] = entry
                old = entry_of(before, key) if had else Entry("")
                if (form(old), old.generation) != ("doubt", entry.generation):
                    self._opened[place, key] = item.version

    def _send(self, event: Event) -> list[Verdict]:
        fence = self._fences.get((event.by, event.place, event.key), Entry(""))
        is_fenced = form(fence) == "doubt" and fence.generation == event.generation
        age, clock = event.at - (fence.since or 0), self.times.clock
        attempts = self._imports[event.place, event.key, event.generation]
        told = self._told[event.by, event.place, event.key]
        # its table was missing, or its key
        is_again = any(generation == event.generation for _, generation, _ in told)
        attempts[event.call] = NOTHING
        return [
            ("fence before send", not is_fenced),
            ("doubt keeps database", is_fenced and fence.database != event.database),
            ("new id after a repair", self._repaired.get((event.place, event.key), -1) >= event.generation),
            ("look at the clock", is_fenced and not -clock <= age <= self.times.same_id + clock),
            ("same bytes", self._bodies.setdefault((event.place, event.key), event.digest) != event.digest),
            ("probe first", (_instance(event), event.database) in self._failed and not is_again),
        ]

    def _answer(self, event: Event) -> list[Verdict]:
        proof, who = ANSWERS[event.answer][2], (_instance(event), event.database)
        self._told[event.by, event.place, event.key].add((proof, event.generation, event.started))
        if event.call:
            self._imports[event.place, event.key, event.generation][event.call] = proof
            if event.answer in {"unknown", "unsent"}:
                self._failed.add(who)
        return []

    def _probe(self, event: Event) -> list[Verdict]:
        if event.answer == "imported":
            self._failed.discard((_instance(event), event.database))
        return []

    def _list(self, event: Event) -> list[Verdict]:
        if covers(event.shards):
            self._listed[event.by][event.shards] = event.at
        for shard in event.shards:
            since, closed = self._shards.get(shard.name, (event.at, inf))
            self._shards[shard.name] = since, closed if shard.is_open else min(closed, event.at)
            for parent in shard.parents:
                known, closed = self._shards.get(parent, (since, inf))
                self._shards[parent] = known, min(closed, event.at)
        return []

    def _acknowledge(self, event: Event) -> list[Verdict]:
        missing = [number for number in event.numbers if (event.name, number) not in self._spans]
        return [("plan before moving on", bool(missing))]

    def _bind(self, event: Event) -> list[Verdict]:
        range_ = event.started, event.until
        return [("tag keeps range", self._tags.setdefault(event.name, range_) != range_)]

    def _forget(self, _event: Event) -> list[Verdict]:
        self._gone |= self._shards.keys()
        self._shards.clear()
        self._listed.clear()
        return []

    def _expire(self, event: Event) -> list[Verdict]:
        self.expired.add(event.name)
        since, _ = self._shards.get(event.name, (event.at, inf))
        self._shards[event.name] = since, -inf
        return []

    def _restore(self, _event: Event) -> list[Verdict]:
        self._is_restored = True
        return []

    def _repair(self, event: Event) -> list[Verdict]:
        """Judge what the ledger says after a repair, and go on from there."""
        kept = {owner for owner, place in self._spans.items() if self.items[place].object in self._objects}
        owned = {(one, owner) for one, owner in self._claims.items() if owner in kept}
        tried = {at[:2] for at, attempts in self._imports.items() if not set(attempts.values()) <= SURE}
        for each in (self._spans, self._ends, self._behind, self._bodies, self._opened, self._fences):
            each.clear()
        self._imports.clear()
        self._told.clear()
        self._is_restored, self._claims = False, dict(event.claims)
        self._tags = {name: (started, until) for name, started, until in event.tags}
        self._writers = {one.place: [event.by] * one.version for one in event.items}
        self.items = {item.place: item for item in event.items}
        entries = {(one.place, key): entry_of(one, key) for one in event.items for key in keys_of(one)}
        self._repaired = {at: entry.generation for at, entry in entries.items() if entry.since is not None}
        gone = [one for one in event.items if one.object not in self._objects]
        self._purged = {one.place for one in gone if one.object or one.place in self._purged}
        for places in self._first.values():
            places &= self._purged  # noqa: PLW2901 -- in place
        for item in sorted(event.items, key=lambda one: one.place.after):
            place = item.place
            self._ends[place.chain] = item
            self._behind[place.chain].append(item)
            self._named.setdefault(item.object, (place, event.at))
            self._spans |= {
                (place.chain.shard, number): place for number in item.numbers if place.chain.shard
            }
            self._read(place, self._objects.get(item.object, _NO_OBJECT))
        is_whole = kept <= self._spans.keys() and owned <= self._claims.items()
        return [("repair by objects", not is_whole or any(self._is_certain(*one) for one in tried))]

    def _is_certain(self, place: Place, key: str) -> bool:
        """Return whether a chunk, or a part of it, counts as not in Treasure Data."""
        item, (name, *_) = self.items.get(place, _NO_SPAN), key.split("/")
        keys = [one for one in keys_of(item) if one.partition("/")[0] == name]
        return any(form(entry_of(item, one)) in {"waiting", "dead", "again"} for one in keys)

    def _end(self, chain: Chain) -> Item:
        return self._ends.get(chain, _NO_SPAN)


def _numbers(put: Event) -> frozenset[int]:
    return frozenset(one.number for one in put.records)


def _instance(event: Event) -> str:
    return event.by.split("/", 1)[0].removeprefix("replay ")
