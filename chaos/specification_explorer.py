"""Try every interleaving of a few actors that follow the specification, with an adversary, and check the promises.

An actor is a generator: it yields a call to a service and is sent the answer, so it reads like the protocol. Its state
is what it was answered so far. Between any two calls another actor may go on, be killed, a write or an import that was
thought to have failed may land, or the clock may jump. A call may also take effect without an answer. The adversary has
a budget of such faults; Treasure Data's rejections are free. In the end everything heals and senders finish what waits.
Then no row may be missing or doubled, the books must agree with Treasure Data, and nothing may be stuck.

States that were reached before are not explored again, so the number of interleavings is counted, not walked through.
"""

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from copy import replace
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from chaos.judge import judge
from chaos.specification import (
    HAS,
    NOT_TAKEN,
    NOTHING,
    REFUSED,
    Chain,
    Entry,
    Event,
    Item,
    Owner,
    Place,
    Times,
    changed,
    entry_of,
    keys_of,
)

TIMES = Times(invocation=15, same_id=45, ask=70, late=20, margin=12, clock=0)  # minutes
MEMORY, HEALED = 60, 90  # how long Treasure Data knows an id; how long it takes until all is well again


class Read(NamedTuple):
    """A consistent read of ledger and claims, the clock, the account's database. The answer is a `World` of these."""

    objects: bool = False  # read the objects too


class Ask(NamedTuple):
    """A query whether Treasure Data has a chunk's rows."""

    place: Place
    key: str
    entry: Entry


type Call = Event | Read | Ask
type Program = Generator[Call, Any]
type Actor = Callable[[frozenset[str]], Program]  # is told which rules to leave out


class World(NamedTuple):
    """All services, what is under way, what each actor was answered (None: it is over), and the adversary's means."""

    actors: tuple[tuple[Any, ...] | None, ...] = ()
    faults: int = 2
    jumps: tuple[tuple[int, str], ...] = ()  # minutes, and the account's database from then on
    now: float = 0
    database: str = "d"
    ledger: frozenset[Item] = frozenset()
    objects: frozenset[Event] = frozenset()
    claims: frozenset[tuple[str, Owner]] = frozenset()
    imports: frozenset[Event] = frozenset()  # what Treasure Data has taken
    late: frozenset[Event] = frozenset()  # calls that may still take effect

    def item(self, place: Place) -> Item | None:
        """Return the span at a place."""
        return next((item for item in self.ledger if item.place == place), None)

    def passed_over(self, owner: Owner) -> bool:
        """Return whether a record is in no span, and can be in none but a gap's."""
        shard, number = owner
        spans = [item for item in self.ledger if item.place.chain.shard == shard]
        is_behind = any(item.place.chain == Chain(shard) and item.last >= number for item in spans)
        return is_behind and not any(number in item.numbers for item in spans)


def names(key: str) -> tuple[str, ...]:
    """Return a chunk's rows. Its name lists them, so that the explorer can count them."""
    name, *path = key.split("/")
    rows = tuple(name.split("+"))
    for half in path:
        middle = (len(rows) + 1) // 2
        rows = rows[middle:] if half == "1" else rows[:middle]
    return rows


def land(world: World, event: Event, out: frozenset[str]) -> tuple[World, Any]:
    """Return the world after a call took effect, and its answer. A condition that fails has no effect."""
    match event.what:
        case "object put":
            return world._replace(objects=world.objects | {event}), True
        case "claimed":
            ((request, owner),) = event.claims
            found = dict(world.claims).get(request, owner)
            return world._replace(claims=world.claims | {(request, found)}), found
        case "sent":
            knows = any(_id(one) == _id(event) and world.now - one.at <= MEMORY for one in world.imports)
            taken = frozenset() if knows else {replace(event, at=world.now)}
            return world._replace(imports=world.imports | taken), HAS
        case "appended" | "written":
            return _write(world, event, out)
    return world, None


def _write(world: World, event: Event, out: frozenset[str]) -> tuple[World, bool]:
    """Carry out an append with its claims, or the change of an item."""
    items, claims = {one.place: one for one in world.ledger}, dict(world.claims)
    if event.what == "appended":
        if event.item.place in items and "append once" not in out:
            return world, False
        for request, owner in event.claims:
            before = claims.setdefault(request, owner)
            if before != owner and not world.passed_over(before):
                return world, False
            claims[request] = owner
        items[event.item.place] = event.item
    else:
        item = items[event.place]
        if item.version != event.version and "settle by version" not in out:
            return world, False
        items[event.place] = changed(item, event)
    return world._replace(ledger=frozenset(items.values()), claims=frozenset(claims.items())), True


def _id(event: Event) -> tuple[Place, str, int, str | None]:
    return event.place, event.key, event.generation, event.database


class Step(NamedTuple):
    """One way in which the run may go on: what it costs the adversary, the world, the answer, what services saw."""

    cost: int
    world: World
    answer: Any
    seen: tuple[Event, ...] = ()


def steps_of(world: World, call: Call, by: str, out: frozenset[str]) -> Iterator[Step]:
    """Yield all that a call may lead to, first what happens without trouble."""
    if isinstance(call, Read):
        view = World((), 0, (), world.now, world.database, world.ledger, claims=world.claims)
        yield Step(0, world, view._replace(objects=world.objects) if call.objects else view)
    elif isinstance(call, Ask):
        place, key, entry = call
        there = {(one.database, row) for one in world.imports for row in names(one.key)}
        has = {(entry.database, row) for row in names(key)} <= there
        told = Event("answered", world.now, by, place=place, key=key, generation=entry.generation)
        told = replace(told, answer="counted" if has else "counted none", started=world.now)
        yield Step(0, world, has, (told,))
    elif call.what == "sent":
        yield from _imports(world, replace(call, at=world.now, by=by), out)
    else:
        event = replace(call, at=world.now, by=by)
        new, answer = land(world, event, out)
        seen = (event,) if new != world or call.what == "listed" else ()
        yield Step(0, new, answer, seen)
        if call.what != "listed":
            yield Step(1, new, None, seen)
        if call.what in {"object put", "appended", "written"}:
            yield Step(1, world._replace(late=world.late | {event}), None)


def _imports(world: World, event: Event, out: frozenset[str]) -> Iterator[Step]:
    """Yield what may become of an import: the clock is looked at in the same moment."""
    item = world.item(event.place)
    if world.now > event.until or not any(item and one.name == item.object for one in world.objects):
        yield Step(0, world, NOT_TAKEN)
        return
    sent = replace(event, call=1 + int(event.by.split("/")[0]), until=0, digest=event.key)
    taken, _ = land(world, event, out)

    def told(answer: str) -> tuple[Event, ...]:
        return sent, replace(sent, what="answered", answer=answer)

    yield Step(0, taken, HAS, told("imported"))
    yield Step(0, world, REFUSED, told("refused"))
    yield Step(0, world, NOT_TAKEN, told("not now"))
    yield Step(1, taken, NOTHING, told("unknown"))
    yield Step(1, world._replace(late=world.late | {event}), NOTHING, told("unknown"))


@dataclass(frozen=True)
class Scene:
    """A small world: what there is, who acts, and who is run again and again once everything has healed."""

    name: str
    actors: tuple[Actor, ...]
    finish: Callable[[Place], Actor]  # what takes up a span in the end
    rows: str = "pq"  # what the ingest accepted, a letter each
    past: tuple[Event, ...] = ()
    start: float = 0
    faults: int = 2
    jumps: tuple[tuple[int, str], ...] = ()
    healers: tuple[Actor, ...] = ()

    def world(self) -> World:
        """Return how it begins."""
        world = World(faults=self.faults, jumps=self.jumps)
        for event in self.past:
            world, _ = land(world._replace(now=event.at), event, frozenset())
        return world._replace(now=self.start)


@dataclass
class Explorer:
    """Explores a scene. `out` are the rules that its actors leave out."""

    scene: Scene
    out: frozenset[str] = frozenset()
    judge_every: int = 0  # judge every n-th new ending's trace too
    wrong: str = ""
    trace: list[Event] = field(default_factory=list)  # of what is wrong
    _paths: dict[World, int] = field(default_factory=dict)
    _calls: dict[tuple[Actor, tuple[Any, ...]], Call | None] = field(default_factory=dict)

    def run(self) -> int:
        """Return how many interleavings there are. Stops at the first that breaks a promise: `wrong`, `trace`."""
        actors = tuple(self._answered(actor, ()) for actor in self.scene.actors)
        try:
            return self._explore(self.scene.world()._replace(actors=actors))
        except _BrokenError as error:
            self.wrong = str(error)
            return 0

    def _answered(self, actor: Actor, answers: tuple[Any, ...]) -> tuple[Any, ...] | None:
        return None if self._call(actor, answers) is None else answers

    def _call(self, actor: Actor, answers: tuple[Any, ...]) -> Call | None:
        """Return what an actor does next, by running it anew."""
        key = actor, answers
        if key not in self._calls:
            program = actor(self.out)
            try:
                call: Call | None = next(program)
                for answer in answers:
                    call = program.send(answer)
            except StopIteration:
                call = None
            self._calls[key] = call
        return self._calls[key]

    def _explore(self, world: World) -> int:
        if world in self._paths:
            return self._paths[world]
        length, found = len(self.trace), 0
        for new, seen in self._next(world):
            self.trace += seen
            found += self._explore(new)
            del self.trace[length:]
        if set(world.actors) <= {None} and not world.late:
            found = 1
            self._finish(world)
        self._paths[world] = found
        return found

    def _next(self, world: World) -> Iterator[tuple[World, tuple[Event, ...]]]:
        for number, (actor, answers) in enumerate(zip(self.scene.actors, world.actors, strict=True)):
            call = None if answers is None else self._call(actor, answers)
            if answers is None or call is None:
                continue
            for step in steps_of(world, call, f"{number}/actor", self.out):
                if step.cost <= world.faults:
                    after = self._answered(actor, (*answers, step.answer))
                    yield _with(step.world, number, after, step.cost), step.seen
            if world.faults:
                yield _with(world, number, None, 1), ()
        for event in sorted(world.late, key=repr):
            new, _ = land(world._replace(late=world.late - {event}), event, self.out)
            has_changed = new != world._replace(late=new.late) and event.what != "sent"
            yield new, (replace(event, at=world.now),) if has_changed else ()
        if world.jumps and not any(event.what == "sent" for event in world.late):
            (minutes, database), *rest = world.jumps
            yield world._replace(now=world.now + minutes, database=database, jumps=tuple(rest)), ()

    def _finish(self, world: World) -> None:
        """Let everything heal and senders finish, then look whether the promises hold."""
        world, length = world._replace(actors=(), faults=0), len(self.trace)
        for turn in range(4):
            world = world._replace(now=world.now + HEALED)
            spans = sorted((item.place for item in world.ledger), key=repr)
            healers = (*self.scene.healers, *map(self.scene.finish, spans))
            for number, actor in enumerate(healers):
                world = self._run(world, actor, f"{100 + turn * 20 + number}/healer")
        wrong = verdict(self.scene.rows, world)
        if not wrong and self.judge_every and len(self._paths) % self.judge_every == 0:
            wrong = ", ".join(rule for _, rule in judge((*self.scene.past, *self.trace), TIMES))
        if wrong:
            raise _BrokenError(wrong)
        del self.trace[length:]

    def _run(self, world: World, actor: Actor, by: str) -> World:
        """Let an actor run to its end without trouble."""
        answers: tuple[Any, ...] = ()
        while (call := self._call(actor, answers)) is not None:
            step = next(steps_of(world, call, by, self.out))
            world, answers = step.world, (*answers, step.answer)
            self.trace += step.seen
        return world


class _BrokenError(Exception):
    """Ends the exploration."""


def _with(world: World, number: int, answers: tuple[Any, ...] | None, cost: int) -> World:
    actors = (*world.actors[:number], answers, *world.actors[number + 1 :])
    return world._replace(actors=actors, faults=world.faults - cost)


def verdict(rows: Iterable[str], world: World) -> str:
    """Return the promise that is broken once nothing more happens, "" if none."""
    there = Counter(row for one in world.imports for row in names(one.key))
    states: dict[str, list[str]] = {row: [] for row in rows}
    for item in world.ledger:
        for key in keys_of(item):
            state = entry_of(item, key).state
            if state in {"waiting", "again"}:
                return "stuck"
            for row in names(key):
                states[row].append(state)
    for row, found in states.items():
        have = there[row] + found.count("dead")
        if have != 1:
            return "doubled" if have else "lost"
        if found.count("delivered") != there[row]:
            return "books"
    return ""
