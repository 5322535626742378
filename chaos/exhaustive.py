"""Try every interleaving of the specification's actors, then take the real handlers step by step.

First, `chaos.specification_explorer` goes through all interleavings of the actors of each scene, then without single rules. Then
invocations of the real handlers meet in small scenarios. A step is a call of DynamoDB, S3 or Treasure Data. In each run something happens
at one step, or at two: the invocation pauses, so that others run, or is killed before or after the call, or the call fails, takes effect
without an answer, or takes effect late. All steps are tried with all that may happen there; of pairs, as many as RUNS allows. Afterwards
all trouble ends, and senders and redeliveries run until everything has settled. Then the promises and the rules of the specification must
have been kept, and nothing of persons who are forgotten may be left.
"""

import gc
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from copy import replace
from dataclasses import dataclass
from enum import Enum
from itertools import islice
from random import Random
from typing import Any, NamedTuple, override

import click
import msgpack
from botocore.exceptions import ReadTimeoutError

from chaos.audit import unpacked
from chaos.effects import Effects
from chaos.functions import Functions
from chaos.pipeline import Pipeline
from chaos.run import Build, Pool
from chaos.schedule import START, Act, Schedule, Setup
from chaos.specification_actors import LEFT_OUT, SCENES
from chaos.specification_explorer import Explorer
from chaos.trace import Trace
from chaos.traffic import Sent
from chaos.trouble import Kind, Window
from chaos.verdict import judge
from chaos.world import BUCKET, STREAM, World
from doubles.event_source import event_of
from doubles.http_server import Response
from shared.envelope import Envelope, TableRows
from shared.errors import ObjectGoneError
from worker.forget.requests import KEY as REQUESTS
from worker.forget.requests import RequestDocument
from worker.rows import decompress
from worker.states import State

DEFENCE_RUNS = 3000
"""How many runs of a scenario are tried to notice that a defence is missing."""
_SCENES = {scene.name: scene for scene in SCENES}
_ACCOUNT, _TABLE = "shop", "pageviews"
_AGAIN = int(START) * 1000  # the claim of an envelope that was put again
_REJECTS = 4  # rows of the first request for a table that Treasure Data may reject
_DAY = 86_400.0
_PERSONS = frozenset(10 * ord("r") + number for number in (0, 2))  # all of a chunk, and one row of another
_SWEEPS, _LAST_SEARCHES = (1.1, 1.1, 1.1), (22.0, 10.0, 0.1)  # days after each
_SOON = 2.0  # seconds
_TURN, _TURNS, _DEAD_FROM = 6000.0, 12, 4
_SETUP = Setup(1, ((_ACCOUNT, "shop_db"),), 168, 0.0, worker_seconds=900.0)


class Fault(Enum):
    """What happens at a step."""

    PAUSE = "pauses for half a minute"
    LONG_PAUSE = "pauses for ten minutes"
    KILLED_BEFORE = "killed before"
    KILLED_AFTER = "killed after"
    FAILS = "fails"
    UNHEARD = "takes effect, no answer"
    LATE = "fails, and takes effect a minute later"


_SECONDS = {Fault.PAUSE: 30.0, Fault.LONG_PAUSE: 600.0}
_READS = ("dynamodb get", "dynamodb batch_get", "dynamodb query", "dynamodb describe", "s3 get", "s3 list")
_OF: tuple[tuple[str | tuple[str, ...], tuple[Fault, ...]], ...] = (
    (_READS, (*_SECONDS, Fault.KILLED_BEFORE, Fault.FAILS)),  # the others are the same
    ("td", tuple(fault for fault in Fault if fault is not Fault.LATE)),
)
"""What may happen at steps whose names begin so."""

Choice = tuple[tuple[int, Fault], ...]


class _Steps(Effects):
    """Effects that count the steps, and let happen what was chosen for a step.

    Attributes:
        dies: whoever is about to put an object is killed.
    """

    chosen: dict[int, Fault]  # by the number of a step, what happens there
    # the steps so far; None before the scenario's invocations meet, and afterwards
    names: list[str] | None = None
    dies = False

    @override
    def perform(self, what: str, action: Callable[[], Any], seconds: float) -> Any:
        fault = self._fault(what)
        if fault in _SECONDS:
            self.simulation.delay(_SECONDS[fault])
        elif fault is Fault.KILLED_BEFORE:
            self._kill(self.simulation.alive().process, "killed")
        elif fault is Fault.FAILS:
            return self._unheard(what)
        elif fault is Fault.LATE:
            self.land(what, action, 60, self.simulation.alive().process)
            return self._unheard(what)
        answer = super().perform(what, action, seconds)
        if fault is Fault.KILLED_AFTER:
            self._kill(self.simulation.alive().process, "killed")
        return self._unheard(what) if fault is Fault.UNHEARD else answer

    def _fault(self, what: str) -> Fault | None:
        if self.dies and what.startswith("s3 put_object"):
            return Fault.KILLED_BEFORE
        if self.names is None or not what.startswith(("dynamodb", "s3", "td")):
            return None
        self.names.append(what)
        return self.chosen.get(len(self.names))

    def _unheard(self, what: str) -> Response:
        if what.startswith("td"):
            return Response(504)
        raise ReadTimeoutError(endpoint_url="https://service.invalid")


class Put(NamedTuple):
    """A record on the stream."""

    # the request of which it holds a copy. `r` has four rows for a table that may be rejected and one for another; others have that one.
    request: str = "r"
    claim: int = 0  # the envelope's; `_AGAIN` if it was put again
    after: float = 0.0  # seconds from the put until it arrived, by its stamp
    received: int = 0  # when the ingest received the request, seconds after the start

    @property
    def events(self) -> tuple[tuple[int, str], ...]:
        """The number and table of each of its events."""
        first = 10 * ord(self.request)
        rejected = ((first + number, _TABLE) for number in range(1, 1 + _REJECTS) if self.request == "r")
        return (first, "clicks"), *rejected

    def envelope(self) -> bytes:
        """Return it as it stands on the stream."""
        rows: dict[str, list[bytes]] = {}
        received = _AGAIN + self.received * 1000
        for number, table in self.events:
            # two rows are larger than TD_TOO_LARGE allows
            filling = Random(number).randbytes(150).hex()
            row = {"time": int(START), "event_id": f"{number}", "received_at": received, "n": number}
            rows.setdefault(table, []).append(msgpack.packb(row | {"filling": filling}))
        blocks = tuple(TableRows(table, len(some), b"".join(some)) for table, some in rows.items())
        return Envelope(_ACCOUNT, "k1", received, self.request, self.claim, blocks).encode()


@dataclass(frozen=True)
class Scenario:
    """A situation, and the invocations that meet in it."""

    name: str  # a description
    # the invocations: `worker`, `replay`, `schedule`, `hand`, `edit`, `drop`, `force` or `sweep`; `watch` takes a watermark, `split` splits
    # the shard; `note` asks to forget the persons, `search` looks for them in all objects, `delete` deletes their rows in Treasure Data by
    # the value. A worker or a replay may be followed by the numbers of the records that it gets; a `small` worker is of a release that cuts
    # chunks of two rows; a `children` worker gets those of the shards after the split; `later` is 200 seconds after the one before.
    actors: tuple[str, ...]
    # invocations that ran earlier, one after the other, with the trouble `past`. One that is `killed` has claimed, no more.
    before: tuple[str, ...] = ("worker",)
    past: str = ""  # the names of kinds of trouble
    now: str = ""  # likewise, while the actors meet; with a sign `>`, from two seconds on
    records: tuple[Put, ...] = (Put(),)  # what is on the stream
    seconds: float = 4000.0  # how long ago the earlier invocations ran
    left: str = ""  # the numbers of the records that are redelivered at the end; all without any

    @property
    def forgets(self) -> bool:
        """Whether persons are forgotten."""
        return any("note" in actor for actor in (*self.before, *self.actors))


_REJECTED, _LARGE, _FAILING, _UNHEARD_ROWS = "TD_REJECTS_TABLE", "TD_TOO_LARGE", "TD_429", "TD_LOST_ANSWER"
_LATER_REJECTED = ">TD_REJECTS_TABLE"
_HALVED = ("worker", "schedule", "schedule", "schedule")  # until all rows that are rejected are dead
SCENARIOS = (
    Scenario("two senders of dead rows that are rejected again", ("hand", "hand"), before=_HALVED, past=_REJECTED, now=_REJECTED),
    Scenario("two senders of dead rows that are accepted now", ("hand", "hand"), before=_HALVED, past=_REJECTED),
    Scenario("two senders of waiting rows", ("schedule", "schedule"), past=_FAILING),
    Scenario("two senders, answers are lost", ("schedule", "schedule"), past=_FAILING, now=_UNHEARD_ROWS),
    Scenario("two senders, an answer is lost, then the rows are rejected", ("hand", "later hand"), past=_FAILING, now=_LATER_REJECTED),
    Scenario("two senders of rows that must be halved", ("hand", "hand"), past=_FAILING, now=_LARGE),
    Scenario("a sender beside the worker's own sends", ("worker", "later schedule"), before=(), now=_LATER_REJECTED, seconds=0.0),
    Scenario("a sender beside a redelivery", ("schedule", "worker"), before=("killed worker",), now=_REJECTED),
    Scenario("two workers of one batch, rows are rejected", ("worker", "worker"), before=(), now=_REJECTED),
    Scenario("two workers of one batch, rows must be halved", ("worker", "worker"), before=(), now=_LARGE),
    Scenario("a worker of two copies beside a sender, one copy was put again", ("worker", "later schedule"), before=(), records=(Put(), Put(claim=_AGAIN))),
    Scenario("two senders of rows that were put again", ("schedule", "schedule"), records=(Put(claim=_AGAIN),)),
    Scenario("a sender decides while a first copy that landed late is planned", ("worker 1 2", "schedule"), before=("worker 0",), records=(Put(claim=_AGAIN), Put(after=100), Put("z", after=1300)), seconds=1400.0),
    Scenario("a sender decides while a first copy that is too late is planned", ("worker 1 2", "schedule"), before=("worker 0",), records=(Put(claim=_AGAIN), Put(after=1000), Put("z", after=1300)), seconds=1400.0),
    Scenario("two releases cut one batch", ("worker", "small worker"), before=(), now=_UNHEARD_ROWS, seconds=0.0),
    Scenario("a redelivery beside a replay of what was left out in the middle", ("worker", "replay 1"), before=("worker 0 2",), records=(Put("p"), Put("q"), Put("z"))),
    Scenario("copies of a request, in a gap and live", ("replay 0", "worker 2"), before=("worker 1",), records=(Put("q", 1), Put("z"), Put("q", 1))),
    Scenario("a copy beside a replay of the one that was passed over with the claim", ("worker 2", "replay 0"), before=("killed worker 0", "worker 1"), records=(Put("q", 1), Put("z"), Put("q", 1)), left="1 2"),
    Scenario("an edit beside a sender by hand", ("edit", "hand"), before=_HALVED, past=_REJECTED, now=_REJECTED),
    Scenario("two edits of dead rows", ("edit", "edit"), before=_HALVED, past=_REJECTED, now=_REJECTED),
    Scenario("a drop beside a sender", ("drop", "hand"), before=_HALVED, past=_REJECTED, now=_UNHEARD_ROWS),
    Scenario("a drop of rows in doubt", ("drop", "schedule"), past=_UNHEARD_ROWS),
    Scenario("two forced replays with one tag", ("force", "force")),
    Scenario("a forced replay beside a sender", ("force", "schedule"), past=_FAILING),
    Scenario("a watermark, a record whose stamp runs back is not planned", ("watch",), before=("watch", "worker 0"), records=(Put("p", after=200), Put("q"))),
    Scenario("a watermark, a request was under way when the queue was empty", ("watch",), before=("watch", "worker 0"), records=(Put("p", after=400), Put("q", 1, after=400, received=35))),
    Scenario("a watermark, a closed shard has a record in no span", ("watch",), before=("watch", "split", "watch", "children worker"), records=(Put("q"),)),
    Scenario("a watermark, the owner of a copy's claim is in no span", ("watch",), before=("watch", "worker 1", "killed worker 2", "replay 0"), records=(Put("q", 1), Put("z", after=400), Put("q", 1, after=401))),
    Scenario("the sweep beside a sender", ("sweep", "hand"), before=_HALVED, past=_REJECTED, seconds=30 * _DAY),
    Scenario("a search for persons beside the worker's own sends", ("worker", "later search"), before=("note",), seconds=0.0),
    Scenario("a search for persons beside a sender in doubt", ("schedule", "search"), before=("worker", "note"), past=_UNHEARD_ROWS),
    Scenario("persons are deleted by value beside a sender in doubt", ("delete", "schedule"), before=("worker", "note"), past=_UNHEARD_ROWS, records=(Put(), Put("q"))),
    Scenario("a search for persons in what waits beside a sender", ("schedule", "search"), before=("worker", "note"), past=_FAILING, now=_FAILING),
    Scenario("a search for persons in one half while the other is in doubt", ("hand", "later note", "later search"), before=_HALVED, past=_REJECTED, now=_REJECTED),
    Scenario("two searches for persons in dead rows", ("search", "search", "hand"), before=(*_HALVED, "note"), past=_REJECTED),
    Scenario("a search for persons beside an edit", ("edit", "search"), before=(*_HALVED, "note"), past=_REJECTED, now=_REJECTED),
    Scenario("a search for persons in what was delivered beside a forced replay", ("force", "search"), before=("worker", "note")),
    Scenario("a search for persons in what was put again beside a sender", ("schedule", "search"), before=("worker", "note"), records=(Put(claim=_AGAIN),)),
    Scenario("the sweep beside a redelivery", ("sweep", "worker"), before=("killed worker",), seconds=2 * _DAY),
)  # fmt: skip  # a table
NAMED = {one.name: one for one in SCENARIOS}


class _Meeting(Pipeline):
    """The pipeline, in which nothing runs but what the scenario says."""

    @override
    def backlog(self) -> list[str]:
        return []

    @override
    def _tick_at(self, when: float) -> None:
        """Deliver nothing: the actors do."""

    def invoke(self, actor: str) -> None:
        """Start an invocation in a new sandbox."""
        for function in self.functions:
            function.deploy()
        acts: dict[str, tuple[Kind, tuple[object, ...]]] = {
            "hand": (Kind.SEND, (("waiting", "again", "dead"),)),
            "force": (Kind.FORCE, (0, None)),
            "edit": (Kind.EDIT, (0.0,)),
            "drop": (Kind.DROP, (0.0,)),
            "split": (Kind.RESHARD, ("split", 0.0)),
        }
        *_, name = words = [word for word in actor.split() if not word.isdigit()]
        if name in acts:
            kind, arguments = acts[name]
            self.act(Act(self.world.simulation.now, kind, arguments))
        elif name in {"schedule", "sweep"}:
            self.sender.invoke({"sweep": True} if name == "sweep" else {})
        elif name == "watch":
            self.observer.look()
        elif name in {"note", "search", "delete"}:
            self._forget(name)
        else:
            self.world.cuts = [(2 if "small" in words else 50_000, 16 << 20)]
            chosen = [int(word) for word in actor.split() if word.isdigit()]
            for shard in self._shards()["children" in words : 1 if chosen else None]:
                records = self._records(shard)
                if records:  # not expired
                    event = event_of([records[number] for number in chosen] or records)
                    more = {"replay": True} if name == "replay" else {}
                    self.worker.invoke(event | more)

    def _forget(self, what: str) -> None:
        """Ask for something about the persons to forget, as the command does."""
        asked: list[dict[str, Any]] = [{"do": "note"}]
        if what == "search":
            asked = [{"do": "forget", "prefix": "spans/", "after": ""}]
        elif what == "delete":
            asked = [{"do": "delete", "database": "shop_db", "table": table} for table in ("clicks", _TABLE)]
        whom = {"account": _ACCOUNT, "column": "n", "values": [*map(str, sorted(_PERSONS))]}
        for one in asked:
            self.sender.invoke({"forget": whom | one})

    def remembered(self) -> Iterator[str]:
        """Yield where rows of persons are left, whether a request is not done, and whether rows that went are not counted."""
        found = [(one.table, row["n"]) for one in self.world.td.imports() for row in one.rows]
        for span in self.audit.ledger.spans():
            with suppress(ObjectGoneError):
                bodies = self.audit.objects.whole(span)[1]
                found += [
                    (span.place.name, row["n"])
                    for one in bodies.values()
                    for row in unpacked(decompress(one))
                ]
        yield from (f"{where} has {number}" for where, number in found if number in _PERSONS)
        document = RequestDocument.decode(self.world.bucket.objects(BUCKET)[REQUESTS].body)
        yield from (f"{one.left} are left" for one in document.requests.values() if not one.done)
        if self.audit.balance().total.states[State.FORGOTTEN] < len(_PERSONS):
            yield "not all are counted"


class Ended(NamedTuple):
    """The end of a run: the names of its steps, and what is wrong."""

    steps: list[str]
    wrong: dict[str, int]


def run(scenario: Scenario, choice: Choice = (), build: Build = Functions) -> Ended:
    """Run a scenario with what is chosen to happen at some steps."""
    setup = replace(_SETUP, archive_days=30) if scenario.forgets else _SETUP
    # a thread may have looked at a database's health before it was paused
    world = World(Schedule(1, setup, (), (Window(Kind.PAUSE, START, START),)), effects=_Steps)
    persons = _PERSONS if scenario.forgets else frozenset[int]()
    world.is_forgotten = lambda row: row["n"] in persons
    effects, simulation = world.effects, world.simulation
    assert isinstance(effects, _Steps)
    trace, pipeline = Trace(world), _Meeting(world, build(world))
    trace.watch(pipeline.worker)
    pipeline.invoke("schedule")  # adopts the ledger's table
    simulation.run(START + 60)
    for put in scenario.records:
        world.stream.arrival_error = lambda put=put: put.after  # type: ignore[misc]  # a default binds it
        world.stream.put_record(StreamName=STREAM, Data=put.envelope(), PartitionKey="k")
        for number, _ in put.events:
            pipeline.sent[number] = Sent(START, _ACCOUNT, "v", "events", put.events)
            pipeline.accepted[number] = START
        pipeline.observer.answered(tuple(number for number, _ in put.events), START)
    world.stream.arrival_error = lambda: 0.0
    for actor in scenario.before:
        effects.dies = "killed" in actor
        _trouble(world, scenario.past, 900)
        pipeline.invoke(actor)
        simulation.run(simulation.now + 900)
    simulation.run(simulation.now + scenario.seconds)
    effects.chosen, effects.names, effects.dies = dict(choice), [], False
    _trouble(world, scenario.now, _TURN)
    at = simulation.now
    for actor in scenario.actors:
        at += 200 * ("later" in actor)
        simulation.at(at, lambda actor=actor: pipeline.invoke(actor))  # type: ignore[misc]  # a default binds it
    simulation.run(simulation.now + _TURN)
    steps, effects.names = effects.names or [], None
    world.trouble.heal()
    pipeline.resends_dead = True
    for turn in range(_TURNS):
        for actor in (f"worker {scenario.left}", "schedule", *(["hand"] if turn >= _DEAD_FROM else [])):
            pipeline.invoke(actor)
            simulation.run(simulation.now + _TURN)
        if turn > _DEAD_FROM and pipeline.audit.is_idle():
            break
    pipeline._note_forced()  # noqa: SLF001 -- its own
    if scenario.forgets:  # again, whatever became of the first request
        pipeline.invoke("note")
        simulation.run(simulation.now + _TURN)
    for days in _SWEEPS + _LAST_SEARCHES * scenario.forgets:
        pipeline.invoke("sweep")
        simulation.run(simulation.now + days * _DAY)
    pipeline.accepted = {number: at for number, at in pipeline.accepted.items() if number not in persons}
    verdict = judge(pipeline)
    verdict.rules = trace.broken
    gc.enable()  # a worker invocation that was killed leaves it off
    left = Counter(pipeline.remembered() if scenario.forgets else ())
    return Ended(steps, dict(verdict.violations + left))


def _trouble(world: World, names: str, seconds: float) -> None:
    """Open windows of trouble from now on."""
    for name in names.split():
        kind, now = Kind[name.strip(">")], world.simulation.now
        begin, end = now + _SOON * name.startswith(">"), now + seconds
        world.open(Window(kind, begin, end, target=_TABLE if kind is Kind.TD_REJECTS_TABLE else ""))


def choices(steps: list[str], name: str = "") -> Iterator[Choice]:
    """Yield all that may happen at one step, then pairs in random order."""
    single = [
        (number, fault)
        for number, what in enumerate(steps, 1)
        for fault in next((some for begin, some in _OF if what.startswith(begin)), tuple(Fault))
    ]
    yield ()
    yield from ((one,) for one in single)
    pairs = [(one, other) for one in single for other in single if one[0] < other[0]]
    Random(name).shuffle(pairs)
    yield from pairs


def explore(
    scenario: Scenario, runs: int, build: Build = Functions, *, most_wrong: int = 5
) -> tuple[int, dict[Choice, dict[str, int]]]:
    """Run a scenario with what may happen, until so many runs are over or `most_wrong` are wrong; return how many, and what is wrong."""
    wrong: dict[Choice, dict[str, int]] = {}
    count = 0
    for choice in islice(choices(run(scenario, (), build).steps, scenario.name), runs):
        count += 1
        if found := run(scenario, choice, build).wrong:
            wrong[choice] = found
        if len(wrong) >= most_wrong:
            break
    return count, wrong


def follow(name: str, out: str = "") -> tuple[int, str]:
    """Explore a scene of the specification, perhaps without a rule; return the number of interleavings, and what is wrong."""
    explorer = Explorer(_SCENES[name], frozenset({out} - {""}), judge_every=0 if out else 100)
    return explorer.run(), explorer.wrong


@click.command(help=__doc__)
@click.option(
    "--runs", type=click.IntRange(1), default=1000, show_default=True, help="Most runs of each scenario."
)
def main(runs: int) -> None:
    """Explore the specification, then all scenarios."""
    failed = False
    with Pool() as pool:
        scenes = (*((name, "") for name in _SCENES), *LEFT_OUT)
        followed = [(scene, pool.submit(follow, *scene)) for scene in scenes]
        jobs = [(one.name, pool.submit(explore, one, runs)) for one in SCENARIOS]
        for (name, rule), job in followed:
            count, wrong = job.result()
            failed |= bool(wrong) != bool(rule)
            without_rule = f" without {rule!r}" if rule else ""
            click.echo(f"{name}{without_rule}: {wrong or f'{count:,} interleavings'}")
        for name, exploring in jobs:
            count, broken = exploring.result()
            failed |= bool(broken)
            click.echo(f"{name}: {count:,} runs, {len(broken)} wrong")
            for choice, found in broken.items():
                click.echo(f"  {choice}: {found}")
    sys.exit(failed)
