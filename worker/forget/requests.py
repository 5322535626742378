"""The requests to forget persons: one small document in S3, with keyed hashes instead of values.

    forget/requests

It is the gzip of a JSON object. A request keeps its hashes until its last search; what became of it, the receipt, stays. The key of the
hashes is a member of the secret with the signing secrets, so who reads the document alone cannot try values.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any

from shared.clock import Clock
from shared.errors import BucketUnavailableError, SecretUnavailableError, aws_errors, error_code
from shared.person_hash import hashed_column, hasher
from shared.write_key import FORGET_KEY, HASH_KEY
from worker.forget.person import Person, Persons
from worker.rows import compress, decompress
from worker.secret import Secret

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

KEY = "forget/requests"
FRESH_SECONDS = 60.0
"""How long a function instance uses what it has read."""

DAY = 86_400.0
VERSIONS_SECONDS = 9 * DAY
"""How long after rows were removed from S3 nothing of them can be left: objects that nobody names go within a day, and old versions a week
later."""

UNREAD, STRAY = "", "-"
"""What is left counts under these beside the requests: objects that could not be read, and objects that no span refers to."""

_VERSION = 1
_ATTEMPTS = 8
_ABSENT = ("NoSuchKey", "404")
_CONTESTED = ("PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey")
_NOBODY = Persons(b"", ())


@dataclass(slots=True)
class ForgetRequest:
    """A request to forget a person, and what became of it.

    Attributes:
        id: its name, by which nobody can be recognised.
        hashes: of the values; empty once the request is done and cleared, and no events are refused.
        before: UNIX milliseconds of the request: what the ingest received until then is forgotten.
        until: UNIX seconds from which the last search is made.
        next: UNIX seconds of the next search.
        forgotten: numbers of rows that were removed from S3, by the state in which they were.
        treasure_data: numbers of rows that were deleted there, by database and table.
        remaining: numbers of rows that the command counted there last, by database and table, without those that were deleted since.
        cleared: UNIX seconds at which a query by the value itself has counted none there, but for databases in which other accounts may have
            rows; 0 before.
        statements: what somebody with more rights must run in Treasure Data.
        left: rows that the last search had to leave.
        touched: UNIX seconds at which rows were last removed from S3.
        done: UNIX seconds at which nothing was left; 0 before.
        refuses: whether the ingest refuses new events of the person.
    """

    id: str
    account: str
    column: str
    hashes: list[str]
    before: int
    until: float
    next: float
    forgotten: dict[str, int] = field(default_factory=dict)
    treasure_data: dict[str, int] = field(default_factory=dict)
    remaining: dict[str, int] = field(default_factory=dict)
    cleared: float = 0.0
    statements: list[str] = field(default_factory=list)
    left: int = 0
    touched: float = 0.0
    done: float = 0.0
    refuses: bool = False

    @property
    def person(self) -> Person:
        """What recognises the person's rows."""
        hashes = tuple(map(bytes.fromhex, self.hashes))
        return Person(self.id, self.account, self.column, hashes, self.before)

    def drop_hashes(self) -> None:
        """Drop the hashes if they are not needed any more. While no query has counted 0 rows, the same request may be made again."""
        if self.done and self.cleared and not self.refuses:
            self.hashes = []

    def receipt(self) -> dict[str, Any]:
        """Return what became of it, without the hashes."""
        return {name: value for name, value in asdict(self).items() if name != "hashes"}


@dataclass(slots=True)
class RequestDocument:
    """All requests, and how far a search has come that goes on by itself.

    Attributes:
        after: the name behind which it goes on: of an object with rejected events, then of a span object.
        began: UNIX seconds at which it began; 0 if none is under way.
        left: rows that it had to leave so far, by request.
        seen: chunks with delivered rows that had to be left, because a statement may not find them yet: UNIX seconds at which they were
            first seen.
    """

    requests: dict[str, ForgetRequest] = field(default_factory=dict)
    after: str = ""
    began: float = 0.0
    left: dict[str, int] = field(default_factory=dict)
    seen: dict[str, float] = field(default_factory=dict)

    @property
    def active(self) -> list[ForgetRequest]:
        """The requests that are not done."""
        return [one for one in self.requests.values() if not one.done]

    def refused(self) -> dict[str, dict[str, bytes]]:
        """Return whom the ingest is to refuse, as the edge policy has it: the hashes, one behind the other, by account and column."""
        found: dict[str, dict[str, bytes]] = {}
        for one in self.requests.values():
            if one.refuses:
                columns = found.setdefault(one.account, {})
                columns[one.column] = columns.get(one.column, b"") + b"".join(one.person.hashes)
        return found

    def add_forgotten(self, forgotten: Mapping[tuple[str, str], int], now: float) -> None:
        """Note numbers of rows that were removed from S3, by request and state."""
        for (request, state), number in forgotten.items():
            one = self.requests[request]
            one.forgotten[state] = one.forgotten.get(state, 0) + number
            one.touched = now

    def add_deleted(self, deleted: Mapping[tuple[str, str], int]) -> None:
        """Note numbers of rows that were deleted in Treasure Data, by request and table."""
        for (request, table), number in deleted.items():
            one = self.requests[request]
            one.treasure_data = dict(Counter(one.treasure_data) + Counter({table: number}))
            one.remaining = dict(Counter(one.remaining) - Counter({table: number}))

    def add_statements(self, statements: Iterable[tuple[str, str]]) -> None:
        """Note what somebody with more rights must run, by request."""
        for request, statement in statements:
            known = self.requests[request].statements
            known += [statement] * (statement not in known)

    def add_counts(self, requests: Iterable[str], counts: Mapping[str, Mapping[str, int]]) -> None:
        """Note how many rows of requests queries by the values have counted in Treasure Data, by table and request; 0 for those left out.

        Rows that are gone since the last count were deleted, be it by a deletion that had not ended then.
        """
        for request, (table, numbers) in product(requests, counts.items()):
            one, number = self.requests[request], numbers.get(request, 0)
            self.add_deleted({(request, table): max(0, one.remaining.get(table, 0) - number)})
            one.remaining = dict(+Counter(one.remaining | {table: number}))

    def drop_tables(self, requests: Iterable[str], tables: Iterable[str]) -> None:
        """Note that tables are gone. Somebody has dropped or renamed them, so nobody says that their rows were deleted."""
        for request, table in product(requests, tables):
            self.requests[request].remaining.pop(table, None)

    def clear(self, requests: Iterable[str], now: float) -> None:
        """Note that a query by the values has counted no rows of these requests any more."""
        for request in requests:
            self.requests[request].cleared = now

    def begin(self, now: float) -> None:
        """Begin a search."""
        self.began, self.after, self.left = now, "", {}

    def reach(self, began: float, after: str, left: Mapping[str, int]) -> None:
        """Note how far the search has come that began then, unless another run has ended it."""
        if self.began == began:
            self.after, self.left = after, dict(Counter(self.left) + Counter(left))

    def finish(self, began: float, now: float) -> None:
        """End the search that began then, unless another run has."""
        if self.began != began:
            return
        for one in self.active:
            if one.before > began * 1000:
                continue
            one.left = self.left.get(one.id, 0)
            settled = max(one.until, one.touched + VERSIONS_SECONDS)
            # a busy bucket always has stray objects: after daily searches for so long, each was searched before it was stray
            strays = STRAY in self.left and settled <= began < settled + VERSIONS_SECONDS
            if one.left or UNREAD in self.left or strays:
                one.next = now + DAY
            elif began < settled:
                one.next = settled
            else:
                one.done = now
                one.drop_hashes()
        if not any(one.left for one in self.requests.values()):
            self.seen = {}
        self.begin(0.0)

    def encode(self) -> bytes:
        """Return it as it is stored."""
        return compress(json.dumps(asdict(self) | {"version": _VERSION}).encode())

    @classmethod
    def decode(cls, data: bytes) -> "RequestDocument":
        """Return the document that `encode` encoded; raise BucketUnavailableError if these are other bytes."""
        try:
            content = json.loads(decompress(data))
            if content.pop("version") != _VERSION:
                raise BucketUnavailableError("the requests to forget are of another version")
            requests = {name: ForgetRequest(**one) for name, one in content.pop("requests").items()}
            return cls(requests, **content)
        except (ValueError, TypeError, KeyError) as error:
            raise BucketUnavailableError("the requests to forget cannot be read") from error


@dataclass(eq=False)
class ForgetRequests:
    """Reads and changes the requests.

    If S3 cannot be reached, methods raise BucketUnavailableError; if the key is needed and cannot be read, SecretUnavailableError.
    """

    _s3: "S3Client"
    _bucket: str
    _secret: Secret
    _clock: Clock
    # the ETag that was read last, whom the document names, and when it was read: as one, since threads share it
    _known: tuple[str, Persons, float] = field(default=("", _NOBODY, float("-inf")), init=False)

    def persons(self, max_age: float = FRESH_SECONDS) -> Persons:
        """Return the persons to forget, as they were so many seconds ago at most."""
        etag, persons, read_at = self._known
        if self._clock.now() - read_at >= max_age:
            document, etag = self._read(etag)
            if document is not None:
                persons = self.persons_of(document.active)
            self._known = etag, persons, self._clock.now()  # only with the key: without it, all is read again
        return persons

    def persons_of(self, requests: Iterable[ForgetRequest]) -> Persons:
        """Return the persons that requests name."""
        found = tuple(one.person for one in requests)
        return Persons(self._member(FORGET_KEY), found) if found else _NOBODY

    def hashes(self, account: str, column: str, values: Iterable[str]) -> list[list[str]]:
        """Return, for each value, its hash and that of what HashedColumns makes of it."""
        hash_of = hasher(self._member(FORGET_KEY), account, column)
        return [[hash_of(text.encode()).hex() for text in self.texts(value)] for value in values]

    def texts(self, value: str) -> list[str]:
        """Return a value, and what HashedColumns makes of it."""
        key = self._members().get(HASH_KEY, "")
        return [value, hashed_column(value, key.encode())] if key else [value]

    def document(self) -> RequestDocument:
        """Return the document."""
        return self._read("")[0] or RequestDocument()

    def change(self, change: Callable[[RequestDocument], None]) -> RequestDocument:
        """Change the document once. If somebody else does meanwhile, read it again first."""
        written = None
        for _ in range(_ATTEMPTS):
            found, etag = self._read("")
            document = found or RequestDocument()
            if document == written:  # S3's client has repeated a put that had succeeded
                break
            change(document)
            written = document
            condition: Any = {"IfMatch": etag} if etag else {"IfNoneMatch": "*"}
            try:
                self._s3.put_object(Bucket=self._bucket, Key=KEY, Body=document.encode(), **condition)
            except aws_errors() as error:
                if error_code(error) not in _CONTESTED:
                    raise BucketUnavailableError(str(error)) from error
            else:
                break
        else:
            raise BucketUnavailableError("others change the requests to forget all the time")
        self._known = *self._known[:2], float("-inf")
        return document

    def _read(self, known: str) -> tuple[RequestDocument | None, str]:
        """Return the document and its ETag; None if it is the known one, or there is none."""
        condition: Any = {"IfNoneMatch": known} if known else {}
        try:
            answer = self._s3.get_object(Bucket=self._bucket, Key=KEY, **condition)
            return RequestDocument.decode(answer["Body"].read()), answer["ETag"]
        except aws_errors() as error:
            code = error_code(error)
            if code in _ABSENT:
                return RequestDocument() if known else None, ""
            if code == "304":
                return None, known
            raise BucketUnavailableError(str(error)) from error

    def _member(self, name: str) -> bytes:
        member = self._members().get(name) or self._members(0.0).get(name)
        if not member:
            raise SecretUnavailableError(
                f"the secret with the signing secrets has no member {name}: `sluice forget` makes it"
            )
        return member.encode()

    def _members(self, max_age: float = FRESH_SECONDS) -> dict[str, str]:
        try:
            found = json.loads(self._secret.get(max_age))
        except ValueError as error:
            raise SecretUnavailableError("the secret with the signing secrets is not JSON") from error
        return found if isinstance(found, dict) else {}
