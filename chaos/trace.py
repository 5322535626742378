"""Watches a world's services at their edges, and judges what happens by the specification while the run goes on.

It sees what took effect (puts and deletes of S3, writes of DynamoDB), what clients were told (by Treasure Data, by ListShards), and what
Lambda was told about a batch. From the worker it takes only the formats of the ledger and of span objects.
"""

import json
import re
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from copy import replace
from dataclasses import dataclass, fields
from functools import partial
from hashlib import md5
from itertools import chain, filterfalse
from math import inf
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import msgpack
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError

from chaos.audit import unpacked
from chaos.clients import Around, start_of
from chaos.judge import Judge
from chaos.platform import LONGEST_OVERRUN, Function
from chaos.schedule import START as BEGINNING
from chaos.simulation import Task
from chaos.specification import END, NOWHERE, Chain, Chunk, Entry, Event, Item, Place, Record, Shard, Times
from chaos.trouble import Kind
from chaos.world import STREAM, TABLE, TD_MEMORY_SECONDS, TD_QUERY_DELAY_SECONDS, World
from doubles.event_source import Outcome, Returned, settled_count
from doubles.treasure_data.in_process import Answer
from shared.errors import InvalidObjectError
from shared.telemetry import NullTelemetry
from worker import ledger, span_object
from worker.chain import ChainId, Owner
from worker.claims import DAMAGED_SECONDS, LATE_SECONDS
from worker.index import Index, decode, digest_of
from worker.passing import MARGIN_SECONDS
from worker.record import CLAIMED, NOBODY, Number, sequence_number
from worker.rows import compress, decompress, sample, spread
from worker.span import ChunkKey, Span, digest_of_numbers
from worker.span import Place as SpanPlace
from worker.span_object import SpanObjects
from worker.states import LONGEST_INVOCATION_SECONDS, State
from worker.sweeper import INDEX_SECONDS, UNREFERENCED_SECONDS
from worker.treasure_data.answer import TdAnswer, moment
from worker.turn import UNSETTLED_SECONDS

_MOST_TOLD, _MOST_RECENT, _MOST_SHOWN, _MOST_SIGNS = 5, 500, 6, 600
_NOTHING = Event("", 0, "")
_GZIP = b"\x1f\x8b\x08"
_NO_ROWS = compress(b"")
_EVENT_ID = re.compile(r"event_id = '((?:[^']|'')*)'")
_NOT_NOW = {401, 403, 404, 425, 429}
_UNPROVED = {"ask", "own clearing", "untried by version"}
"""What is broken on purpose where the API key may not query: then rows are sent again without proof, and counted."""
_EXEMPT: dict[Kind, set[str]] = {
    # stamps run ahead by more than MARGIN, while a listing is old
    Kind.KINESIS_AHEAD: {"all shards", "until copies claim", "margin", "close", "look after passing"},
    Kind.PAUSE: {"probe first"},  # a thread may have looked at a database's health before it was paused
}
"""What cannot hold with some kinds of trouble."""

_DAMAGE = {Kind.S3_OTHER_OBJECT, Kind.S3_TRUNCATED, Kind.S3_FOREIGN_PAGE}

Known = tuple[Place, str, int]
"""A chunk's span, its key and its generation."""


def times_of(world: World) -> Times:
    """Return the protocol's times as the product and the schedule set them."""
    acts, setup = world.schedule.acts, world.schedule.setup
    kinds = {window.kind for window in world.schedule.windows}
    hours = [setup.retention_hours, *(act.arguments[0] for act in acts if act.kind is Kind.RETENTION)]
    return Times(
        same_id=TD_MEMORY_SECONDS - LONGEST_INVOCATION_SECONDS,
        ask=TD_MEMORY_SECONDS + TD_QUERY_DELAY_SECONDS,
        invocation=UNSETTLED_SECONDS,
        late=LATE_SECONDS,
        margin=MARGIN_SECONDS,
        # the sweep goes by the hour in an object's name, and a stalled invocation may put the object hours later
        orphan=UNREFERENCED_SECONDS - LONGEST_OVERRUN,
        retention=max(hours) * 3600,
        index=min(hours) * 3600 + INDEX_SECONDS,
        damaged=DAMAGED_SECONDS if kinds & _DAMAGE else inf,
    )


@dataclass(slots=True)
class _Question:
    """What one thread is asking Treasure Data."""

    about: list[list[Known]]  # for each count, the chunks whose rows it counts
    is_of_seconds: bool = False  # it counts all rows of the same seconds
    started: float = 0.0  # when its job started, UNIX seconds
    # those of `about` whose count was 0; None before there was a result
    none: list[list[Known]] | None = None
    missing: str = ""  # the name of the table or database that Treasure Data said it does not have


class Trace:
    """Watches a world that has made no call yet, and judges it."""

    def __init__(self, world: World) -> None:
        self.judge = Judge(times_of(world))  # follows the run
        self.broken: Counter[str] = Counter()  # how often each rule was broken
        # the first broken rules, each with its event and what happened to the same span before
        self.told: list[str] = []
        self._world = world
        self._simulation = world.simulation
        self._recent: deque[Event] = deque(maxlen=_MOST_RECENT)
        self._exempt = set() if world.schedule.setup.may_query else {*_UNPROVED}
        for window in world.schedule.windows:
            self._exempt |= _EXEMPT.get(window.kind, set())
        self._ledger = ledger.Ledger(world.table, TABLE, world.clock, bytes, NullTelemetry())  # type: ignore[arg-type]  # a double
        self._bodies: dict[str, bytes] = {}  # of objects as they were put, whatever has become of them since
        self._objects = SpanObjects(self)  # type: ignore[arg-type]  # it only gets
        self._stored: dict[str, tuple[frozenset[int], bytes, dict[str, float]]] = {}
        self._chains: dict[str, str] = {}  # the name of each shard's chain
        self._ids: dict[str, Known] = {}  # by unique_id
        self._doubts: dict[tuple[str, str], dict[Known, tuple[Span, ChunkKey]]] = {}  # by database and table
        self._doubted: dict[tuple[Place, str], tuple[tuple[str, str], Known]] = {}
        self._samples: dict[Known, list[frozenset[str]]] = {}
        self._questions: dict[Task, _Question] = {}
        self._sent: dict[Task | None, dict[str, Any]] = {}  # the chunk that each task sent last
        self._calls = 0
        self._tokens: set[str] = set()  # of transactions
        world.told = self._told
        world.dynamodb.client = _watched(
            world.table,
            put_item=self._put,
            update_item=self._updated,
            batch_execute_statement=self._claimed,
            transact_write_items=self._transacted,
        )
        world.s3.client = _watched(
            world.bucket,
            put_object=lambda request, _: self.stored(request["Key"], bytes(request["Body"])),
            delete_object=lambda request, _: self._deleted(request["Key"]),
        )
        opens: Callable[..., Any] = world.http.urlopen
        world.http.__dict__["urlopen"] = lambda method, url, **options: self.exchange(
            method, url, options["body"] or b"", partial(opens, method, url, **options)
        )
        lists: Callable[..., Any] = world.kinesis.list_shards
        world.kinesis.__dict__["list_shards"] = lambda **request: self.listed(lists(**request))

    def watch(self, worker: Function) -> None:
        """Watch what the worker tells Lambda about batches."""
        worker.told = self._acknowledged

    def see(self, what: str, **fields: Any) -> None:
        """Judge an event of the running process."""
        event = Event(what, self._simulation.now, self._by(), **fields)
        try:
            rules = self.judge.see(event)
        except Exception as error:  # noqa: BLE001 -- the process under test must not see it
            rules = [f"the judge cannot follow: {error!r}"]
        for rule in rules:
            if rule not in self._exempt:
                self.broken[rule] += 1
                if self.broken[rule] == 1 and len(self.told) < _MOST_TOLD:
                    self.told.append(self._tell(rule, event))
        self._recent.append(event)

    def _by(self) -> str:
        task = self._simulation.current
        process = task.process if task is not None else self._simulation.behalf
        return process.by if process is not None else "operator/0"

    def _tell(self, rule: str, event: Event) -> str:
        place = _place_of(event)
        before = [one for one in self._recent if one.by == event.by or _place_of(one) == place != NOWHERE]
        lines = [_brief(one) for one in before[-_MOST_SHOWN:]]
        return "\n      ".join((f"{rule}: {_brief(event)}", *lines))

    def get(self, name: str, part: tuple[int, int]) -> bytes | None:
        """Return a part of an object as it was put."""
        body = self._bodies.get(name)
        return None if body is None else body[part[0] : sum(part)]

    # S3

    def stored(self, name: str, body: bytes) -> None:
        """Note that S3 has stored an object."""
        found = span_object.parse(name)
        index = None if found is None else _index_of(body, found.digest)
        if found is None or index is None:
            return
        self._bodies[name] = body
        numbers = frozenset(int(sequence_number(one)) for one in index.numbers)
        receipts = {one: at / 1000 for one, at in zip(index.request_ids, index.receipts, strict=True)}
        self._stored[name] = numbers, digest_of_numbers(index.numbers), receipts
        chunks = tuple(
            (_key(key), member.rows, member.digest.hex())
            for key, member in index.members.items()
            if member.length and not key.group.is_rejected
        )
        self.see("object put", name=name, digest=found.digest, records=_records(index), chunks=chunks)

    def _deleted(self, name: str) -> None:
        if self._stored.pop(name, None) is not None:
            self.see("object deleted", name=name)

    # DynamoDB

    def _put(self, request: Mapping[str, Any], _answer: Any) -> None:
        item = request["Item"]
        pk = item["pk"]["S"]
        if "g" in item:
            self.see("appended", **self._append(item))
        elif pk.startswith("tag#"):
            name, begin, end = _tag(item)
            self.see("tag bound", name=name, started=begin, until=end)

    def _told(self, what: str, **fields: Any) -> None:
        """Note what becomes of an object or the ledger, and what an operator has made of a restored one."""
        if what != "ledger repaired":
            self.see(what, **fields)
            return
        self._doubts.clear()
        self._doubted.clear()
        items, claims, tags = list[Item](), list[tuple[str, tuple[str, int]]](), []
        for item in self._world.table.items(TABLE):
            if "g" in item:
                items.append(replace(self._append(item)["item"], version=int(item["v"]["N"])))
            elif item["pk"]["S"].startswith("put#"):
                claims.append((_request_id(item["pk"]), _owner(item["owner"])))
            elif item["pk"]["S"].startswith("tag#"):
                tags.append(_tag(item))
        self.see(what, items=tuple(items), claims=tuple(claims), tags=tuple(tags))

    def _updated(self, request: Mapping[str, Any], _answer: Any) -> None:
        if "#v" in request.get("ExpressionAttributeNames", ()):
            self.see("written", **self._write(request))

    def _claimed(self, request: Mapping[str, Any], answer: Any) -> None:
        answered = zip(request["Statements"], answer["Responses"], strict=True)
        inserted = [one["Parameters"] for one, told in answered if "Error" not in told]
        claims = tuple((_request_id(pk), _owner(owner)) for pk, _, owner, _ in inserted)
        if claims:
            self.see("claimed", claims=claims)

    def _transacted(self, request: Mapping[str, Any], _answer: Any) -> None:
        """Note a transaction that appended a span, unless its token says that it was repeated and changed nothing."""
        if request["ClientRequestToken"] in self._tokens:
            return
        self._tokens.add(request["ClientRequestToken"])
        fields: dict[str, Any] = {}
        claims = []
        for kind, action in (next(iter(one.items())) for one in request["TransactItems"]):
            if kind == "Put":
                fields |= self._append(action["Item"])
            elif "#v" in action["ExpressionAttributeNames"]:
                fields |= self._write(action)
            else:
                owner = action["ExpressionAttributeValues"][":owner"]
                claims.append((_request_id(action["Key"]["pk"]), _owner(owner)))
        self.see("appended", **fields, claims=tuple(claims))

    def _append(self, item: Mapping[str, Any]) -> dict[str, Any]:
        span = self._span(item)
        place = _place(span)
        if span.chain.is_of_stream:
            self._chains.setdefault(span.chain.shard, span.chain.root.name)
        numbers, receipts = self._numbers(span)
        bare = Item(
            place,
            first=_number(span.first),
            last=_number(span.last),
            planned_at=span.planned_at / 1000,
            numbers=numbers,
            chunks=tuple(_chunk(span, key, receipts) for key in span.chunks if not key.group.is_rejected),
            latest=span.latest / 1000,
            object="" if span.object is None else span_object.name_of(span),
            digest="" if span.object is None else span.object.digest.hex(),
            done=span.settled,
        )
        entries = self._entries(span)
        if not span.settled:
            return {"item": bare}
        named = tuple((key, entry) for key, entry in entries.items() if entry.state != State.DELIVERED)
        return {"item": replace(bare, entries=named)}

    def _numbers(self, span: Span) -> tuple[frozenset[int], Mapping[str, float]]:
        """Return the numbers that a span's item stands for, and the receipts in its object."""
        if span.object is None:
            borders = {_number(span.first), _number(span.last)} if span.records else ()
            return frozenset(borders), {}
        numbers, digest, receipts = self._stored.get(span_object.name_of(span), (frozenset(), b"", {}))
        is_same = len(numbers) == span.records and (not span.records or digest == span.digest)
        return (numbers if is_same else frozenset({-1})), receipts

    def _write(self, request: Mapping[str, Any]) -> dict[str, Any]:
        span = self._span(request["Key"])
        place = _place(span)
        item = self.judge.items.get(place, Item(place))
        version = request["ExpressionAttributeValues"].get(":version", {"N": "0"})
        entries = self._entries(span)
        fields = {
            "place": place,
            "version": int(version["N"]),
            "done": span.settled,
            "changes": tuple(
                (key, entry)
                for key, entry in entries.items()
                if entry != (item.by_key.get(key) or Entry(State.DELIVERED.value))
            ),
        }
        if span.object is not None and (name := span_object.name_of(span)) != item.object:
            fields |= {"name": name, "digest": span.object.digest.hex()}
        named = {_key(key): key for key in span.chunks if not key.group.is_rejected}
        had = {one.name for one in item.chunks}
        if named.keys() != had:  # chunks were cut anew
            _, receipts = self._numbers(span)
            fields["removed"] = tuple(sorted(had - named.keys()))
            new = [key for name, key in named.items() if name not in had]
            fields["added"] = tuple(_chunk(span, key, receipts) for key in new)
        return fields

    def _span(self, key: Mapping[str, Any]) -> Span:
        span = self._ledger.get(SpanPlace.parse(key["pk"]["S"], key["sk"]["S"]))
        if span is None:
            raise RuntimeError("a span that was written is not there")
        return span

    def _entries(self, span: Span) -> dict[str, Entry]:
        """Return the entries of all chunks of a span."""
        found: dict[str, Entry] = {}
        place = _place(span)

        def walk(key: ChunkKey) -> None:
            entry = found[_key(key)] = _entry(span, key)
            if span.entry(key).state is State.SPLIT:
                for half in key.halves:
                    walk(half)
            else:
                self._note_doubt(span, key, place, entry)

        for planned in span.chunks:
            if not planned.group.is_rejected:
                walk(planned)
        return found

    def _note_doubt(self, span: Span, key: ChunkKey, place: Place, entry: Entry) -> None:
        """Remember under which id a chunk is sent, and that Treasure Data may be asked for it."""
        at = place, _key(key)
        if (before := self._doubted.pop(at, None)) is not None:
            self._doubts[before[0]].pop(before[1], None)
        if entry.since is None:
            if before is not None:
                self._samples.pop(before[1], None)
                if entry.state == State.DELIVERED and self._is_of_persons(span, key):
                    self._settle([[before[1]]], "persons", self._simulation.now)
            return
        known = (*at, entry.generation)
        database = entry.database or ""
        self._ids[span.unique_id(key, database)] = known
        asked = database, key.group.table
        self._doubted[at] = asked, known
        self._doubts.setdefault(asked, {})[known] = span, key

    def _is_of_persons(self, span: Span, key: ChunkKey) -> bool:
        try:
            return all(map(self._world.is_forgotten, unpacked(self._objects.payload(span, key))))
        except InvalidObjectError:
            return False

    # Kinesis and Lambda

    def listed(self, answer: dict[str, Any]) -> dict[str, Any]:
        """Note an answer of ListShards as its caller got it."""
        names = {
            one["ShardId"]: ChainId(STREAM, start_of(one), one["ShardId"]).name
            # the answer may lack the parents that it names
            for one in (*self._world.stream.list_shards(StreamName=STREAM)["Shards"], *answer["Shards"])
        }
        if any(self._chains.get(shard, name) != name for shard, name in names.items()):
            self._chains.clear()
            self.see("stream deleted")
        gone = {self._chains[shard] for shard in self._chains.keys() - names.keys()}
        for name in gone - self.judge.expired:
            self.see("shard expired", name=name)
        self._chains |= names
        shards = []
        for one in answer["Shards"]:
            keys = one["HashKeyRange"]
            low, high = int(keys["StartingHashKey"]), int(keys["EndingHashKey"])
            is_open = "EndingSequenceNumber" not in one["SequenceNumberRange"]
            parents = [one.get(name) for name in ("ParentShardId", "AdjacentParentShardId")]
            # but for those that expired before anybody saw them
            known = tuple(self._chains[name] for name in parents if name in self._chains)
            shards.append(Shard(names[one["ShardId"]], low, high, is_open, known))
        self.see("listed", shards=tuple(shards))
        return answer

    def _acknowledged(self, event: Mapping[str, Any], outcome: Outcome) -> None:
        if "replay" in event or not isinstance(outcome, Returned):
            return
        numbers = [record["kinesis"]["sequenceNumber"] for record in event["Records"]]
        shard = event["Records"][0]["eventID"].partition(":")[0]
        settled = numbers[: settled_count(outcome, numbers)]
        if settled:
            name = self._chains.get(shard, shard)
            self.see("acknowledged", name=name, numbers=tuple(map(int, settled)))

    # Treasure Data

    def exchange(self, method: str, url: str, body: bytes, call: Callable[[], Answer]) -> Answer:
        """Make a request to Treasure Data, and note what was sent and answered."""
        path = [unquote(part) for part in urlsplit(url).path.split("/")[1:]]
        match method, path:
            case "PUT", ["v3", "table", "import_with_id", database, table, unique_id, _]:
                return self._import(body, (database, table, unique_id), call)
            case "POST", ["v3", "table", "create", *_]:
                return self._create(call)
            case "POST", ["v3", "job", "issue", "trino", database]:
                return self._ask(body, str(database), call)
            case "GET", ["v3", *asked]:
                response = call()
                task = self._simulation.current
                question = None if task is None else self._questions.get(task)
                if question is not None:
                    self._read(question, asked, _answer(response))
                return response
        return call()

    def _import(self, body: bytes, to: tuple[str, str, str], call: Callable[[], Answer]) -> Answer:
        database, table, unique_id = to
        checksum = md5(body, usedforsecurity=False).hexdigest()
        sent = {"md5_hex": checksum, "unique_id": unique_id, "database": database, "table": table}
        if body == _NO_ROWS:
            response = call()
            self.see("probed", database=database, answer=_probe_answer(_answer(response), sent))
            return response
        self._calls += 1
        place, key, generation = self._ids.get(unique_id, (NOWHERE, unique_id, 0))
        chunk = {"place": place, "key": key, "generation": generation, "database": database}
        chunk |= {"call": self._calls}
        self._sent[self._simulation.current] = chunk
        self.see("sent", **chunk, digest=digest_of(body).hex())
        try:
            response = call()
        except HTTPError as error:
            is_unsent = isinstance(error, NewConnectionError | ConnectTimeoutError)
            self.see("answered", **chunk, answer="unsent" if is_unsent else "unknown")
            raise
        self.see("answered", **chunk, answer=_import_answer(_answer(response), sent))
        return response

    def _create(self, call: Callable[[], Answer]) -> Answer:
        """Create the table that a chunk goes to. Whoever may not create it never can send the chunk."""
        response = call()
        answer, chunk = _answer(response), self._sent.get(self._simulation.current)
        if chunk is not None and answer.status == 403:
            self.see("answered", **chunk, answer="refused")
        return response

    def _ask(self, body: bytes, database: str, call: Callable[[], Answer]) -> Answer:
        query = "".join(parse_qs(body.decode()).get("query", ()))
        ids = [
            frozenset(one.replace("''", "'") for one in _EVENT_ID.findall(count))
            for count in query.partition(' FROM "')[0].split("COUNT(")[1:]
        ]
        task = self._simulation.current
        if task is None:
            return call()
        before = self._questions.pop(task, None)
        if any(ids):
            table = query.partition('FROM "')[2].partition('"')[0]
            question = _Question([list(self._with_rows(database, table, one)) for one in ids])
        else:
            asked = [] if before is None else before.about if before.none is None else before.none
            question = _Question(asked, is_of_seconds=True)
        self._questions[task] = question
        response = call()
        answer = _answer(response)
        if answer.is_refusal and answer.status == 404:
            question.missing = database
        return response

    def _with_rows(self, database: str, table: str, ids: frozenset[str]) -> Iterator[Known]:
        """Yield the chunks in doubt that are asked for with these events. A copy that may have been sent first has no database yet."""
        doubts = self._doubts.get((database, table), {}) | self._doubts.get(("", table), {})
        for known, (span, key) in doubts.items():
            if known not in self._samples:
                try:
                    payload = self._objects.payload(span, key)
                except InvalidObjectError:
                    continue
                rows = unpacked(payload)
                others = b"".join(map(msgpack.packb, filterfalse(self._world.is_forgotten, rows)))
                self._samples[known] = [
                    frozenset(str(row.get("event_id")) for row in rows_of(one))
                    for one in (payload, others or payload)
                    for rows_of in (sample, spread)
                ]
            if ids in self._samples[known]:
                yield known

    def _read(self, question: _Question, asked: list[str], answer: TdAnswer) -> None:
        match asked:
            case ["job", "status", _] if answer.status == 200 and answer.document.get("status") == "success":
                is_one = answer.document.get("num_records") == 1
                question.started = moment(answer.document.get("start_at")) if is_one else 0.0
            case ["job", "result", _]:
                counts = answer.counts(len(question.about))
                if counts is None:
                    return
                counted = list(zip(question.about, counts, strict=True))
                question.none = [about for about, count in counted if not count]
                if question.is_of_seconds:
                    self._settle(question.none, "counted none", question.started)
                else:
                    self._settle([one for one, count in counted if count], "counted", question.started)
            case ["table", "show", _, table]:
                if question.none is not None and answer.shows_columns(table):
                    self._settle(question.none, "counted none", question.started)
                elif answer.is_refusal and answer.status == 404:
                    question.missing = table
            case ["table" | "database" as kind, "list", *_] if question.missing:
                names = answer.names(f"{kind}s")
                if names is not None and question.missing not in names:
                    self._settle(question.about, "gone", self._simulation.now)

    def _settle(self, about: list[list[Known]], answer: str, started: float) -> None:
        for place, key, generation in chain.from_iterable(about):
            self.see("answered", answer=answer, place=place, key=key, generation=generation, started=started)


def _watched(client: Any, **seen: Callable[[dict[str, Any], Any], None]) -> Around:
    """Return a client; `seen` are told the requests and answers of some operations."""

    def see(operation: str, request: dict[str, Any], call: Callable[[], Any]) -> Any:
        answer = call()
        if operation in seen:
            seen[operation](request, answer)
        return answer

    return Around(client, see)


def _index_of(body: bytes, digest: str) -> Index | None:
    """Return the index at the end of a span object; None if it has none with this digest."""
    at = len(body)
    while (at := body.rfind(_GZIP, 0, at)) >= 0:
        if digest_of(body[at:]).hex() == digest:
            return decode(decompress(body[at:]))
    return None


def _records(index: Index) -> tuple[Record, ...]:
    rows: dict[int, list[tuple[str, int]]] = {}
    owned: set[int] = set()  # positions of records that have an account
    for key, member in index.members.items():
        name = _key(key)
        for position, count in zip(member.positions, member.row_counts, strict=True):
            rows.setdefault(position, []).append((name, count))
        if key.account != NOBODY:
            owned.update(member.positions)
    columns = zip(index.numbers, index.arrivals, index.request_ids, index.receipts, index.claims, strict=True)
    return tuple(
        Record(
            int(sequence_number(number)),
            arrival / 1000,
            request or (f"json#{number}" if position in owned or position in index.uncounted else ""),
            received / 1000,
            claim > 0,
            position not in index.uncounted,
            claim > CLAIMED,
            tuple(rows.get(position, ())),
        )
        for position, (number, arrival, request, received, claim) in enumerate(columns)
    )


def _place(span: Span) -> Place:
    return Place(_chain(span.chain, span.origin), _number(span.after))


def _chain(chain: ChainId, origin: str) -> Chain:
    if chain.is_of_stream:
        return Chain(chain.root.name, "#".join(chain.gaps))
    if chain.is_forced:
        return Chain("", "", chain.shard.split("#")[1], origin)
    return Chain("", "", "", chain.name)


def _number(number: Number) -> int:
    return END if number == ledger.BEHIND_ALL else int(sequence_number(number) or "0")


def _key(key: ChunkKey) -> str:
    """Return a chunk's name without the signs that separate halves."""
    return "/".join((key.planned.name.replace("/", "|"), *key.path))


def _chunk(span: Span, key: ChunkKey, receipts: Mapping[str, float]) -> Chunk:
    to, request = span.destination(key), key.group.request_id
    database = (to.database or None) if not request else None
    received = receipts.get(request, 0.0) if request else 0.0
    return Chunk(_key(key), span.chunks[key], database, request, received, not to.is_final)


def _entry(span: Span, key: ChunkKey) -> Entry:
    entry = span.entry(key)
    state, since = entry.state.value, None if entry.since is None else entry.since / 1000
    if entry.state not in (State.WAITING, State.AGAIN, State.DEAD):
        return Entry(state)
    if since is None:
        return Entry(state, None, entry.generation)
    is_dead = entry.state is State.DEAD
    return Entry(state, since, entry.generation, span.database(key), may_be_there=is_dead)


def _tag(item: Mapping[str, Any]) -> tuple[str, float, float]:
    """Return a forced replay's tag, and the arrivals that it stands for."""
    *_, since, until = json.loads(item["is"]["S"])
    begin, end = -inf if since is None else since / 1000, inf if until is None else until / 1000
    return item["pk"]["S"].removeprefix("tag#"), begin, end


def _request_id(pk: Mapping[str, Any]) -> str:
    return str(pk["S"]).removeprefix("put#")


def _owner(name: Mapping[str, Any]) -> tuple[str, int]:
    owner = Owner.parse(name["S"])
    return owner.chain.name, _number(owner.number)


def _answer(response: Answer) -> TdAnswer:
    return TdAnswer(response.status, response.whole)


def _import_answer(answer: TdAnswer, sent: Mapping[str, str]) -> str:
    """Return which of the documented answers to an import this is."""
    if answer.status == 200:
        told = {name: value for name, value in answer.document.items() if name in sent}
        return "imported" if "md5_hex" in told and told.items() <= sent.items() else "unknown"
    if not answer.is_refusal and answer.status == 413:
        return "too large"
    if not answer.is_refusal or not 400 <= answer.status < 500 or answer.status == 408:
        return "unknown"
    if answer.status == 409:
        return "imported"
    return "not now" if answer.status in _NOT_NOW else "refused"


def _probe_answer(answer: TdAnswer, sent: Mapping[str, str]) -> str:
    """Return the answer to a probe. It imports into a table that need not exist."""
    is_missing = answer.is_refusal and answer.status == 404
    return "imported" if is_missing else _import_answer(answer, sent)


def _place_of(event: Event) -> Place:
    return event.item.place if event.what == "appended" else event.place


def _brief(event: Event) -> str:
    members = {member.name: getattr(event, member.name) for member in fields(event)[3:]}
    told = (f"{name}={members[name]}" for name in members if members[name] != getattr(_NOTHING, name))
    return f"{event.at - BEGINNING:.3f} s {event.by} {event.what} {' '.join(told)}"[:_MOST_SIGNS]
