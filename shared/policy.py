"""The edge policy: what the ingest knows about accounts, one document in S3.

MessagePack `[1, digest, body]`: `digest` is SHA-256 of `body`, which is MessagePack `[published_at, {account: entry}, overflow,
refused]`. `overflow` is `[until, level, messages]`, or null while the overflow queue does not hold too much. `refused` is `{account: {column:
hashes}}`: of the persons whose events are refused (`shared.person_hash`), one hash behind the other. Each entry is
MessagePack too, so a reader only builds an index and decodes an account's entry when its first event arrives. An ordinary account's
entry is empty. Readers ignore members of a body or an entry that they do not know. A change that old readers would misunderstand
needs a new version.
"""

from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import msgpack

from shared import names
from shared.errors import InvalidPolicyError
from shared.person_hash import HASH_BYTES
from shared.tracking_plan import TrackingPlan

VERSION = 1
KEY = "edge/policy"
"""The document's key in the bucket for rows."""
ABSENT = ("NoSuchKey", "AccessDenied")
"""S3's error codes if there is no document; the second if the caller may not list the bucket."""
MAX_BYTES = 8 * 1024 * 1024
"""Maximum size of a document: every function instance of the ingest reads it."""

Status = Literal["active", "disabled"]
Refused = Mapping[str, Mapping[str, bytes]]
"""Hashes of persons, one behind the other, by account and column."""


class AccountLimits(NamedTuple):
    """What one account may use; None means the stack's default.

    Attributes:
        tables: maximum number of tables that Sluice creates for it.
        events_per_second: per write key and function instance.
        bytes_per_second: per write key and function instance.
        events_per_hour: of all its write keys together.
        bytes_per_hour: of all its write keys together.
    """

    tables: int = 200
    events_per_second: int | None = None
    bytes_per_second: int | None = None
    events_per_hour: int = 10_000_000
    bytes_per_hour: int = 4 * 2**30

    @classmethod
    def parse(cls, value: object) -> "AccountLimits":
        """Parse limits, given as a mapping by name.

        Raises:
            ValueError: a name is unknown, or a limit is not a positive integer.
        """
        known = cls._fields
        if not isinstance(value, Mapping):
            raise ValueError(f"limits must be a mapping with {', '.join(known)}")  # noqa: TRY004 -- a value
        for name, limit in value.items():
            if name not in known:
                raise ValueError(f"{name!r} is not a limit: use {', '.join(known)}")
            if type(limit) is not int or limit < 1:
                raise ValueError(f"{name} must be a positive integer, not {limit!r}")
        return cls(**value)

    @classmethod
    def of_known(cls, value: object) -> "AccountLimits":
        """Parse the legal limits in a value and ignore the rest: a newer publisher may know more limits."""
        legal: dict[str, int] = {}
        for name, limit in value.items() if isinstance(value, Mapping) else ():
            with suppress(ValueError):
                legal |= cls.parse({name: limit}).to_fields()
        return cls(**legal)

    def to_fields(self) -> dict[str, int]:
        """Return the limits that differ from the default."""
        return {
            name: limit for name, limit in self._asdict().items() if limit != getattr(_DEFAULT_LIMITS, name)
        }


_DEFAULT_LIMITS = AccountLimits()


class PolicyEntry(NamedTuple):
    """What the policy says about one account.

    Attributes:
        status: events of a disabled account are refused.
        revoked_key_ids: events sent with one of these keys are refused.
        limits: what the account may use.
        plan: its tracking plan; None if it has none.
        refused: hashes of the persons whose events are refused, by column.
    """

    status: Status = "active"
    revoked_key_ids: frozenset[str] = frozenset()
    limits: AccountLimits = _DEFAULT_LIMITS
    plan: TrackingPlan | None = None
    refused: Mapping[str, frozenset[bytes]] = MappingProxyType({})

    def encode(self) -> bytes:
        """Return the entry's bytes in the document, without persons; empty for an ordinary account."""
        members: dict[str, Any] = {}
        if self.status != "active":
            members["status"] = self.status
        if self.revoked_key_ids:
            members["revoked"] = sorted(self.revoked_key_ids)
        if limits := self.limits.to_fields():
            members["limits"] = limits
        if self.plan is not None:
            members["plan"] = self.plan.to_value(describes=False)
        data: bytes = msgpack.packb(members) if members else b""
        return data


_ORDINARY = PolicyEntry()


class OverflowLimit(NamedTuple):
    """The overflow queue holds too much: instances refuse large requests beyond a share of an account's budget.

    Attributes:
        until: UNIX milliseconds until which this is valid.
        level: how often the share is halved.
        messages: how many messages the queue held.
    """

    until: int
    level: int
    messages: int


class EdgePolicy:
    """One published document.

    Attributes:
        published_at: UNIX milliseconds.
        overflow: what is published about the overflow queue; None if it does not hold too much.
        entries: the accounts' entries, encoded.
        refused: the persons whose events are refused, as in the document.
    """

    def __init__(
        self,
        published_at: int,
        entries: Mapping[str, bytes],
        overflow: OverflowLimit | None = None,
        refused: Refused = MappingProxyType({}),
    ) -> None:
        self.published_at = published_at
        self.overflow = overflow
        self.refused = refused
        self.entries = entries
        self._decoded: dict[str, PolicyEntry] = {}

    @classmethod
    def parse(cls, data: bytes) -> "EdgePolicy":
        """Parse a document.

        Raises:
            InvalidPolicyError: it is truncated, changed, of a newer version, or not a policy.
        """
        match _unpacked(data):
            case [int(version), *_] if version > VERSION:
                raise InvalidPolicyError(f"version {version}; this reader knows {VERSION}")
            case [1, bytes(digest), bytes(body), *_]:
                if sha256(body).digest() != digest:
                    raise InvalidPolicyError("the content does not match its digest")
                match _unpacked(body):
                    case [int(published_at), dict(entries), *rest]:
                        return cls(published_at, entries, _overflow(rest), _refused(rest))
        raise InvalidPolicyError("not an edge policy")

    def account(self, name: str) -> PolicyEntry | None:
        """Return an account's entry; None if the document does not name the account.

        Illegal parts of an entry are ignored, so that a wrong document refuses nobody.
        """
        entry = self._decoded.get(name)
        if entry is None and name in self.entries:
            entry = _entry(self.entries[name])
            if name in self.refused:
                entry = entry._replace(refused=_hashes(self.refused[name]))
            self._decoded[name] = entry
        return entry


def encode(entries: Mapping[str, PolicyEntry], published_at: int, current: EdgePolicy | None = None) -> bytes:
    """Return the document for these accounts by name, published at a time in UNIX milliseconds, with the rest of the current one.

    Like those of the other functions here, it is not older than the current one, or readers would reject it.

    Raises:
        InvalidPolicyError: it would be larger than MAX_BYTES.
    """
    encoded = {name: entries[name].encode() for name in sorted(entries)}
    if current is None:
        return _document(published_at, encoded, None, {})
    return _document(max(published_at, current.published_at), encoded, current.overflow, current.refused)


def with_overflow(document: EdgePolicy, overflow: OverflowLimit | None, published_at: int) -> bytes:
    """Return a document with another member about the overflow queue, and the same accounts."""
    return _document(max(published_at, document.published_at), document.entries, overflow, document.refused)


def with_refused(document: EdgePolicy, refused: Refused, published_at: int) -> bytes:
    """Return a document with other persons whose events are refused, and the same accounts.

    Raises:
        InvalidPolicyError: it would be larger than MAX_BYTES.
    """
    return _document(max(published_at, document.published_at), document.entries, document.overflow, refused)


def _overflow(rest: list[Any]) -> OverflowLimit | None:
    match rest:
        case [[int(until), int(level), int(messages), *_], *_] if level >= 0:
            return OverflowLimit(until, level, messages)
    return None


def _refused(rest: list[Any]) -> Refused:
    match rest:
        case [_, dict(refused), *_]:
            return refused
    return {}


def _hashes(columns: object) -> dict[str, frozenset[bytes]]:
    return {
        column: frozenset(some[at : at + HASH_BYTES] for at in range(0, len(some), HASH_BYTES))
        for column, some in (columns.items() if isinstance(columns, dict) else ())
        if isinstance(some, bytes)
    }


def _document(
    published_at: int, entries: Mapping[str, bytes], overflow: OverflowLimit | None, refused: Refused
) -> bytes:
    body = msgpack.packb([published_at, entries, overflow, dict(refused)])
    data: bytes = msgpack.packb([VERSION, sha256(body).digest(), body])
    if len(data) > MAX_BYTES:
        raise InvalidPolicyError(
            f"the edge policy would be {len(data):,} bytes; at most {MAX_BYTES:,} are allowed. Shorten tracking plans, or refuse fewer persons."
        )
    return data


def _unpacked(data: bytes) -> Any:
    try:
        return msgpack.unpackb(data)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise InvalidPolicyError(f"not MessagePack: {error}") from None


def _entry(data: object) -> PolicyEntry:
    if not isinstance(data, bytes) or not data:
        return _ORDINARY
    try:
        value = _unpacked(data)
    except InvalidPolicyError:
        return _ORDINARY
    if not isinstance(value, dict):
        return _ORDINARY
    revoked = value.get("revoked")
    return PolicyEntry(
        status="disabled" if value.get("status") == "disabled" else "active",
        revoked_key_ids=frozenset(
            key_id for key_id in revoked if isinstance(key_id, str) and names.is_key_id(key_id)
        )
        if isinstance(revoked, list)
        else frozenset(),
        limits=AccountLimits.of_known(value.get("limits")),
        plan=TrackingPlan.of_known(value.get("plan")),
    )
