"""A model of batch ids from the client to Treasure Data: ingest, overflow queue, drainer, claims, worker and redrive.

It uses none of the product's code. Each part is a process that takes one step at a time; between any two steps a schedule
may kill it, run another one, or let days pass. The schedule also decides what Kinesis and SQS may do: a put lands or not,
acknowledged or not, now or later; a message is delivered twice; an arrival time is wrong; an empty answer claims to be the
tip. Then everything heals and comes to rest, and each accepted event must be in Treasure Data once, or be kept as rejected
with the record that counts.

A schedule is a sequence of numbers, so schedules can be drawn at random or enumerated. Every rule can be switched off by name.
`python -m tests.models.claims_model 100000` runs that many schedules.
"""

import random
import sys
from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import partial
from operator import itemgetter

MINUTE, HOUR, DAY = 60, 3600, 86_400
RETENTION = 7 * DAY
LANDING = 2 * MINUTE
"""A put without a claim lands within this time, or never."""
HELD_AT_MOST = RETENTION // 2
CLOCKS_DIFFER = 15 * MINUTE
QUEUE_RETENTION = 14 * DAY
CLAIM_KEPT = 30 * DAY + RETENTION + QUEUE_RETENTION
LAST_COPY = 29 * DAY
"""Clients send no copies later than this after the first request."""


class Rule(Enum):
    """What the parts do so that nothing is lost or duplicated."""

    CLAIM = "rows of a claim count only for the record that owns it"
    PLAN_KEEPS = "the plan stores which records do not count, so claims are not read again"
    CLAIM_IS_KEPT = "a claim is remembered for longer than a copy can still be planned"
    TAKE_OVER = "a copy takes over the claim of a record that is gone and was never planned"
    TAKE_OVER_LATE = "no claim is taken over while its owner can still be planned"
    OVERFLOW_KEEPS = "no claim is taken over from an envelope that was set aside"
    ALL_EVENTS = "the request id covers all events, rejected ones too"
    BORDERS = "the borders of envelopes depend only on the events as sent"
    DEFINITE = "a put is called refused only if the stream definitely refused it"
    WAIT = "a doubtful put without a claim is left alone until it has landed or never will"
    SEARCH = "a doubtful put without a claim is searched for before it is repeated"
    STAMPS = "the search allows for wrong arrival times"
    SECOND_LOOK = "the search believes a shard's tip only when it has seen it twice"
    RESUME = "a search resumes where the last one stopped"
    PUT_CLAIMS = "everything that the drainer puts has a claim"
    NUMBER = "a put counts only if its answer has a sequence number"
    NEVER_PUT_OLD = "an envelope old enough to be set aside is never put"
    CLOCKS = "setting aside starts late enough for the runs' clocks to differ"
    CLAIM_ASIDE = "an envelope is claimed before it is set aside"
    OBJECT_FIRST = "a set-aside envelope's object is written before its span"
    DOUBT = "a set-aside envelope that may have landed without a claim is in doubt"
    SEARCHED = "its absence from Treasure Data is no reason to send it: it may still come from the stream"
    WAIT_FOR_SEARCH = "an envelope that needs a search is set aside only when no search can finish any more"


Name = tuple[str, ...]
"""An envelope's request id."""
Process = Iterator[None]
"""One invocation; it yields wherever others may run in between."""

STEPS = 10
"""The number of steps of a random schedule."""
_TROUBLE = 0.5  # the share of random choices that need not be the first


class Chooser:
    """Makes a schedule's choices: first those of a prefix, then random ones, or always the first.

    Attributes:
        choices: each choice, and the number of options it had.
    """

    def __init__(self, prefix: Sequence[int] = (), chance: random.Random | None = None) -> None:
        self._prefix = prefix
        self._chance = chance
        self.choices: list[tuple[int, int]] = []

    def __call__(self, count: int) -> int:
        """Return a number below `count`."""
        number = 0
        if len(self.choices) < len(self._prefix):
            number = self._prefix[len(self.choices)]
        elif self._chance is not None and self._chance.random() < _TROUBLE:
            number = self._chance.randrange(count)
        self.choices.append((number, count))
        return number


@dataclass(frozen=True)
class Envelope:
    """What a record or a message carries: rows of some events, and others that are kept as rejected."""

    name: Name
    claim: bool
    rows: frozenset[str]
    rejected: frozenset[str] = frozenset()


@dataclass(eq=False)
class Record:
    """An envelope on the stream. `counts` is the plan's decision, `behind` the record that counts instead."""

    shard: int
    number: int
    envelope: Envelope
    arrived: float
    is_stamp_wrong: bool = False
    is_gone: bool = False
    counts: bool | None = None
    behind: "Record | None" = None
    is_delivered: bool = False
    is_parked: bool = False

    @property
    def is_lost(self) -> bool:
        """Whether it, or the record that counts in its place, was lost with its stream."""
        return self.behind.is_lost if self.behind is not None else self.counts is None


@dataclass(eq=False)
class Message:
    """An envelope in the overflow queue."""

    envelope: Envelope
    is_refused: bool
    sent: float
    read: set[int] = field(default_factory=set)


@dataclass(eq=False)
class Aside:
    """The span of a set-aside envelope."""

    envelope: Envelope
    in_doubt: bool
    is_delivered: bool = False


@dataclass(eq=False)
class Copy:
    """One envelope of one accepted request, and its carriers."""

    envelope: Envelope
    carriers: list[Record | Message | Aside] = field(default_factory=list)


class World:
    """One schedule.

    Args:
        chooser: makes the schedule's choices.
        has_id: the client gives a batch id, and sends copies.
        without: rules to leave out.

    Attributes:
        trace: what happened, with the seconds since the start.
    """

    def __init__(self, chooser: Chooser, *, has_id: bool, without: Collection[Rule] = ()) -> None:
        self._chooser = chooser
        self._has_id = has_id
        self._without = without
        self._now = 0.0
        self._is_healed = False
        self._healed = float("inf")
        self._stream: list[Record] = []
        self._landings: list[tuple[float, Envelope, Copy | None]] = []
        self._queue: list[Message] = []
        self._claims: dict[Name, tuple[Record | Name, float]] = {}
        self._objects: set[Name] = set()
        self._asides: dict[Name, Aside] = {}
        self._copies: list[Copy] = []
        self._td: Counter[str] = Counter()
        self._misreplayed: set[int] = set()
        self._kept: set[str] = set()
        self._undecided: set[Name] = set()
        self._requests = 0
        self._processes: list[tuple[str, Process]] = []
        self.trace: list[str] = []

    def run(self, steps: int) -> list[str]:
        """Run this many steps, let everything come to rest, and return what is wrong then."""
        self._request()
        for _ in range(steps):
            self._step()
        self._rest()
        return self._verdict()

    def _has(self, rule: Rule) -> bool:
        return rule not in self._without

    def _choose(self, *choices: str) -> str:
        return choices[0] if self._is_healed else choices[self._chooser(len(choices))]

    def _note(self, text: str) -> None:
        self.trace.append(f"{self._now:9.0f} {text}")

    # The client and the ingest

    def _request(self) -> None:
        """Send the client's request or a copy of it, and put the ingest's envelopes."""
        self._requests += 1
        if not self._has_id:
            self._accept(Envelope(("request",), claim=False, rows=frozenset("a")))
            return
        surroundings = "same" if self._requests == 1 else self._choose("same", "other rules", "other address")
        rejected = frozenset("b" if surroundings == "other rules" else "")
        moved = surroundings == "other address" and not self._has(Rule.BORDERS)
        for border in ("a", "bc") if moved else ("ab", "c"):
            rows = frozenset(border) - rejected
            covered = border if self._has(Rule.ALL_EVENTS) else "".join(sorted(rows))
            self._accept(
                Envelope(("batch", covered), claim=True, rows=rows, rejected=frozenset(border) - rows)
            )

    def _accept(self, envelope: Envelope) -> None:
        copy = Copy(envelope)
        self._copies.append(copy)
        answer = self._put(envelope, copy)
        if answer != "acknowledged":
            message = Message(envelope, answer == "refused" or not self._has(Rule.DEFINITE), self._now)
            self._queue.append(message)
            copy.carriers.append(message)

    # The stream

    def _put(self, envelope: Envelope, copy: Copy | None = None) -> str:
        """Put an envelope; return what the caller believes: acknowledged, refused or doubtful."""
        fate = self._choose("acknowledged", "refused", "unacknowledged", "gone", "late", "no number")
        self._note(f"put of {envelope.name}, claim {envelope.claim}: {fate}")
        if fate in ("acknowledged", "unacknowledged"):
            self._land(envelope, copy)
        if fate == "late":  # nothing waits for a put with a claim, so it may land at any time
            after = 5 * DAY if envelope.claim else LANDING - 10
            self._landings.append((self._now + after, envelope, copy))
        if fate == "acknowledged" or (fate == "no number" and not self._has(Rule.NUMBER)):
            return "acknowledged"
        return "refused" if fate == "refused" else "doubtful"

    def _land(self, envelope: Envelope, copy: Copy | None) -> None:
        """Append a record to a shard."""
        shard = int(self._choose("0", "1"))
        stamp = self._choose("right", "wrong")
        record = Record(shard, len(self._stream), envelope, self._now, is_stamp_wrong=stamp == "wrong")
        self._stream.append(record)
        if copy is not None:
            copy.carriers.append(record)

    def _is_kept(self, record: Record) -> bool:
        return self._now - record.arrived <= RETENTION and not record.is_gone

    # Claims

    def _claim(self, name: Name, me: Record | Name) -> Record | Name:
        """Claim an envelope and return its owner."""
        kept = CLAIM_KEPT if self._has(Rule.CLAIM_IS_KEPT) else 3 * DAY
        owner, claimed = self._claims.get(name, (None, 0.0))
        if owner is None or self._now - claimed > kept:
            self._claims[name] = me, self._now
            return me
        return owner

    def _counts(self, record: Record) -> bool:
        """Return whether a record's rows count."""
        name = record.envelope.name
        if not record.envelope.claim or not self._has(Rule.CLAIM):
            return True
        owner = self._claim(name, record)
        if owner is record:
            return True
        if isinstance(owner, Record):
            takes_over = owner.counts is None and self._has(Rule.TAKE_OVER)
            if self._has(Rule.TAKE_OVER_LATE):
                takes_over &= owner.is_gone or self._now - self._claims[name][1] > RETENTION
        else:
            takes_over = name not in self._asides and not self._has(Rule.OVERFLOW_KEEPS)
        if takes_over:
            self._note(f"record {record.number} takes over {name}")
            self._claims[name] = record, self._now
        elif isinstance(owner, Record) and not owner.is_gone and record.counts is None:
            record.behind = owner
        return takes_over

    # The worker

    def _work(self, shard: int) -> Process:
        """Plan and deliver the records of a shard."""
        batch = [
            one for one in self._stream if one.shard == shard and one.counts is None and self._is_kept(one)
        ]
        counts = [self._counts(one) for one in batch]
        self._note(
            f"shard {shard}: "
            + ", ".join(f"{one.number} counts {yes}" for one, yes in zip(batch, counts, strict=True))
        )
        yield
        for one, yes in zip(batch, counts, strict=True):
            if one.counts is None:  # only one plan is written
                one.counts = yes
        yield
        for one in self._stream:
            if one.shard == shard and one.counts is not None and not one.is_delivered and not one.is_parked:
                one.is_parked = self._choose("sent", "parked") == "parked"
                if not one.is_parked:
                    self._send(one)

    def _send(self, record: Record) -> None:
        record.is_delivered = True
        if self._is_sent(record):
            self._deliver(record.envelope, f"record {record.number}")

    def _is_sent(self, record: Record) -> bool:
        """Return whether executing a plan sends a record's rows."""
        return bool(record.counts) if self._has(Rule.PLAN_KEEPS) else self._counts(record)

    def _replay(self) -> None:
        """Send delivered records by force, months later and the latest first."""
        self._now += 60 * DAY
        for one in reversed(self._stream):
            if one.is_delivered and self._is_sent(one) is not one.counts:
                self._misreplayed.add(one.number)

    def _deliver(self, envelope: Envelope, what: str) -> None:
        self._note(f"{what} delivered: {envelope.name}")
        self._td.update(envelope.rows)
        self._kept |= envelope.rejected

    # The drainer

    def _drain(self, message: Message, skew: float) -> Process:
        """Handle one delivery of a message, with a clock that may be minutes off where minutes matter."""
        age = self._now + skew - message.sent
        old = HELD_AT_MOST + (CLOCKS_DIFFER if self._has(Rule.CLOCKS) else 0)
        is_certain = message.envelope.claim or message.is_refused
        if not is_certain:
            if self._now - message.sent < LANDING and self._has(Rule.WAIT):
                return
            found = yield from self._search(message)
            if isinstance(found, Record):
                self._forget(message, found)
                return
            is_certain = found is False
        may_put = age < HELD_AT_MOST or not self._has(Rule.NEVER_PUT_OLD)
        if is_certain and may_put:
            claim = message.envelope.claim or self._has(Rule.PUT_CLAIMS)
            yield
            before = len(self._stream)
            if self._put(replace(message.envelope, claim=claim)) == "acknowledged":
                put = self._stream[before:]
                yield
                self._forget(message, *put)
                return
        if age >= old and (is_certain or not self._waits_for_search(message)):
            yield from self._set_aside(message, is_certain=is_certain)

    def _waits_for_search(self, message: Message) -> bool:
        """Return whether a search can still show whether the envelope is on the stream."""
        age = self._now - message.sent
        return self._has(Rule.WAIT_FOR_SEARCH) and age <= RETENTION - HOUR and age < QUEUE_RETENTION - DAY

    def _search(self, message: Message) -> Generator[None, None, Record | bool | None]:
        """Return the record that carries the envelope, False if there is none, or None if that is unknown."""
        if not self._has(Rule.SEARCH):
            return False
        if self._now - message.sent > RETENTION - HOUR:
            return None
        read = message.read if self._has(Rule.RESUME) else set[int]()
        for shard in {0, 1} - read:
            trouble = self._choose("none", "time is up", "wrong tip")
            if trouble == "time is up":
                return None
            seen = [
                one
                for one in self._stream
                if one.shard == shard
                and self._is_kept(one)
                and (not one.is_stamp_wrong or self._has(Rule.STAMPS))
                and (trouble != "wrong tip" or self._has(Rule.SECOND_LOOK))
            ]
            for one in seen:
                if one.envelope.name == message.envelope.name:
                    return one
            read.add(shard)
            if self._is_healed and shard == 0:
                return None  # even then a run has time for one shard only
            yield
        return False

    def _set_aside(self, message: Message, *, is_certain: bool) -> Process:
        """Claim an envelope, write its object, then its span. Each step may be repeated."""
        name = message.envelope.name
        owner = self._claim(name, name) if self._has(Rule.CLAIM_ASIDE) else name
        if isinstance(owner, Record):
            self._forget(message, owner)
            return
        self._note(f"{name} claimed to be set aside")
        yield
        if self._has(Rule.OBJECT_FIRST):
            self._objects.add(name)
            yield
        if name not in self._asides:
            self._note(f"{name} set aside, certain {is_certain}")
            self._asides[name] = Aside(message.envelope, in_doubt=not is_certain and self._has(Rule.DOUBT))
            if not is_certain and min(self._now, self._healed + DAY) - message.sent < RETENTION - HOUR:
                self._undecided.add(name)  # although the stream could be read
            yield
            self._objects.add(name)
        self._forget(message, self._asides[name])

    def _forget(self, message: Message, *carriers: Record | Aside) -> None:
        """Delete a message because, as far as the drainer knows, something else carries its envelope."""
        self._note(f"message of {message.envelope.name} deleted")
        if message in self._queue:
            self._queue.remove(message)
        for copy in self._copies:
            if message in copy.carriers and carriers:
                copy.carriers.remove(message)
                copy.carriers += carriers

    # The redrive

    def _redrive(self) -> None:
        """Send parked rows.

        Rows in doubt are settled if Treasure Data has them, and otherwise wait for a person.
        """
        for name, aside in self._asides.items():
            if aside.is_delivered or name not in self._objects:
                continue
            if aside.in_doubt and aside.envelope.rows <= self._td.keys():
                aside.is_delivered = True
            elif not aside.in_doubt or not self._has(Rule.SEARCHED):
                aside.is_delivered = True
                self._deliver(aside.envelope, "the set-aside envelope")
        for record in self._stream:
            if record.is_parked and not record.is_delivered:
                self._send(record)

    def _decide(self) -> None:
        """Act as a person who knows what the stream still brings, and send what is in doubt."""
        for name, aside in self._asides.items():
            records = [one for one in self._stream if one.envelope.name == name]
            if not aside.is_delivered and name in self._objects and not any(one.counts for one in records):
                aside.is_delivered = True
                self._deliver(aside.envelope, "the envelope a person sends")

    # The schedule

    def _step(self) -> None:
        """Do one thing."""
        actions: dict[str, Callable[[], None]] = {}
        for name, process in self._processes:
            actions[f"{name} goes on"] = partial(self._go_on, process)
        for number, message in enumerate(self._queue):
            actions[f"drain message {number}"] = partial(self._start_drain, message)
        for shard in (0, 1):
            actions[f"work on shard {shard}"] = partial(self._start, f"W{self._now:.0f}", self._work(shard))
        if self._has_id and self._requests < 3 and self._now < LAST_COPY:
            actions["copy"] = self._request
        for seconds in (LANDING, DAY, HELD_AT_MOST, RETENTION + HOUR, 20 * DAY):
            actions[f"wait {seconds} s"] = partial(self._wait, seconds)
        for name, process in self._processes:
            actions[f"{name} is killed"] = partial(self._end, process)
        actions["redrive"] = self._redrive
        actions["the stream is recreated"] = self._recreate
        chosen = self._choose(*actions)
        self._note(chosen)
        actions[chosen]()

    def _start_drain(self, message: Message) -> None:
        skew = {"right": 0, "behind": -600, "ahead": 600}[self._choose("right", "behind", "ahead")]
        self._start(f"D{len(self.trace)}", self._drain(message, skew))

    def _start(self, name: str, process: Process) -> None:
        self._processes.append((name, process))
        self._go_on(process)

    def _go_on(self, process: Process) -> None:
        if next(process, self) is self:
            self._end(process)

    def _end(self, process: Process) -> None:
        self._processes = [one for one in self._processes if one[1] is not process]

    def _recreate(self) -> None:
        """Recreate the stream, which loses every record that is not planned."""
        self._processes.clear()
        for one in self._stream:
            one.is_gone = one.counts is None

    def _wait(self, seconds: float) -> None:
        """Let time pass.

        No invocation lasts for hours, and stream and queue are emptied before anything expires.
        """
        if seconds >= HOUR:
            self._processes.clear()
        end = self._now + seconds
        while self._now < end:
            self._pass(min(end, self._now + 3 * DAY))

    def _pass(self, end: float) -> None:
        for landing in sorted(self._landings, key=itemgetter(0)):
            if landing[0] <= end:
                self._landings.remove(landing)
                self._now, envelope, copy = landing
                self._land(envelope, copy)
        if any(end - one.arrived > RETENTION for one in self._stream):
            self._work_off()
        if any(end - one.sent > QUEUE_RETENTION for one in self._queue):
            self._drain_off()
        self._now = end

    def _work_off(self) -> None:
        """Run workers until nothing is left to do."""
        for shard in (0, 1):
            _exhaust(self._work(shard))

    def _drain_off(self) -> None:
        """Run drainers, without failures, until they can do nothing more."""
        was_healed, self._is_healed = self._is_healed, True
        for _ in range(3):
            for message in list(self._queue):
                _exhaust(self._drain(message, 0))
        self._is_healed = was_healed

    def _rest(self) -> None:
        """Heal everything and let it come to rest."""
        self._note("everything heals")
        self._is_healed, self._healed = True, self._now
        self._processes.clear()
        for seconds in (LANDING, CLOCKS_DIFFER, DAY, 3 * DAY, 6 * DAY):
            self._drain_off()
            self._work_off()
            self._redrive()
            self._wait(seconds)
        self._work_off()
        self._redrive()
        self._decide()
        self._replay()

    def _verdict(self) -> list[str]:
        wrong = {f"{event} is duplicated" for event, count in self._td.items() if count > 1}
        for copy in self._copies:
            if not all(isinstance(one, Record) and one.is_lost for one in copy.carriers):
                wrong |= {f"{event} is lost" for event in copy.envelope.rows - self._td.keys() - self._kept}
        wrong |= {f"record {number} does not count in a replay as it did" for number in self._misreplayed}
        wrong |= {f"{message.envelope.name} never leaves the queue" for message in self._queue}
        wrong |= {f"the search for {name} does not end" for name in self._undecided}
        return sorted(wrong)


def _exhaust(process: Process) -> None:
    for _ in process:
        pass


def random_world(seed: int, without: Collection[Rule] = ()) -> World:
    """Return the world of a seed, not yet run. Even seeds have a batch id."""
    return World(Chooser(chance=random.Random(seed)), has_id=seed % 2 == 0, without=without)


def enumerated(
    deviations: int, *, has_id: bool, steps: int, without: Collection[Rule] = ()
) -> Iterator[tuple[World, list[str]]]:
    """Yield each schedule with at most this many deviations from the first choices, and what is wrong with it."""
    waiting: list[tuple[tuple[int, ...], int]] = [((), deviations)]
    while waiting:
        prefix, left = waiting.pop()
        chooser = Chooser(prefix)
        world = World(chooser, has_id=has_id, without=without)
        yield world, world.run(steps)
        if left:
            numbers = tuple(number for number, _ in chooser.choices)
            for place in range(len(prefix), len(numbers)):
                waiting += [
                    ((*numbers[:place], other), left - 1) for other in range(1, chooser.choices[place][1])
                ]


def main(schedules: int) -> int:
    """Run random schedules, print the shortest that breaks something, and return 1 if one does."""
    broken: list[tuple[int, World, list[str]]] = []
    for seed in range(schedules):
        world = random_world(seed)
        if wrong := world.run(STEPS):
            broken.append((seed, world, wrong))
    print(f"{schedules} schedules, {len(broken)} broken")  # noqa: T201 -- a command
    for seed, world, wrong in sorted(broken, key=lambda one: len(one[1].trace))[:1]:
        print(f"seed {seed}: {', '.join(wrong)}", *world.trace, sep="\n")  # noqa: T201 -- a command
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
