"""Runs the pipeline in one world: functions, the services that invoke them, clients and operators."""

import random
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import msgpack

from chaos import plans
from chaos.audit import Audit, Held
from chaos.functions import Functions
from chaos.mapping import ChangedMapping
from chaos.platform import Function
from chaos.restoring import Restoring
from chaos.schedule import START, Act, Schedule
from chaos.traffic import REPEATED, SECRETS, TABLES, Sent
from chaos.trouble import Kind
from chaos.watermark import Observer
from chaos.world import STREAM, VISIBILITY_SECONDS, World
from doubles.event_source import EventSourceMapping, Invocation, Outcome, Record, Returned, event_of
from doubles.event_source.pollers import StreamPoller
from doubles.sqs import receive, record_of, settle
from local.functions import DRAIN, INGEST, SENDER
from shared import write_key
from shared.errors import InvalidObjectError
from shared.tracking_plan import CODES
from worker.rows import compress
from worker.shards import Shards
from worker.span import ChunkKey, Place
from worker.span_object import name_of
from worker.states import State

SEND_EVERY, _CALM_SECONDS = 60.0, 900.0
"""Once nothing has waited for longer than the second, the sender runs only so often, because it finds nothing."""
_QUEUE_ARN = "arn:aws:sqs:us-east-1:000000000000:overflow"
_LEAST_SWEEPS, _MOST_SWEEPS = 3, 12
"""Sweeps at the end, a day apart: an object is too young at first, then written anew, and its old name goes a day later. Clocks that jumped
and rows that waited for long take more."""
SWEEP_EVERY = 3700.0  # so that sweeps do not coincide with the sender's timer
_READ_AGAIN_SECONDS = 40.0
_IDLE_POLL_EVERY = 6 * 3600.0  # when no record arrives; otherwise at once
_STEP = 171.0  # so that steps do not coincide with the sender's timer
_DAY = 86_400.0
_FOR_GOOD = 0.5  # the share of schedules with lost objects in which one is not brought back
_COPIES_FOR = 29 * 86_400.0  # seconds for which a client may send copies of a request that has an id
_PAUSES = (0.5, 5.0, 60.0, 400.0, 3 * 3600.0, 86_400.0, 5 * 86_400.0)
_LONG_PAUSES = (60.0, 86_400.0, 12 * 86_400.0, 28 * 86_400.0)
_SELDOM = 12  # times more seldom are sweeps in schedules of weeks
_QUIET_SECONDS = 1200.0  # without a request, after which senders are seldom, too
_CROWD_SECONDS = 60.0


class Answered(NamedTuple):
    """A response of the ingest: the events that it called accepted, and others with their codes; without a response, the status is 0."""

    sent: Sent
    status: int
    accepted: tuple[int, ...]
    rejected: tuple[tuple[int, str], ...]


class Pipeline:
    """Runs a world. The event source waits so many seconds for a batch to fill; None draws them from the seed."""

    def __init__(self, world: World, functions: Functions, batch_window: int | None = None) -> None:
        schedule = world.schedule
        self.world = world
        self.schedule: Schedule = schedule
        self.accepted: dict[int, float] = {}  # by event, when it was first accepted, UNIX seconds
        self.sent: dict[int, Sent] = {}  # by event, its request
        self.answers: list[Answered] = []  # the ingest's responses
        self.garbage: list[bytes] = []  # undecodable records that were put on the stream
        # by span and chunk, the events of rows that an operator wanted to drop
        self.given_up: dict[tuple[Place, ChunkKey], list[int]] = {}
        self.forced: Counter[int] = Counter()  # how often forced replays have sent each event again
        self.healed_at = 0.0  # when everything healed, UNIX seconds
        self._tags: set[str] = set()
        self._forced_places: set[Place] = set()
        self.lost_places: set[Place] = set()  # the spans whose objects are gone for good
        self.gone: set[int] = set()  # the events that were in them and that somebody needed
        self._simulation = world.simulation
        self._trouble = world.trouble
        self._chance = random.Random(f"{schedule.seed}/pipeline")
        effects, seed = world.effects, schedule.seed
        self.ingest = Function(effects, "I", functions.ingest, INGEST.timeout, seed, overruns=False)
        self.worker = Function(effects, "W", functions.worker, schedule.setup.worker_seconds, seed)
        self.sender = Function(effects, "S", functions.sender, SENDER.timeout, seed)
        self.drain = Function(effects, "D", functions.drain, DRAIN.timeout, seed)
        self.functions = (self.ingest, self.worker, self.sender, self.drain)
        self._standstill_until = 0.0
        self._asked_at = 0.0
        self._draining = 0
        self._is_sending = True
        # when something waited, and when the sender ran by its timer
        self._waited_at = self._sent_at = float("-inf")
        summary = world.stream.describe_stream_summary(StreamName=STREAM)["StreamDescriptionSummary"]
        window = self._chance.choice((0, 1, 5))
        self._mapping = EventSourceMapping(
            event_source_arn=summary["StreamARN"],
            batch_size=schedule.setup.batch_size,
            maximum_batching_window_seconds=next(
                one for one in (batch_window, schedule.setup.window, window) if one is not None
            ),
            children_wait=schedule.setup.children_wait,
            borders=self._border,
        )
        self._poller = StreamPoller(world.stream, self._mapping)
        self._changed = ChangedMapping(world.simulation, world.trouble, self.worker.invoke)
        self._next_tick = float("inf")
        # whether an operator finally sends all dead rows again, when nothing is rejected any more
        self.resends_dead = self._chance.random() < 0.5
        self.audit = Audit(world)  # reads the ledger and the objects
        self.observer = Observer(world, self.audit, functions.watermarks)  # takes watermarks during the run
        ledger_users = self.worker, self.sender, self.drain, self.observer.function
        self.restoring = Restoring(world, self.audit, ledger_users, functions.repair)
        # accepted events that were neither in Treasure Data nor held when everything had settled for the first time, before anything was
        # replayed
        self.missing: list[int] = []
        world.stream.landed = lambda: self._tick_at(self._simulation.now + self._chance.random())
        world.queue.landed = lambda: self._after(self._chance.random(), self._drain)

    # Running

    def run(self) -> None:
        """Run the whole schedule until everything has settled, replays and late copies included."""
        self.observer.begin()
        self.begin()
        self._simulation.run(self.schedule.end)
        self.finish()

    def begin(self) -> None:
        """Start the event source, the sender's timers, clients and operators."""
        for sent in self.schedule.sent:
            self._simulation.at(sent.at, partial(self.send, sent))
        for act in self.schedule.acts:
            self._simulation.at(act.at, partial(self.act, act))
        self._tick_at(self._simulation.now)
        self._after(SEND_EVERY, self._send_by_timer)
        self._after(SWEEP_EVERY, self._sweep)
        self.restoring.begin()
        for window in self.schedule.windows:
            if window.kind is Kind.FILTERED:
                self._simulation.at(window.end, self._read_filtered)
            elif window.kind is Kind.QUEUE_OFF:
                self._simulation.at(window.end, self._drain)

    def finish(self) -> None:
        """End all faults, let everything settle, replay everything twice days later, and send late copies of requests."""
        until = self.heal()
        self._wait(SENDER.timeout)
        while self._simulation.now < until:
            self._note_forced()
            self.sender.invoke({"sweep": True})
            self._pause_sender(min(until, self._simulation.now + _DAY))
        self.rest(hours=72)
        self._note_forced()  # perhaps a restored ledger has been repaired only now
        if self.restoring.take_out():
            self.rest(hours=24)
        self.missing = self._missing()
        for name, account in self.world.accounts.items():
            if account.status != "active" or account.revoked_key_ids:
                self._disable(name, "")
        for _ in range(2):
            self._pause_sender(self._simulation.now + 86_400 * self._chance.uniform(0.6, 1.4))
            self._replay_everything()
            self.rest(hours=24)
        if self.resends_dead:
            self._send_dead()
        self._send_last_copies()
        self._wait(2 * 3600)
        for number in range(_MOST_SWEEPS):
            if number >= _LEAST_SWEEPS and not self.audit.left_over():
                break
            self.sender.invoke({"sweep": True})
            self._pause_sender(self._simulation.now + 26 * 3600)
        self._wait(_STEP)

    def _after(self, seconds: float, call: Callable[[], Any]) -> None:
        """Call a function later."""
        self._simulation.at(self._simulation.now + seconds, call)

    def _wait(self, seconds: float) -> None:
        """Let time pass."""
        self._simulation.run(self._simulation.now + seconds)

    def _pause_sender(self, until: float) -> None:
        """Let time pass without the sender, which would have nothing to do."""
        self._is_sending = False
        self._simulation.run(until)
        self._is_sending = True
        self._send_by_timer()

    def _send_dead(self) -> None:
        """Send dead rows again, as an operator does after fixing the cause."""
        for _ in range(3):
            self.sender.invoke({"kinds": ["dead"]})
            self._wait(_STEP)
        self._wait(2 * 3600)
        self.rest(hours=24)
        self.sender.invoke({"kinds": ["dead"]})
        self._wait(_STEP)

    @property
    def contradicted(self) -> set[int]:
        """Events of a batch that one response accepted and another rejected, perhaps unheard, because the edge policy had changed.

        The first copy of the batch on the stream decides.
        """
        rejected = {number for answer in self.answers for number, code in answer.rejected if code in CODES}
        rejected.update(self.audit.rejected())
        taken = {number for answer in self.answers for number in answer.accepted}
        return {number for number in rejected & taken if self.sent[number].dialect == "batch"}

    def heal(self) -> float:
        """End all faults, but for what lasts. Return when that ends, UNIX seconds."""
        until = self._trouble.heal()
        self.healed_at = self._simulation.now
        self.observer.trouble.heal()
        self.world.apply_accounts()
        self.world.bring_back()
        if self._trouble.strikes[Kind.S3_GONE] and self._chance.random() < _FOR_GOOD:
            self._lose_for_good()
        self._standstill_until = 0.0
        self._read_filtered()
        self._simulation.note("everything heals")
        self._tick_at(self._simulation.now)
        return until

    def _lose_for_good(self) -> None:
        """Lose the object of one span of the stream that has rows which somebody needs, and nothing undecodable."""
        held = [one for one in self.audit.held() if one.values and one.span.chain.is_of_stream]
        held = [one for one in held if not any(key.group.code for key in one.span.chunks)]
        if held:
            span = self._chance.choice(held).span
            lost = [one for one in held if one.span.place == span.place]
            self.lost_places.add(span.place)
            self.gone |= {int(row["n"]) for one in lost for row in one.values or ()}
            self.world.take_away(name_of(span))

    def rest(self, hours: float) -> None:
        """Run until nothing is left to do, for at most so many hours."""
        until = self._simulation.now + hours * 3600
        while not self.at_rest and self._simulation.now < until:
            self._wait(_STEP)

    @property
    def at_rest(self) -> bool:
        """Whether every record is in a span, the queue is empty, nothing waits, and nothing runs."""
        return (
            not any(function.running for function in self.functions)
            and not self.restoring.is_under_way
            and not self.backlog()
            and not self.world.queue.messages(self.world.queue_url)
            and self.audit.is_idle()
        )

    def backlog(self) -> list[str]:
        """Return the shards with records that are in no span."""
        settled = {shard: int(poller.last_settled or -1) for shard, poller in self._poller.pollers.items()}
        return [shard for shard, last in self.world.stream.last.items() if settled.get(shard, -1) < last]

    def _missing(self) -> list[int]:
        """Return the accepted events that are neither in Treasure Data nor held."""
        held = {int(row["n"]) for taken in self.world.td.imports() for row in taken.rows}
        for one in self.audit.held():
            held |= {int(row["n"]) for row in one.values or () if isinstance(row, dict)}
        held |= self.contradicted | self.dropped | self.gone
        return [number for number in self.accepted if number not in held]

    # Clients

    def send(self, sent: Sent) -> None:
        """Make a client send a request now."""
        self._asked_at = self._simulation.now
        for number, _ in sent.events:
            self.sent[number] = sent
        if sent.dialect == "stream":
            key = f"{sent.account}/{sent.visitor}"
            self.world.stream.put_record(StreamName=STREAM, Data=sent.record(), PartitionKey=key)
            numbers = tuple(number for number, _ in sent.events)
            self._accept(numbers, self._simulation.now)
        else:
            self._ask(sent)

    def _ask(self, sent: Sent, copy: int = 0) -> None:
        """Send a request, or a copy of it, to the ingest.

        Clients that give their requests or events an id retry until a response arrives. Some also repeat a request needlessly: at
        once, within milliseconds (Chromium resends a request byte for byte when its connection is closed), or much later.
        """
        now = self._asked_at = self._simulation.now
        payload = sent.payload(write_key.sign(sent.account, "k1", SECRETS["k1"]), now, copy)

        def ask() -> None:
            self.ingest.invoke(payload, partial(answered, self._simulation.now))

        def answered(since: float, outcome: Outcome) -> None:
            accepted: tuple[int, ...] = ()
            rejected: tuple[tuple[int, str], ...] = ()
            status = 0
            if isinstance(outcome, Returned):
                status = outcome.value["statusCode"]
                accepted, rejected = sent.judged(outcome.value, copy)
                self._accept(accepted, since)
            self.answers.append(Answered(sent, status, accepted, rejected))
            is_heard = (accepted or rejected) and not self._trouble.strike(Kind.CLIENT_DEAF)
            if sent.dialect not in REPEATED or is_heard:
                return
            self._ask_again(sent, copy)

        ask()
        if sent.dialect in REPEATED and not copy:
            if self._chance.random() < 0.2:
                resent = now + self._chance.choice((0.0, self._chance.uniform(0.012, 0.07)))
                self._simulation.at(resent, ask)
            if self._chance.random() < 0.3:
                self._ask_again(sent, copy)

    def _ask_again(self, sent: Sent, copy: int) -> None:
        pauses = _LONG_PAUSES if self.schedule.setup.is_long else _PAUSES
        again = self._simulation.now + self._chance.choice(pauses)
        if again < sent.at + _COPIES_FOR:
            self._simulation.at(again, partial(self._ask, sent, copy + 1))

    def _send_last_copies(self) -> None:
        """Send each request with an id again, weeks later, while its client still may."""
        batches = self._repeatable()
        self._pause_sender(min((sent.at for sent in batches), default=0.0) + _COPIES_FOR - 3600)
        self.sender.invoke({"sweep": True})  # many a copy comes after its first one's index is deleted
        self._pause_sender(self._simulation.now + 3600)
        for sent in batches:
            self._ask(sent, copy=1)
        self._replay_everything()
        self.rest(hours=24)

    def _repeatable(self) -> list[Sent]:
        """Return the requests so far that their clients may still repeat."""
        now = self._simulation.now
        some = (one for one in self.schedule.sent if now - _COPIES_FOR < one.at < now)
        return [one for one in some if one.dialect in REPEATED]

    def _crowd(self) -> None:
        """Make all clients repeat within a minute what they have sent."""
        sent = self._repeatable()
        for number, one in enumerate(sent):
            self._after(number * _CROWD_SECONDS / len(sent), partial(self._ask, one, 1))

    def _accept(self, numbers: tuple[int, ...], since: float) -> None:
        """Note events that a response accepts now, to a request made at `since`."""
        for number in numbers:
            self.accepted.setdefault(number, self._simulation.now)
        self.observer.answered(numbers, since)

    # The event source mapping

    def _tick_at(self, when: float) -> None:
        when = max(when, self._standstill_until, self._simulation.now)
        if when < self._next_tick:
            self._next_tick = when
            self._simulation.at(when, lambda: self._tick(when))

    def _tick(self, when: float) -> None:
        if when != self._next_tick:
            return
        self._next_tick = float("inf")
        now = self._simulation.now
        if self._trouble.strike(Kind.KINESIS_READ):
            self._tick_at(now + _READ_AGAIN_SECONDS)
            return
        while invocation := self._poller.poll(now):
            self._invoke_worker(invocation)
        self._tick_at(min(self._poller.ready_at, now + _IDLE_POLL_EVERY))

    def _invoke_worker(self, invocation: Invocation) -> None:
        def done(outcome: Outcome) -> None:
            self._poller.complete(invocation, outcome, self._simulation.now)
            self._tick_at(self._simulation.now)

        self._changed.deliver(invocation.event, done)

    def _read_filtered(self) -> None:
        """Read again the records that a filter left out, as an operator does after removing the filter."""
        is_busy = False
        for shard, first in list(self._changed.filtered.items()):
            poller = self._poller.pollers.get(shard)
            if poller and first > int(poller.last_settled or 0):
                is_busy = True  # what was left over of its batch is still to be settled
                continue
            try:
                if poller:
                    poller.rewind(str(first))
            except ValueError:  # an invocation is under way
                is_busy = True
            else:
                del self._changed.filtered[shard]
        if is_busy:  # retry once for all shards: a retry per shard would multiply every five seconds
            self._after(5, self._read_filtered)
        self._tick_at(self._simulation.now)

    def _border(self, records: Sequence[Record]) -> int:
        if chances := self._trouble.strike(Kind.BORDERS):
            return chances.randint(1, len(records))
        return len(records)

    # The overflow queue's mapping

    def _drain(self) -> None:
        if self._simulation.now < self._standstill_until:
            self._simulation.at(self._standstill_until, self._drain)
            return
        if self._trouble.active(Kind.QUEUE_OFF):
            self._trouble.count(Kind.QUEUE_OFF)
            return
        if self._draining >= 2:
            self._after(5, self._drain)
            return
        queue, url = self.world.queue, self.world.queue_url
        messages = receive(queue, url, self._chance.choice((1, 10, 1000)))
        if not messages:
            return
        if self._trouble.strike(Kind.SQS_TWICE):
            for message in messages:
                receipt = message["ReceiptHandle"]
                queue.change_message_visibility(QueueUrl=url, ReceiptHandle=receipt, VisibilityTimeout=0)
            self._after(self._chance.random() * 3, self._drain)

        event = {"Records": [record_of(message, _QUEUE_ARN) for message in messages]}
        self._draining += 1
        self.drain.invoke(event, partial(self._drained, messages))

    def _drained(self, messages: list[dict[str, Any]], outcome: Outcome) -> None:
        """Delete the messages that an invocation handled."""
        self._draining -= 1
        if isinstance(outcome, Returned):
            settle(self.world.queue, self.world.queue_url, messages, outcome.value)
        # a failed message becomes visible after the time-out, or when the drainer decides
        for seconds in (1, 125, VISIBILITY_SECONDS + 1):
            self._after(seconds, self._drain)

    # The sender's timers

    def _send_by_timer(self) -> None:
        if not self._is_sending:
            return
        now, pause = self._simulation.now, SEND_EVERY
        if not self.audit.is_idle():
            self._waited_at = now
        is_calm = now - self._waited_at > _CALM_SECONDS and now - self._sent_at < _CALM_SECONDS
        if now >= self._standstill_until and not is_calm:
            self._sent_at = now
            self.sender.invoke({})
        if self.schedule.setup.is_long and now > self._asked_at + _QUIET_SECONDS:
            pause = SWEEP_EVERY
        self._simulation.at(now + pause, self._send_by_timer)

    def _sweep(self) -> None:
        if self._simulation.now < self.schedule.end:
            self._note_forced()
            self.sender.invoke({"sweep": True})
            self.world.expire()
            pause = SWEEP_EVERY * (_SELDOM if self.schedule.setup.is_long else 1)
            self._after(pause, self._sweep)

    # Operators

    def act(self, act: Act) -> None:
        """Make an operator act now. Nobody maps an account to another database while the ledger is restored."""
        if act.kind is Kind.REMAP and self.restoring.is_under_way:
            self._after(_STEP, partial(self.act, act))
            return
        if act.kind not in {Kind.RECREATE, Kind.RETENTION}:  # they count themselves when they happen
            self._trouble.count(act.kind)
        acts: dict[Kind, Callable[..., None]] = {
            Kind.SEND: lambda kinds: self.sender.invoke({"kinds": list(kinds)}),
            Kind.EDIT: self._edit,
            Kind.DROP: self._drop,
            Kind.FORCE: self._force,
            Kind.REMAP: lambda account, database: self.world.remap(account, database=database),
            Kind.PLAN: lambda account, mode: self.world.remap(account, plan=plans.plan(mode, TABLES)),
            Kind.DISABLE: self._disable,
            Kind.GARBAGE: self._put_garbage,
            Kind.LIMITS: self._limit,
            Kind.RESHARD: self._reshard,
            Kind.RECREATE: self._create_again,
            Kind.RETENTION: self._retain,
            Kind.CROWD: self._crowd,
            Kind.REPLAY: self._replay,
            Kind.STANDSTILL: self._stand_still,
        }
        acts[act.kind](*act.arguments)

    def _held(self, where: float, *states: State) -> Held | None:
        """Return one of the chunks in these states that hold rows."""
        held = [one for one in self.audit.held() if one.entry.state in states]
        held = [one for one in held if one.values and not one.key.group.code]
        return held[int(where * len(held))] if held else None

    def _edit(self, where: float) -> None:
        """Edit dead rows: give each one more column."""
        held = self._held(where, State.DEAD)
        if held is None or held.values is None:
            return
        rows = b"".join(msgpack.packb(row | {"edited": True}) for row in held.values)
        asked = {"chain": held.span.chain.name, "after": held.span.after, "chunk": held.key.name}
        self.sender.invoke({"edit": asked | {"rows": b64encode(compress(rows)).decode()}})

    def _drop(self, where: float) -> None:
        """Drop rows, if Treasure Data cannot have them."""
        held = self._held(where, State.DEAD, State.WAITING)
        if held is None:
            return
        span, planned = held.span, held.key.planned
        self.given_up[span.place, planned] = self.audit.numbers(span, planned)
        chunk = [span.chain.name, span.after, held.key.name]
        self.sender.invoke({"kinds": ["dead", "waiting"], "decision": "drop", "chunks": [chunk]})

    def _force(self, tag: int, since: float | None) -> None:
        """Send delivered rows once more, perhaps only those that arrived after a share of the schedule's time."""
        begin = None if since is None else round((START + since * self.schedule.setup.horizon) * 1000)
        places = [[span.chain.name, span.after] for span in self.audit.ledger.spans()]
        self._tags.add(f"tag-{tag}")
        self.sender.invoke({"force": {"tag": f"tag-{tag}", "since": begin, "places": places}})

    @property
    def dropped(self) -> set[int]:
        """Events whose rows an operator dropped."""
        found = set()
        for (place, planned), numbers in self.given_up.items():
            span = self.audit.ledger.get(place)
            for leaf in span.leaves(planned) if span is not None and planned in span.chunks else ():
                if span is not None and span.entry(leaf).state is State.DROPPED:
                    rows = leaf.within(len(numbers))
                    found.update(numbers[rows.start : rows.stop])
        return found

    def _note_forced(self) -> None:
        """Note which events the forced replays that an operator wanted have sent again, while their objects are there."""
        for span in self.audit.ledger.spans() if self._tags else ():
            is_new = span.chain.is_forced and span.place not in self._forced_places
            is_there = is_new and name_of(span) not in self.world.away
            if is_there and span.chain.shard.split("#")[1] in self._tags:
                self._forced_places.add(span.place)
                for key in span.chunks:
                    with suppress(InvalidObjectError):  # there is nothing but a number of forgotten rows
                        self.forced.update(self.audit.numbers(span, key))

    def _put_garbage(self, data: bytes) -> None:
        self.garbage.append(data)
        self.world.stream.put_record(StreamName=STREAM, Data=data, PartitionKey="garbage")

    def _disable(self, account: str, what: str) -> None:
        """Disable an account or revoke its key, or neither any more."""
        status = "disabled" if what == "account" else "active"
        self.world.remap(account, status=status, revoked_key_ids=frozenset({"k1"} if what == "key" else ()))

    def _limit(self, rows: int, size: int, is_beside: bool) -> None:
        """Deploy a version that splits chunks differently, perhaps beside the one before."""
        self.world.cuts = [*self.world.cuts[-1:] * is_beside, (rows, size)]
        for function in self.functions:
            function.deploy()

    def _stand_still(self, seconds: float) -> None:
        self._standstill_until = self._simulation.now + seconds
        for function in self.functions:
            for process in list(function.running):
                self._simulation.kill(process)
        self._next_tick = float("inf")
        self._tick_at(self._standstill_until)

    def _reshard(self, how: str, where: float) -> None:
        stream = self.world.stream
        listed = Shards(stream, STREAM, self.world.clock).all()  # type: ignore[arg-type]  # a double
        shards = sorted((one for one in listed if one.is_open), key=lambda one: one.keys.start)
        place = int(where * len(shards))
        if how == "merge" and len(shards) > 1:
            place = min(place, len(shards) - 2)
            one, other = (shard.shard_id for shard in shards[place : place + 2])
            stream.merge_shards(StreamName=STREAM, ShardToMerge=one, AdjacentShardToMerge=other)
        else:
            name, keys = shards[place].shard_id, shards[place].keys
            middle = str((keys.start + keys.stop - 1) // 2)
            stream.split_shard(StreamName=STREAM, ShardToSplit=name, NewStartingHashKey=middle)
        self._tick_at(self._simulation.now + 10)

    def _create_again(self, restart: bool) -> None:
        """Delete the stream once it is drained, and recreate it, perhaps with the old sequence numbers."""
        if not self._is_drained(partial(self._create_again, restart)):
            return
        self._trouble.count(Kind.RECREATE)
        stream = self.world.stream
        stream.delete_stream(StreamName=STREAM)
        if restart:
            stream.restart_numbers()
        self.world.create_stream()
        self._poller = StreamPoller(stream, self._mapping)
        self._tick_at(self._simulation.now)

    def _retain(self, hours: int) -> None:
        """Change the stream's retention once no record waits that a shorter one could remove."""
        if self._is_drained(partial(self._retain, hours)):
            self._trouble.count(Kind.RETENTION)
            self.world.stream.increase_stream_retention_period(StreamName=STREAM, RetentionPeriodHours=hours)

    def _is_drained(self, again: Callable[[], None]) -> bool:
        """Return whether the stream holds nothing that is in no span; if not, try again later."""
        now = self._simulation.now
        filters = [one for one in self.schedule.windows if one.kind is Kind.FILTERED]
        filtered = any(one.begin <= now <= one.end for one in filters)
        running = any(function.running for function in self.functions)
        busy = filtered or running or self.world.queue.messages(self.world.queue_url) or self.backlog()
        if busy and now < self.schedule.end:
            self._after(29, again)
        return not busy

    def _records(self, shard: str) -> list[Record]:
        return [self._mapping.record(shard, record) for record in self.world.stream.records(STREAM, shard)]

    def _shards(self) -> list[str]:
        return [shard["ShardId"] for shard in self.world.stream.list_shards(StreamName=STREAM)["Shards"]]

    def _replay(self, where: float, start: float, count: int) -> None:
        shards = self._shards()
        shard = shards[int(where * len(shards))]
        records = self._records(shard)
        first = int(start * len(records))
        if records:
            self._replay_batch(records[first : first + count])

    def _replay_batch(self, records: list[Record]) -> None:
        self.worker.invoke(event_of(records) | {"replay": True})

    def _replay_everything(self) -> None:
        """Replay everything that the stream still has."""
        counts = (1, 5, 40, 300) if self.schedule.setup.window is None else (300, 5000)
        for shard in self._shards():
            records = self._records(shard)
            while records:
                count = self._chance.choice(counts)
                self._replay_batch(records[:count])
                records = records[count:]
