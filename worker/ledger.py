"""The ledger: spans, their plans and the states of their chunks, in one DynamoDB table (`pk`, `sk`, `ttl`).

    pk = chain, sk = after    a span, appended to its chain by one conditional put
    pk = put#<request id>     a claim: the one record whose copy of an envelope counts
    pk = tag#<tag>            the range that a forced replay's tag stands for
    pk = chains, sk = chain   the chain of a shard
    pk = tables#<account>     a table that was created for an account; `sk` is its number
    pk = watermarks, sk = account  the account's tables that get watermarks
    pk = swept, drained, table  notes: SWEPT, DRAINED and WRITTEN_IN say what they hold

Of the product, only this module knows the format of the items. The index `worklist` holds the spans that somebody must look at, the
oldest first: under `waiting#<n>` those with chunks that wait or are undecided (`again`), or with copies whose owners may still be
planned; under `dead#<n>` others with dead chunks. Each kind has a few keys, so that an outage does not overload one partition. Spans that
have rejected events and nothing else to look at are under their day, `rejected#<days since 1970>`: nobody looks for them once the events
have expired. The entry is part of the append, so a span whose worker is killed is found.

Every write of a span carries a random writer name. If a response is lost, the DynamoDB client may repeat a write that has succeeded, and
the repeated write fails its condition. The writer name on the item then shows that the write was ours.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, replace
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any, NoReturn, get_type_hints
from zlib import crc32

import msgspec
from botocore.exceptions import ClientError

from shared.clock import Clock
from shared.errors import ItemTooLargeError, LedgerUnavailableError, aws_errors, error_code
from shared.telemetry import Telemetry
from worker.chain import ChainId, Owner
from worker.record import START, Number, number, sequence_number
from worker.span import SECONDS_KEPT, ChunkKey, Place, Span, milliseconds
from worker.states import UNSETTLED, State

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

WORKLIST = "worklist"
"""The index of spans that somebody must look at."""
WORKLIST_KEYS = 8
MOST_CLAIMS = 25
"""DynamoDB accepts at most this many statements in one batch."""
MOST_CLAIMS_WITH_APPEND = 90
"""How many claims fit into the transaction that appends a span; DynamoDB accepts 100 actions."""
BEHIND_ALL: Number = "999"
"""Sorts after every sequence number. The span that closes a chain has it."""

SWEPT = "swept"
"""The note of the name behind which the last sweep stopped; empty if it ended."""
DRAINED = "drained"
"""The note of pairs of UNIX seconds: at the second, no message that was sent before the first was left in the overflow queue."""
WRITTEN_IN = "table"
"""The note of when the table was created that the items were written in: a restore from a backup makes another one."""

_CHANGING = ("g", "v", "wk", "ttl")
_READ_FIRST, _READ_AT_ONCE = 10, 100
_TOO_LARGE = "exceeded the maximum allowed size"
_CLAIM = "put#"
_TAG = "tag#"
_CHAINS = "chains"
_TABLES = "tables#"
_WATCHED = "watermarks"
_WATCHED_SECONDS = 30 * 86_400
_MOST_WATCHED = 500  # tables of an account
_DAY = 86_400

Item = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Claim:
    """The claim on an envelope: its rows count only for the owner.

    One that `is_fixed` was made in the transaction that appended its owner's span, so it is never taken over.
    """

    owner: Owner
    is_fixed: bool = False


@dataclass(frozen=True, slots=True)
class Claiming:
    """A claim to make in the transaction that appends its owner's span.

    It is taken over from the owner `before`, which is None if nobody has it, or the new owner has it already.
    """

    owner: Owner
    before: Owner | None = None


@dataclass(frozen=True, slots=True)
class Gap:
    """Where to append a span for a record that no span has: at the end of a chain, or in a gap.

    Attributes:
        chain: the chain to append to; in a gap, the gap's own.
        after: the last sequence number of the span to follow; START for the first span.
        limit: the sequence number before which the new span must end; None if no span comes later.
        latest: the latest arrival in the chain so far, in UNIX milliseconds; 0 if there is none.
    """

    chain: ChainId
    after: Number
    limit: Number | None = None
    latest: int = 0


@dataclass(eq=False)
class Ledger:
    """Reads and writes the ledger. Every method raises LedgerUnavailableError if the ledger cannot be reached."""

    _dynamodb: "DynamoDBClient"
    _table: str
    _clock: Clock
    _entropy: Callable[[int], bytes]
    _telemetry: Telemetry

    # Spans

    def preceding(self, chain: ChainId, number: Number) -> Span | None:
        """Return the chain's last span whose `after` is below `number`."""
        answer = self._call(self._dynamodb.query, **_preceding(chain, number), Limit=1)
        return _span(answer["Items"][0]) if answer["Items"] else None

    def end(self, chain: ChainId) -> Span | None:
        """Return a chain's last span; None if it has none."""
        return self.preceding(chain, BEHIND_ALL + "9")

    def get(self, place: Place) -> Span | None:
        """Return the span at a place; None if there is none."""
        item = self._get(_key(place.chain.name, place.after))
        return _span(item) if item else None

    def get_all(self, places: Collection[Place]) -> dict[Place, Span]:
        """Return the spans at up to 100 places, but for those without one; raise LedgerUnavailableError also if there is an answer for none of them."""
        found: dict[Place, Span] = {}
        keys = [_key(place.chain.name, place.after) for place in places]
        while keys:
            items, unanswered = self._get_items(keys)
            if len(unanswered) == len(keys):
                raise LedgerUnavailableError("the ledger leaves all keys unanswered")
            found |= {span.place: span for span in map(_span, items)}
            keys = unanswered
        return found

    def append(self, span: Span) -> tuple[bool, Span]:
        """Append a span to its chain, unless another is in its place; return whether this call appended it, and the span that is there now.

        Exactly-once delivery rests on this condition.
        """
        span = replace(span, version=1, writer=self._writer())
        existing = self._insert(self._new_item(span))
        if existing is None:
            return True, span
        found = _span(existing)
        return found.writer == span.writer, found

    def append_with(
        self, span: Span, claims: Mapping[str, Claiming], seconds_kept: int
    ) -> tuple[bool, Span] | None:
        """Append a span, and make claims by request id in the same transaction; return what `append` returns.

        If no span is there, because a claim belongs to somebody else by now, return None.
        """
        ttl = self._ttl(seconds_kept)
        return self._append_beside(
            span, [self._claim_action(one, claim, ttl) for one, claim in claims.items()]
        )

    def _append_beside(self, span: Span, actions: Iterable[Item]) -> tuple[bool, Span] | None:
        """Append a span in one transaction with other actions; return what `append` returns, None if no span is there because one of them failed."""
        span = replace(span, version=1, writer=self._writer())
        put = {"Item": self._new_item(span), "ConditionExpression": "attribute_not_exists(sk)"}
        refused = self._transact([{"Put": {"TableName": self._table, **put}}, *actions], span.writer)
        if refused is None:
            return True, span
        found = self.get(span.place)
        if found is not None:
            return found.writer == span.writer, found
        if not any(refused):  # only the put was
            raise LedgerUnavailableError("the ledger does not say why a span was not appended")
        return None

    def _claim_action(self, request_id: str, claim: Claiming, ttl: Item) -> Item:
        values = {":owner": {"S": claim.owner.name}, ":ttl": ttl, ":yes": {"BOOL": True}}
        condition = "attribute_not_exists(pk) OR #owner = :owner"
        if claim.before is not None:
            # a claim that was made with the append of its owner is never taken over
            condition = "#owner = :owner OR #owner = :before AND attribute_not_exists(#fixed)"
            values[":before"] = {"S": claim.before.name}
        return {
            "Update": {
                "TableName": self._table,
                "Key": _key(f"{_CLAIM}{request_id}"),
                "UpdateExpression": "SET #owner = :owner, #ttl = :ttl, #fixed = :yes",
                "ConditionExpression": condition,
                "ExpressionAttributeNames": {"#owner": "owner", "#ttl": "ttl", "#fixed": "fixed"},
                "ExpressionAttributeValues": values,
            }
        }

    def close(self, chain: ChainId) -> bool:
        """End the chain of a closed shard with an empty span behind all numbers; return whether it has ended."""
        end = self.end(chain)
        if end is not None and end.last == BEHIND_ALL:
            return True
        closing = Span(
            chain=chain,
            after=START if end is None else end.last,
            first=BEHIND_ALL,
            last=BEHIND_ALL,
            planned_at=milliseconds(self._clock.now()),
            latest=0 if end is None else end.latest,
            settled=True,
        )
        _, there = self.append(closing)
        return there.last == BEHIND_ALL

    def update(self, span: Span) -> tuple[bool, Span]:
        """Write a span, unless another invocation has written it since it was read; return whether this call did, and the span as it is now.

        This raises LedgerUnavailableError also if the ledger no longer has the span.
        """
        written, request = self._update(span)
        existing = self._write(self._dynamodb.update_item, **request)
        if existing is None:
            return True, written
        if not existing:
            raise LedgerUnavailableError("the ledger no longer has the span")
        found = _span(existing)
        return found.writer == written.writer, found

    def replace(self, old: Span, new: Span) -> bool:
        """Append `new` and write what changes of `old`, in one transaction; return False, with nothing written, if either was written meanwhile."""
        _, request = self._update(old)
        answer = self._append_beside(new, [{"Update": {"TableName": self._table, **request}}])
        return answer is not None and answer[0]

    def _new_item(self, span: Span) -> Item:
        return _item(span) | self._ttl_of(span)

    def _ttl_of(self, span: Span) -> Item:
        """Return the time to live of a span that is final and settled; nothing for any other."""
        if not span.settled or not span.is_final or span.copies:
            return {}
        if span.final_at is not None:  # later writes do not prolong it
            return {"ttl": {"N": str(span.final_at + SECONDS_KEPT)}}
        return {"ttl": self._ttl(SECONDS_KEPT)}

    def _update(self, span: Span) -> tuple[Span, Item]:
        written = replace(span, version=span.version + 1, writer=self._writer())
        item = self._new_item(written)
        sets = {name: item[name] for name in _CHANGING if name in item}
        removes = [name for name in _CHANGING if name not in item]
        expression = "SET " + ", ".join(f"#{name} = :{name}" for name in sets)
        return written, {
            "Key": _key(span.chain.name, span.after),
            "UpdateExpression": expression + (f" REMOVE #{', #'.join(removes)}" if removes else ""),
            "ConditionExpression": "#v = :version",
            "ExpressionAttributeNames": {f"#{name}": name for name in _CHANGING},
            "ExpressionAttributeValues": {f":{name}": value for name, value in sets.items()}
            | {":version": {"N": str(span.version)}},
        }

    def worklist(self, kind: str, number: int, since: float = 0.0) -> Iterator[Place]:
        """Yield the spans of one key of the worklist, the oldest first, but those planned since then (UNIX seconds) before others. The index may lag.

        `kind` is `waiting`, `dead` or `rejected`, and `number` 0 to WORKLIST_KEYS - 1; for rejected events, it is the day.
        """
        for operator in (">=", "<")[: 1 + bool(since)]:
            for item in self._items(
                self._dynamodb.query,
                IndexName=WORKLIST,
                KeyConditionExpression=f"wk = :key AND #at {operator} :since",
                ExpressionAttributeNames={"#at": "at"},
                ExpressionAttributeValues={
                    ":key": {"S": f"{kind}#{number}"},
                    ":since": _time(milliseconds(since)),
                },
            ):
                yield Place.parse(item["pk"]["S"], item["sk"]["S"])

    def work(self, kind: str, number: int) -> Iterator[Span]:
        """Yield what `worklist` does, but each span as it is in the ledger now. First reads a few, because many callers need no more."""
        work, size = self.worklist(kind, number), _READ_FIRST
        while some := list(islice(work, size)):
            spans = self.get_all(some)
            yield from (spans[place] for place in some if place in spans)
            size = _READ_AT_ONCE

    def rejected(self, since: float, until: float) -> Iterator[Place]:
        """Yield the spans with rejected events and nothing else that were planned on the days from `since` to `until` (UNIX seconds)."""
        for day in range(int(since // _DAY), int(until // _DAY) + 1):
            yield from self.worklist("rejected", day)

    def latest(self, chain: ChainId, before: Number = BEHIND_ALL + "9") -> Iterator[Span]:
        """Yield a chain's spans whose `after` is below `before`, the latest first, reading 100 at a time."""
        return map(_span, self._items(self._dynamodb.query, **_preceding(chain, before), Limit=100))

    def first_later(self, chain: ChainId, moment: int) -> Span | None:
        """Return a chain's first span whose latest arrival is later than `moment` (UNIX milliseconds); None if it has none.

        Arrivals only grow along a chain, so this needs few of its spans, however many it has.
        """
        found = self.end(chain)
        if found is None or found.latest <= moment:
            return None
        low, high = int(chain.start), int(sequence_number(found.after) or 0)
        while low < high:
            middle = (low + high + 1) // 2
            span = self.preceding(chain, number(str(middle)))
            if span is None or span.latest <= moment:
                low = middle if span is None else max(middle, int(sequence_number(span.last)))
            else:
                found, high = span, int(sequence_number(span.after) or 0)
        return found

    def spans_of(self, chain: ChainId) -> Iterator[Span]:
        """Yield a chain's spans in order."""
        return map(_span, self._query(chain.name))

    def spans(self, since: float | None = None, until: float | None = None) -> Iterator[Span]:
        """Yield all spans, or those planned from `since` on and before `until` (UNIX seconds). Scans the table: one read unit per 4 KB."""
        condition, values = "attribute_exists(g)", {}
        for operator, name, moment in ((">=", ":since", since), ("<", ":until", until)):
            if moment is not None:
                condition += f" AND #at {operator} {name}"
                values[name] = _time(milliseconds(moment))
        request: dict[str, Any] = {"FilterExpression": condition}
        if values:
            request |= {"ExpressionAttributeNames": {"#at": "at"}, "ExpressionAttributeValues": values}
        return map(_span, self._items(self._dynamodb.scan, ConsistentRead=True, **request))

    # Claims

    def claim(self, wanted: Mapping[str, Owner], seconds_kept: int) -> dict[str, Claim]:
        """Claim up to MOST_CLAIMS envelopes, by request id; return the claim that holds for each, as far as DynamoDB answers."""
        ttl = self._ttl(seconds_kept)
        insert = f"INSERT INTO \"{self._table}\" VALUE {{'pk': ?, 'sk': ?, 'owner': ?, 'ttl': ?}}"
        statements = [
            {"Statement": insert, "Parameters": [*_key(f"{_CLAIM}{one}").values(), {"S": owner.name}, ttl]}
            for one, owner in wanted.items()
        ]
        answer = self._call_bare(self._dynamodb.batch_execute_statement, Statements=statements)
        claims, refused = {}, []
        for (one, owner), response in zip(wanted.items(), answer["Responses"], strict=True):
            code = response.get("Error", {}).get("Code")
            if code is None:
                claims[one] = Claim(owner)
            elif code in ("DuplicateItem", "ConditionalCheckFailed"):
                refused.append(one)
        return claims | (self.claims(refused) if refused else {})

    def claims(self, ids: Iterable[str]) -> dict[str, Claim]:
        """Return the claims on up to 100 envelopes, by request id, as far as DynamoDB answers; envelopes without a claim are left out."""
        found, _ = self._get_items([_key(f"{_CLAIM}{one}") for one in ids])
        return {
            item["pk"]["S"].removeprefix(_CLAIM): Claim(Owner.parse(item["owner"]["S"]), "fixed" in item)
            for item in found
        }

    def take_over(self, claims: Mapping[str, Claiming], seconds_kept: int) -> None:
        """Make up to MOST_CLAIMS claims that others have, by request id.

        This raises LedgerUnavailableError also if one belongs to somebody else by now, or was made with the append of its owner.
        """
        ttl = self._ttl(seconds_kept)
        actions = [self._claim_action(one, claim, ttl) for one, claim in claims.items()]
        if self._transact(actions, self._writer()) is not None:
            raise LedgerUnavailableError("others have taken over a claim")

    # Forced replays

    def bind_tag(self, tag: str, wanted: str) -> str:
        """Bind a forced replay's tag to what it stands for, unless it is bound; return what it stands for."""
        item = {**_key(f"{_TAG}{tag}"), "is": {"S": wanted}, "ttl": self._ttl(SECONDS_KEPT)}
        existing = self._insert(item)
        return wanted if existing is None else str(existing["is"]["S"])

    # The chains of shards, including those that the stream no longer lists

    def chains(self) -> list[ChainId]:
        """Return the chains of all shards that were noted, those of deleted streams among them."""
        return [ChainId.parse(item["sk"]["S"]) for item in self._query(_CHAINS)]

    def note_chain(self, chain: ChainId) -> None:
        """Note the chain of a shard."""
        self._put({**_key(_CHAINS, chain.name), "ttl": self._ttl(SECONDS_KEPT)})

    # Notes

    def noted(self, name: str) -> Any:
        """Return what was noted under a name; None if nothing was."""
        item = self._get(_key(name))
        return msgspec.msgpack.decode(item["is"]["B"]) if item else None

    def note(self, name: str, what: Any) -> None:
        """Note something in place of what was noted under a name."""
        self._put({**_key(name), "is": {"B": msgspec.msgpack.encode(what)}})

    def created(self) -> str:
        """Return when this table was created; empty if there is none."""
        try:
            table = self._dynamodb.describe_table(TableName=self._table)["Table"]
        except aws_errors() as error:
            if error_code(error) == "ResourceNotFoundException":
                return ""
            self._fail(error)
        return f"{table['CreationDateTime'].timestamp():.3f}"

    # Tables that get watermarks, including those that have received nothing lately

    def watch(self, tables: Collection[tuple[str, str]]) -> dict[str, set[str]]:
        """Remember accounts and tables for 30 days; return the tables of each account that is remembered, these among them.

        Accounts without a table here keep what is remembered of them.
        """
        named: defaultdict[str, set[str]] = defaultdict(set)
        for item in self._query(_WATCHED):
            named[item["sk"]["S"]].update(table["S"] for table in item["tables"]["L"])
        for account, table in tables:
            named[account].add(table)
        for account in sorted({account for account, _ in tables}):
            item = {
                **_key(_WATCHED, account),
                "tables": {"L": [{"S": table} for table in sorted(named[account])[:_MOST_WATCHED]]},
                "ttl": self._ttl(_WATCHED_SECONDS),
            }
            self._put(item)
        return named

    # Tables

    def tables(self, account: str) -> set[str]:
        """Return the tables that were created for an account."""
        return {item["name"]["S"] for item in self._query(f"{_TABLES}{account}")}

    def note_table(self, account: str, table: str, limit: int) -> bool:
        """Note that a table is about to be created, unless `limit` tables already were; return whether it is noted."""
        noted = self.tables(account)
        if table in noted:
            return True
        # the number may be taken: by another invocation, or because a restored ledger lacks one before it
        for serial in range(len(noted), limit):
            item = {**_key(f"{_TABLES}{account}", f"{serial:05}"), "name": {"S": table}}
            existing = self._insert(item)
            if existing is None or existing.get("name") == item["name"]:
                return True
        return False

    # DynamoDB

    def _writer(self) -> str:
        return self._entropy(8).hex()

    def _ttl(self, seconds: int) -> Item:
        return {"N": str(int(self._clock.now()) + seconds)}

    def _transact(self, actions: list[Item], token: str) -> list[int] | None:
        """Write all actions or none; return None if they were written, else the numbers of those whose condition failed.

        This raises LedgerUnavailableError also if another transaction is under way.
        """
        try:
            self._dynamodb.transact_write_items(TransactItems=actions, ClientRequestToken=token)  # type: ignore[arg-type]  # the stub wants literal keys
        except ClientError as error:
            if error.response["Error"]["Code"] != "TransactionCanceledException":
                self._fail(error)
            reasons: list[Item] = error.response.get("CancellationReasons", [])  # type: ignore[assignment]  # botocore's type lacks it
            codes = {reason.get("Code") for reason in reasons} - {"None", None}
            if codes != {"ConditionalCheckFailed"}:
                self._fail(error)
            return [n for n, reason in enumerate(reasons) if reason.get("Code") == "ConditionalCheckFailed"]
        except aws_errors() as error:
            self._fail(error)
        return None

    def _write(self, call: Callable[..., Any], **request: Any) -> Item | None:
        """Make a conditional write; return None if it succeeded, else the existing item, empty if there is none."""
        try:
            call(TableName=self._table, ReturnValuesOnConditionCheckFailure="ALL_OLD", **request)
        except ClientError as error:
            if error.response["Error"]["Code"] != "ConditionalCheckFailedException":
                self._fail(error)
            existing: Item = error.response.get("Item", {})  # type: ignore[assignment]  # botocore's type lacks it
            return existing
        except aws_errors() as error:
            self._fail(error)
        return None

    def _insert(self, item: Item) -> Item | None:
        """Write an item unless there is one in its place; return that."""
        return self._write(self._dynamodb.put_item, Item=item, ConditionExpression="attribute_not_exists(sk)")

    def _call(self, call: Callable[..., Any], **request: Any) -> Any:
        return self._call_bare(call, TableName=self._table, **request)

    def _call_bare(self, call: Callable[..., Any], **request: Any) -> Any:
        try:
            return call(**request)
        except aws_errors() as error:
            self._fail(error)

    def _get(self, key: Item) -> Item:
        """Return an item, read consistently; empty if there is none."""
        item: Item = self._call(self._dynamodb.get_item, Key=key, ConsistentRead=True).get("Item", {})
        return item

    def _get_items(self, keys: Sequence[Item]) -> tuple[list[Item], list[Item]]:
        """Return up to 100 items, read consistently, and the keys that DynamoDB left unanswered."""
        request = {self._table: {"Keys": keys, "ConsistentRead": True}}
        answer = self._call_bare(self._dynamodb.batch_get_item, RequestItems=request)
        unanswered = (answer.get("UnprocessedKeys") or {}).get(self._table, {}).get("Keys", [])
        if unanswered:
            self._telemetry.warning("the ledger left keys unanswered", code="UnprocessedKeys")
        return answer["Responses"].get(self._table, []), unanswered

    def _put(self, item: Item) -> None:
        self._call(self._dynamodb.put_item, Item=item)

    def _query(self, pk: str) -> Iterator[Item]:
        """Yield the items of a partition key, read consistently."""
        return self._items(
            self._dynamodb.query,
            KeyConditionExpression="pk = :pk",
            ExpressionAttributeValues={":pk": {"S": pk}},
            ConsistentRead=True,
        )

    def _items(self, call: Callable[..., Any], **request: Any) -> Iterator[Item]:
        while True:
            page = self._call(call, **request)
            yield from page["Items"]
            if "LastEvaluatedKey" not in page:
                return
            request["ExclusiveStartKey"] = page["LastEvaluatedKey"]

    def _fail(self, error: Exception) -> NoReturn:
        self._telemetry.warning("the ledger cannot be reached", code=error_code(error))
        kind = ItemTooLargeError if _TOO_LARGE in str(error) else LedgerUnavailableError
        raise kind(str(error)) from error


def _key(pk: str, sk: str = "-") -> Item:
    return {"pk": {"S": pk}, "sk": {"S": sk}}


def _time(moment: int) -> Item:
    """Return UNIX milliseconds as text that sorts: the worklist is ordered by it."""
    return {"S": f"{moment:014d}"}


def _preceding(chain: ChainId, number: Number) -> dict[str, Any]:
    """Return the request for a chain's spans whose `after` is below `number`, the latest first."""
    return {
        "KeyConditionExpression": "pk = :pk AND sk < :sk",
        "ExpressionAttributeValues": {":pk": {"S": chain.name}, ":sk": {"S": number}},
        "ScanIndexForward": False,
        "ConsistentRead": True,
    }


def worklist_key(span: Span) -> str:
    """Return the key under which the index holds a span; empty if nobody must look at it."""
    states = span.states()
    if states & UNSETTLED or span.copies:
        return f"waiting#{_part(span)}"
    if State.DEAD in states:
        return f"dead#{_part(span)}"
    return f"rejected#{span.planned_at // 1000 // _DAY}" if State.REJECTED in states else ""


def _part(span: Span) -> int:
    return crc32(span.place.name.encode()) % WORKLIST_KEYS


def _member(one: Field[Any]) -> tuple[Any, ...]:
    """Return a member of an item, as `msgspec.defstruct` takes it."""
    member = one.name, _HINTS[one.name]
    if one.default is not MISSING:
        return *member, one.default
    if one.default_factory is not MISSING:
        return *member, msgspec.field(default_factory=one.default_factory)
    return member


# A span's item has these in one MessagePack array, in the order of `Span`. New ones come last, with a default.
_HINTS = get_type_hints(Span)
_MEMBERS = {one.name: one for one in fields(Span) if one.name not in ("chain", "after", "final_at")}
_Members = msgspec.defstruct("_Members", list(map(_member, _MEMBERS.values())), array_like=True)
_decode = msgspec.msgpack.Decoder(_Members).decode


@lru_cache(maxsize=4096)
def _same(key: ChunkKey) -> ChunkKey:
    """Return a key, always the same one: most spans have the same chunks, and there may be a hundred thousand in memory."""
    return key


def _item(span: Span) -> Item:
    members = msgspec.msgpack.encode([getattr(span, name) for name in _MEMBERS])
    item = {
        **_key(span.chain.name, span.after),
        "at": _time(span.planned_at),
        "v": {"N": str(span.version)},
        "g": {"B": members},
    }
    work = worklist_key(span)
    return item | {"wk": {"S": work}} if work else item


def _span(item: Mapping[str, Any]) -> Span:
    found = _decode(bytes(item["g"]["B"]))
    members = {name: getattr(found, name) for name in _MEMBERS}
    members |= {
        name: {_same(key): one for key, one in members[name].items()} for name in ("chunks", "entries")
    }
    final_at = int(item["ttl"]["N"]) - SECONDS_KEPT if "ttl" in item else None
    return Span(ChainId.parse(item["pk"]["S"]), item["sk"]["S"], final_at=final_at, **members)
