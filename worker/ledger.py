"""The ledger: spans, their plans and the states of their chunks, in one DynamoDB table (`pk`, `sk`, `ttl`).

    pk = chain, sk = after    a span, appended to its chain by one conditional put
    pk = put#<request id>     a claim: the one owner whose copy of an envelope counts
    pk = search#<request id>  how far shards have been read in search of an envelope
    pk = breakers, sk = name  a breaker: the database is failing, or was
    pk = tables#<account>     a table that was created for an account; `sk` is its number
    pk = set_aside#overflow   when the drainer last set something aside
    pk = watermarks, sk = account  the account's tables that get watermarks

Only this module knows the format of the items. The index `worklist` holds the spans with set-aside chunks: under `dead#<n>` if all of
these are dead letters, else under `aside#<n>`. Each kind has a few keys, so that an outage that parks everything does not overload one
partition. Spans that have rejected events and nothing set aside are under their day, `rejected#<days since 1970>`: nobody looks for
them once the events have expired.

Every write carries a random writer name. If a response is lost, the DynamoDB client may repeat a write that has succeeded, and the
repeated write fails its condition. The writer name on the item then shows that the write was ours.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import batched
from typing import TYPE_CHECKING, Any, NoReturn
from zlib import crc32

from botocore.exceptions import BotoCoreError, ClientError

from shared.clock import Clock
from shared.errors import LedgerUnavailableError, error_code
from shared.telemetry import Telemetry
from worker.chain import ChainId, ClaimOwner
from worker.delivery import ASIDE, FINAL, Entry, State
from worker.guards import NONE, Guard, Without
from worker.record import START, Number
from worker.span import (
    SECONDS_KEPT,
    Archived,
    ChunkKey,
    Cut,
    Database,
    Destination,
    Group,
    NotDeliverable,
    Owner,
    Span,
    milliseconds,
)

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

WORKLIST = "worklist"
"""The index of spans with set-aside chunks or rejected events."""
WORKLIST_KEYS = 8
MOST_CLAIMS = 25
"""DynamoDB accepts at most this many statements in one batch."""

_CHANGING = ("v", "w", "st", "x", "wk", "ttl")  # attributes of a span that change after it is planned
_SETTLED = FINAL | {State.SPLIT, State.REJECTED}
_BEHIND_ALL: Number = "999"
_BREAKERS = "breakers"
_CLAIM = "put#"
_SEARCH = "search#"
_TABLES = "tables#"
_SET_ASIDE_BY_DRAINER = {"pk": {"S": "set_aside#overflow"}, "sk": {"S": "-"}}
_WATCHED = "watermarks"
_WATCHED_SECONDS = 30 * 86_400
_MOST_WATCHED = 500  # tables of an account
_MOST_KEYS = 100  # of one BatchGetItem
_DAY = 86_400
_BREAKER_SECONDS_KEPT = 30 * 86_400

Item = dict[str, Any]


@dataclass(frozen=True, slots=True)
class OpenBreaker:
    """A failing database: its name, since when it has been failing (UNIX milliseconds) and why."""

    database: str
    since: int
    reason: str


@dataclass(frozen=True, slots=True)
class Place:
    """Where a span is in the ledger."""

    chain: ChainId
    after: Number

    @classmethod
    def parse(cls, chain: str, after: Number) -> "Place":
        """Return the place given by the name of a chain and a sequence number.

        Raises:
            ValueError: `chain` does not name a chain.
        """
        return cls(ChainId.parse(chain), after)


@dataclass(frozen=True, slots=True)
class Claim:
    """The claim on an envelope: its rows count only for the owner, which is a record or an overflow chain.

    Attributes:
        arrived_at: UNIX seconds at which the owner's record, or overflow message, arrived.
    """

    owner: ClaimOwner
    arrived_at: int


@dataclass(frozen=True, slots=True)
class Gap:
    """Where to append a span for a record that no span holds yet: at the end of a chain, or in a hole.

    Attributes:
        chain: the chain to append to; in a hole, the hole's own.
        after: the last sequence number of the span to follow; START for the first span.
        limit: the sequence number before which the new span must end; None if no span comes later.
        open_before: the span to follow, if that is open.
    """

    chain: ChainId
    after: Number
    limit: Number | None = None
    open_before: Span | None = None

    def has(self, number: Number) -> bool:
        """Return whether a record lies within the gap."""
        return self.after < number and (self.limit is None or number < self.limit)


class Ledger:
    """Reads and writes the ledger. Every method raises LedgerUnavailableError if the ledger cannot be reached."""

    def __init__(
        self,
        dynamodb: "DynamoDBClient",
        table: str,
        *,
        clock: Clock,
        entropy: Callable[[int], bytes],
        telemetry: Telemetry,
        without: Without = NONE,
    ) -> None:
        self._dynamodb = dynamodb
        self._table = table
        self._clock = clock
        self._entropy = entropy
        self._telemetry = telemetry
        self._without = without

    # Spans

    def preceding(self, chain: ChainId, number: Number) -> Span | None:
        """Return the chain's last span whose `after` is below `number`; it may hold the number, or lie before or behind it."""
        answer = self._call(
            self._dynamodb.query,
            KeyConditionExpression="pk = :pk AND sk < :sk",
            ExpressionAttributeValues={":pk": {"S": chain.name}, ":sk": {"S": number}},
            ScanIndexForward=False,
            Limit=1,
            ConsistentRead=True,
        )
        return _span(answer["Items"][0]) if answer["Items"] else None

    def locate(self, root: ChainId, number: Number) -> Span | Gap:
        """Return the span that holds a record, or the gap to append one in.

        Records between two spans are a hole: a replay planned the later span first. The spans of a hole form a chain of their own.
        """
        chain, limit = root, None
        while True:
            span = self.preceding(chain, number)
            if span is None:
                return Gap(chain, START, limit)
            if span.last < number:
                return Gap(chain, span.last, limit, None if span.done else span)
            if number >= span.first:
                return span
            chain, limit = chain.hole(span.after), span.first

    def get(self, place: Place) -> Span | None:
        """Return the span at a place; None if there is none."""
        item = self._get(_key(place.chain.name, place.after))
        return _span(item) if item else None

    def append(self, span: Span) -> tuple[bool, Span]:
        """Append a span to its chain, unless another span is in its place. Exactly-once delivery rests on this condition.

        Returns:
            Whether this call appended it, and the span that is there now.
        """
        span = replace(span, version=1, writer=self._writer())
        condition = {"ConditionExpression": "attribute_not_exists(sk)"}
        if Guard.CONDITIONAL_PLAN in self._without:
            condition = {}
        existing = self._write(self._dynamodb.put_item, Item=_item(span), **condition)
        if existing is None:
            return True, span
        found = _span(existing)
        return found.writer == span.writer, found

    def update(self, span: Span) -> tuple[bool, Span]:
        """Write the entries of a span, unless another invocation has written it since `span` was read.

        Returns:
            Whether this call wrote it, and the span that is there now.

        Raises:
            LedgerUnavailableError: the ledger cannot be reached, or no longer has the span.
        """
        written = replace(span, version=span.version + 1, writer=self._writer())
        changed = _progress(written)
        if _is_final(written):
            changed["ttl"] = {"N": str(self._expiry(SECONDS_KEPT))}
        sets = ", ".join([f"#{name} = :{name}" for name in changed])
        removes = ", ".join([f"#{name}" for name in _CHANGING if name not in changed])
        values = {f":{name}": value for name, value in changed.items()}
        condition = "attribute_exists(sk)"
        if Guard.IF_VERSION not in self._without:
            condition = "#v = :version"
            values[":version"] = {"N": str(span.version)}
        existing = self._write(
            self._dynamodb.update_item,
            Key=_key(span.chain.name, span.after),
            UpdateExpression=f"SET {sets}" + (f" REMOVE {removes}" if removes else ""),
            ConditionExpression=condition,
            ExpressionAttributeNames={f"#{name}": name for name in _CHANGING},
            ExpressionAttributeValues=values,
        )
        if existing is None:
            return True, written
        if not existing:
            raise LedgerUnavailableError("the ledger no longer has the span")
        found = _span(existing)
        return found.writer == written.writer, found

    def fence(self, span: Span) -> tuple[bool, Span]:
        """Write the span before anything of it is sent, so that the next write of any other invocation that works on it fails.

        Returns and raises: as `update`.
        """
        return (True, span) if Guard.FENCE in self._without else self.update(span)

    def worklist(self, *, dead: bool) -> Iterator[Place]:
        """Yield the spans whose set-aside chunks are all dead letters, or the other spans with set-aside chunks. The index may lag."""
        for number in range(WORKLIST_KEYS):
            yield from self._places(f"{'dead' if dead else 'aside'}#{number}")

    def _places(self, key: str) -> Iterator[Place]:
        for page in self._pages(
            self._dynamodb.query,
            IndexName=WORKLIST,
            KeyConditionExpression="wk = :key",
            ExpressionAttributeValues={":key": {"S": key}},
        ):
            for item in page["Items"]:
                yield Place.parse(item["pk"]["S"], item["sk"]["S"])

    def rejected(self, since: float, until: float) -> Iterator[Place]:
        """Yield the spans with rejected events and nothing set aside that were planned on the days from `since` to `until` (UNIX seconds)."""
        for day in range(int(since // _DAY), int(until // _DAY) + 1):
            yield from self._places(f"rejected#{day}")

    def latest(self, chain: ChainId, at_once: int = 100) -> Iterator[Span]:
        """Yield a chain's spans, the latest first, reading `at_once` at a time."""
        yield from map(_span, self._query(chain.name, ScanIndexForward=False, Limit=at_once))

    def end(self, chain: ChainId) -> Number:
        """Return the last sequence number of a chain's last span; START if it has no span."""
        span = self.preceding(chain, _BEHIND_ALL)
        return START if span is None else span.last

    def spans(self, since: float | None = None, until: float | None = None) -> Iterator[Span]:
        """Yield all spans, or those planned from `since` on and before `until` (UNIX seconds). Scans the table: one read unit per 4 KB."""
        condition, values = "attribute_exists(g)", {}
        for operator, name, moment in ((">=", ":since", since), ("<", ":until", until)):
            if moment is not None:
                condition += f" AND #at {operator} {name}"
                values[name] = {"N": str(milliseconds(moment))}
        request: dict[str, Any] = {"FilterExpression": condition}
        if values:
            request |= {"ExpressionAttributeNames": {"#at": "at"}, "ExpressionAttributeValues": values}
        for page in self._pages(self._dynamodb.scan, ConsistentRead=True, **request):
            yield from map(_span, page["Items"])

    def open_spans(self, before: float) -> Iterator[list[Span]]:
        """Yield, page by page, the open spans planned before a time (UNIX seconds). Scans the table: one read unit per 8 KB."""
        for page in self._pages(
            self._dynamodb.scan,
            FilterExpression="attribute_exists(g) AND st = :open AND #at < :before",
            ExpressionAttributeNames={"#at": "at"},
            ExpressionAttributeValues={":open": {"S": "open"}, ":before": {"N": str(milliseconds(before))}},
        ):
            yield [_span(item) for item in page["Items"]]

    # Claims

    def claim(self, wanted: Mapping[str, Claim], seconds_kept: int) -> dict[str, Claim]:
        """Claim up to MOST_CLAIMS envelopes, by request id; return the claim that holds for each, as far as DynamoDB answers."""
        ttl = {"N": str(self._expiry(seconds_kept))}
        insert = f"INSERT INTO \"{self._table}\" VALUE {{'pk': ?, 'sk': ?, 'owner': ?, 'at': ?, 'ttl': ?}}"
        answer = self._call_bare(
            self._dynamodb.batch_execute_statement,
            Statements=[
                {
                    "Statement": insert,
                    "Parameters": [*_key(f"{_CLAIM}{one}").values(), *_claim_values(claim).values(), ttl],
                }
                for one, claim in wanted.items()
            ],
        )
        claims, refused = {}, []
        for (one, claim), response in zip(wanted.items(), answer["Responses"], strict=True):
            code = response.get("Error", {}).get("Code")
            if code is None:
                claims[one] = claim
            elif code in ("DuplicateItem", "ConditionalCheckFailed"):
                refused.append(one)
        return claims | (self._claimed(refused) if refused else {})

    def claim_one(self, request_id: str, wanted: Claim, seconds_kept: int) -> bool:
        """Claim an envelope; return whether the claim of `wanted.owner` holds.

        Raises:
            LedgerUnavailableError: the ledger cannot be reached, or does not say who owns the envelope.
        """
        claim = self.claim({request_id: wanted}, seconds_kept).get(request_id)
        if claim is None:
            raise LedgerUnavailableError("the ledger does not say who owns an envelope")
        return claim.owner == wanted.owner

    def owner(self, request_id: str) -> Claim | None:
        """Return the claim on an envelope; None if there is none."""
        item = self._get(_key(f"{_CLAIM}{request_id}"))
        return _claim(item) if item else None

    def _claimed(self, ids: list[str]) -> dict[str, Claim]:
        items = self._items([_key(f"{_CLAIM}{one}") for one in ids])
        return {item["pk"]["S"].removeprefix(_CLAIM): _claim(item) for item in items}

    def take_over(self, request_id: str, wanted: Claim, old: ClaimOwner) -> bool:
        """Transfer an envelope from the owner `old` to `wanted.owner`; return whether `wanted.owner` has it now."""
        existing = self._write(
            self._dynamodb.update_item,
            Key=_key(f"{_CLAIM}{request_id}"),
            UpdateExpression="SET #owner = :owner, #at = :at",
            ConditionExpression="#owner = :old OR #owner = :owner",
            ExpressionAttributeNames={"#owner": "owner", "#at": "at"},
            ExpressionAttributeValues={":old": {"S": old.name}, **_claim_values(wanted)},
        )
        return existing is None

    # Searches

    def searches(self, ids: Iterable[str]) -> dict[str, dict[str, Number]]:
        """Return how far the shards have been read in search of envelopes, by request id; envelopes without a note are left out."""
        keys = [_key(f"{_SEARCH}{one}") for one in ids]
        return {
            item["pk"]["S"].removeprefix(_SEARCH): {
                shard: read["S"] for shard, read in item["read"]["M"].items()
            }
            for some in batched(keys, _MOST_KEYS, strict=False)
            for item in self._items(list(some))
        }

    def note_search(self, request_id: str, read: Mapping[str, Number], seconds_kept: float) -> None:
        """Note how far shards have been read in search of an envelope."""
        item = {
            **_key(f"{_SEARCH}{request_id}"),
            "read": {"M": {shard: {"S": number} for shard, number in read.items()}},
            "ttl": {"N": str(int(self._clock.now() + seconds_kept))},
        }
        self._put(item)

    # When the drainer set something aside: only the index leads to its spans, and the index lags

    def note_set_aside_by_drainer(self) -> None:
        """Note that the drainer is about to set something aside."""
        self._put({**_SET_ASIDE_BY_DRAINER, "at": {"N": str(self._clock.now())}})

    def set_aside_by_drainer_at(self) -> float:
        """Return when the drainer last noted that it sets something aside (UNIX seconds); 0 for never."""
        item = self._get(_SET_ASIDE_BY_DRAINER)
        return float(item["at"]["N"]) if item else 0.0

    # Tables that get watermarks, including those that have received nothing lately

    def watched(self) -> frozenset[tuple[str, str]]:
        """Return the accounts and tables that have received rows in the last 30 days."""
        return frozenset(
            (item["sk"]["S"], table["S"]) for item in self._query(_WATCHED) for table in item["tables"]["L"]
        )

    def watch(self, tables: Iterable[tuple[str, str]]) -> None:
        """Remember accounts and tables for 30 days. Accounts without a table here keep what is remembered of them."""
        known = self.watched()
        for account in sorted({account for account, _ in tables}):
            named = {table for one, table in (*tables, *known) if one == account}
            item = {
                **_key(_WATCHED, account),
                "tables": {"L": [{"S": table} for table in sorted(named)[:_MOST_WATCHED]]},
                "ttl": {"N": str(self._expiry(_WATCHED_SECONDS))},
            }
            self._put(item)

    # Breakers

    def open_breaker(self, database: str, reason: str) -> None:
        """Note that a database is failing."""
        self._put_breaker(database, reason, is_open=True)

    def close_breaker(self, database: str) -> None:
        """Note that a database works again."""
        self._put_breaker(database, "", is_open=False)

    def breakers(self) -> Iterator[OpenBreaker]:
        """Yield all breakers that are open."""
        for item in self._query(_BREAKERS):
            if item["st"]["S"] == "open":
                yield OpenBreaker(item["sk"]["S"], int(item["at"]["N"]), item["why"]["S"])

    def _put_breaker(self, database: str, reason: str, *, is_open: bool) -> None:
        item = {
            **_key(_BREAKERS, database),
            "at": {"N": str(milliseconds(self._clock.now()))},
            "why": {"S": reason},
            "st": {"S": "open" if is_open else "closed"},
        }
        if not is_open:
            item["ttl"] = {"N": str(self._expiry(_BREAKER_SECONDS_KEPT))}
        self._put(item)

    # Tables

    def tables(self, account: str) -> set[str]:
        """Return the tables that were created for an account."""
        return {item["name"]["S"] for item in self._query(f"{_TABLES}{account}")}

    def note_table(self, account: str, table: str, limit: int) -> bool:
        """Note that a table is about to be created, unless `limit` tables already were; return whether it is noted."""
        while True:
            noted = self.tables(account)
            if table in noted:
                return True
            if len(noted) >= limit:
                return False
            item = {**_key(f"{_TABLES}{account}", f"{len(noted):05}"), "name": {"S": table}}
            # two invocations that note tables at the same time want the same number
            existing = self._write(
                self._dynamodb.put_item, Item=item, ConditionExpression="attribute_not_exists(sk)"
            )
            if existing is None or existing.get("name") == item["name"]:
                return True

    # DynamoDB

    def _writer(self) -> str:
        return self._entropy(8).hex()

    def _expiry(self, seconds: int) -> int:
        return int(self._clock.now()) + seconds

    def _write(self, call: Callable[..., Any], **request: Any) -> Item | None:
        """Make a conditional write; return None if it succeeded, else the existing item, empty if there is none."""
        try:
            call(TableName=self._table, ReturnValuesOnConditionCheckFailure="ALL_OLD", **request)
        except ClientError as error:
            if error.response["Error"]["Code"] != "ConditionalCheckFailedException":
                self._fail(error)
            existing: Item = error.response.get("Item", {})  # type: ignore[assignment]  # botocore's type lacks it
            return existing
        except BotoCoreError as error:
            self._fail(error)
        return None

    def _call(self, call: Callable[..., Any], **request: Any) -> Any:
        return self._call_bare(call, TableName=self._table, **request)

    def _call_bare(self, call: Callable[..., Any], **request: Any) -> Any:
        try:
            return call(**request)
        except (ClientError, BotoCoreError) as error:
            self._fail(error)

    def _get(self, key: Item) -> Item:
        """Return an item, read consistently; empty if there is none."""
        item: Item = self._call(self._dynamodb.get_item, Key=key, ConsistentRead=True).get("Item", {})
        return item

    def _put(self, item: Item) -> None:
        self._call(self._dynamodb.put_item, Item=item)

    def _query(self, pk: str, **options: Any) -> Iterator[Item]:
        """Yield the items of a partition key, read consistently."""
        for page in self._pages(
            self._dynamodb.query,
            KeyConditionExpression="pk = :pk",
            ExpressionAttributeValues={":pk": {"S": pk}},
            ConsistentRead=True,
            **options,
        ):
            yield from page["Items"]

    def _items(self, keys: list[Item]) -> list[Item]:
        """Return the items of at most _MOST_KEYS keys, read consistently, except those that DynamoDB leaves unprocessed."""
        request = {self._table: {"Keys": keys, "ConsistentRead": True}}
        answer = self._call_bare(self._dynamodb.batch_get_item, RequestItems=request)
        found: list[Item] = answer["Responses"].get(self._table, [])
        return found

    def _pages(self, call: Callable[..., Any], **request: Any) -> Iterator[Any]:
        while True:
            page = self._call(call, **request)
            yield page
            if "LastEvaluatedKey" not in page:
                return
            request["ExclusiveStartKey"] = page["LastEvaluatedKey"]

    def _fail(self, error: Exception) -> NoReturn:
        self._telemetry.warning("the ledger cannot be reached", code=error_code(error))
        raise LedgerUnavailableError(str(error)) from error


def _key(pk: str, sk: str = "-") -> Item:
    return {"pk": {"S": pk}, "sk": {"S": sk}}


def _claim(item: Item) -> Claim:
    return Claim(ClaimOwner.parse(item["owner"]["S"]), int(item["at"]["N"]))


def _claim_values(claim: Claim) -> Item:
    return {":owner": {"S": claim.owner.name}, ":at": {"N": str(claim.arrived_at)}}


def _worklist_key(span: Span) -> str:
    """Return the key under which the index holds a span; empty if it has neither set-aside chunks nor rejected events."""
    states = {entry.state for entry in span.entries.values()}
    if not states & ASIDE:
        return f"rejected#{span.planned_at // 1000 // _DAY}" if State.REJECTED in states else ""
    kind = "dead" if states & ASIDE == {State.DEAD_LETTER} else "aside"
    return f"{kind}#{crc32(f'{span.chain.name}/{span.after}'.encode()) % WORKLIST_KEYS}"


def _is_final(span: Span) -> bool:
    """Return whether a span has nothing pending and nothing set aside. Rejected events do not count: they expire without a write."""
    return span.done and {entry.state for entry in span.entries.values()} <= _SETTLED


def _item(span: Span) -> Item:
    """Return a span's item: its plan, which never changes, and its progress."""
    item: Item = {
        **_key(span.chain.name, span.after),
        "first": {"S": span.first},
        "last": {"S": span.last},
        "at": {"N": str(span.planned_at)},
        "m": {"M": {owner.name: {"S": to.text} for owner, to in span.destinations.items()}},
        "cut": {"M": {"rows": {"N": str(span.cut.rows)}, "bytes": {"N": str(span.cut.bytes)}}},
        "g": {"M": {group.name: {"N": str(count)} for group, count in span.counts.items()}},
        "n": {"N": str(span.records)},
    }
    if span.digest:
        item["h"] = {"B": span.digest}
    if span.in_order:
        item["q"] = {"BOOL": True}
    if span.ignored:
        item["i"] = {"B": _bitmap(span.ignored)}
    if span.archived:
        item["a"] = {"S": "-".join(map(str, span.archived))}
    return item | _progress(span)


def _progress(span: Span) -> Item:
    """Return the attributes of a span's item that change after it is planned."""
    item: Item = {
        "v": {"N": str(span.version)},
        "w": {"S": span.writer},
        "st": {"S": "done" if span.done else "open"},
    }
    if span.entries:
        item["x"] = {"M": {key.name: {"M": _entry_item(entry)} for key, entry in span.entries.items()}}
    if work := _worklist_key(span):
        item["wk"] = {"S": work}
    return item


def _span(item: Mapping[str, Any]) -> Span:
    cut = item["cut"]["M"]
    entries = item["x"]["M"] if "x" in item else {}
    return Span(
        chain=ChainId.parse(item["pk"]["S"]),
        after=item["sk"]["S"],
        first=item["first"]["S"],
        last=item["last"]["S"],
        planned_at=int(item["at"]["N"]),
        destinations={Owner.parse(name): _destination(to["S"]) for name, to in item["m"]["M"].items()},
        cut=Cut(int(cut["rows"]["N"]), int(cut["bytes"]["N"])),
        counts={Group.parse(name): int(count["N"]) for name, count in item["g"]["M"].items()},
        records=int(item["n"]["N"]),
        digest=item["h"]["B"] if "h" in item else b"",
        ignored=_positions(item["i"]["B"]) if "i" in item else frozenset(),
        archived=Archived(*map(int, item["a"]["S"].split("-"))) if "a" in item else None,
        version=int(item["v"]["N"]),
        writer=item["w"]["S"],
        done=item["st"]["S"] == "done",
        final_at=int(item["ttl"]["N"]) - SECONDS_KEPT if "ttl" in item else None,
        entries={ChunkKey.parse(name): _entry(value["M"]) for name, value in entries.items()},
        in_order="q" in item,
    )


def _bitmap(positions: frozenset[int]) -> bytes:
    """Return the positions as a bitmap; position 0 is the lowest bit of the first byte."""
    return sum(1 << position for position in positions).to_bytes(max(positions) // 8 + 1, "little")


def _positions(bitmap: bytes) -> frozenset[int]:
    bits = int.from_bytes(bitmap, "little")
    return frozenset(position for position in range(bits.bit_length()) if bits >> position & 1)


def _destination(text: str) -> Destination:
    return NotDeliverable(text[1:]) if text.startswith("!") else Database(text)


_TEXTS = (("s", "state"), ("why", "reason"), ("db", "database"), ("o", "digest"))
_NUMBERS = (("n", "rows"), ("since", "since"), ("t", "aside_at"), ("gen", "generation"), ("e", "edit"))


_PLAIN = Entry(State.PENDING)  # defaults, which an item leaves out


def _entry_item(entry: Entry) -> Item:
    item: Item = {name: {"S": str(text)} for name, attribute in _TEXTS if (text := getattr(entry, attribute))}
    for name, attribute in _NUMBERS:
        if (number := getattr(entry, attribute)) != getattr(_PLAIN, attribute):
            item[name] = {"N": str(number)}
    return item


def _entry(item: Mapping[str, Any]) -> Entry:
    members: dict[str, Any] = {attribute: item[name]["S"] for name, attribute in _TEXTS if name in item}
    members |= {attribute: int(item[name]["N"]) for name, attribute in _NUMBERS if name in item}
    return Entry(**members | {"state": State(members["state"])})
