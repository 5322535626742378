"""What all dialects have in common: a key is verified, events become rows, rows become durable."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from zlib import crc32

from ingest.journal import Journal
from ingest.keyring import Keyring, KeysUnavailableError
from ingest.refusal import ANSWERS, EventCode, Refused
from ingest.request import Request
from ingest.stream import Stream
from shared import envelope, rows
from shared.clock import Clock
from shared.event_id import new_event_id
from shared.write_key import InvalidKeyError, WriteKey

MAX_EVENTS = 500
"""Events of one request."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why one event of a request was not accepted.

    Attributes:
        index: where the event stands in its request, from 0.
        code: one of ANSWERS.
        message: for a person.
    """

    index: int
    code: EventCode
    message: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a request's events, at least one of which was accepted or rejected for itself.

    Attributes:
        accepted: how many are durable.
        rejected: the others, in order.
    """

    accepted: int
    rejected: Sequence[Rejection]


class Intake:
    """Takes events in.

    Args:
        keyring: verifies write keys.
        stream: makes envelopes durable.
        partition_buckets: partition keys over which an account's visitors spread.
        clock: says when a request arrived.
        entropy: returns that many random bytes; ids are made of them.
        journal: learns how many events were accepted and rejected.
    """

    def __init__(
        self,
        keyring: Keyring,
        stream: Stream,
        partition_buckets: int,
        *,
        clock: Clock,
        entropy: Callable[[int], bytes],
        journal: Journal,
    ) -> None:
        self._keyring = keyring
        self._stream = stream
        self._partition_buckets = partition_buckets
        self._clock = clock
        self._entropy = entropy
        self._journal = journal

    def verify(self, key: object) -> WriteKey:
        """Return what a write key says; None and what is empty are no key.

        Raises:
            Refused: `missing_key`, `invalid_key`, `keys_unavailable`.
        """
        if not key:
            raise Refused("missing_key")
        if not isinstance(key, str):
            raise Refused("invalid_key")
        try:
            return self._keyring.verify(key)
        except InvalidKeyError as error:
            raise Refused("invalid_key", str(error)) from None
        except KeysUnavailableError:
            raise Refused("keys_unavailable") from None

    def take(
        self,
        request: Request,
        key: WriteKey,
        events: Sequence[Any],
        table: object = None,
        columns: Mapping[str, Any] | None = None,
    ) -> Verdict:
        """Make the events durable that can become rows.

        Args:
            request: what brought them.
            key: whose they are.
            events: of JSON's types.
            table: where those go that name no table.
            columns: are added to each row whose event does not bring them, beside `td_ip` and `td_user_agent`.

        Raises:
            Refused: `stream_unavailable`: none is accepted, and the same request may succeed later.
        """
        now = int(self._clock.now() * 1000)
        arrival = rows.Arrival(now, _columns(request, columns))
        taken: list[tuple[str, bytes]] = []
        indices: list[int] = []
        rejected: list[Rejection] = []
        for index, event in enumerate(events):
            try:
                name = rows.table_of(event, table)
                row = rows.encode(event, arrival, lambda: new_event_id(now, self._entropy))
            except rows.Rejected as verdict:
                rejected.append(Rejection(index, verdict.code, verdict.message))
            else:
                taken.append((name, row))
                indices.append(index)
        untaken = self._put(taken, key, now, self._partition_key(key.account, events[0], request.ip))
        if untaken and len(untaken) == len(taken):
            raise Refused("stream_unavailable")
        if untaken:
            message = ANSWERS["stream_unavailable"].meaning
            rejected += [Rejection(indices[row], "stream_unavailable", message) for row in untaken]
            rejected.sort(key=lambda rejection: rejection.index)
        accepted = len(taken) - len(untaken)
        if accepted:
            self._journal.count("EventsAccepted", accepted)
        if rejected:
            self._journal.count("EventsRejected", len(rejected))
        return Verdict(accepted, rejected)

    def _put(
        self, taken: Sequence[tuple[str, bytes]], key: WriteKey, now: int, partition_key: str
    ) -> list[int]:
        """Return which of the rows are not durable."""
        request_id = new_event_id(now, self._entropy)
        envelopes = list(envelope.divide(taken, key.account, key.key_id, now, request_id))
        untaken: list[int] = []
        start = 0
        for item, durable in zip(envelopes, self._stream.put(envelopes, partition_key), strict=True):
            if not durable:
                untaken += range(start, start + item.row_count)
            start += item.row_count  # an envelope holds rows that followed one another
        return untaken

    def _partition_key(self, account: str, event: object, ip: str) -> str:
        """Return where the request stands among its account's: one visitor's events stay in order."""
        visitor = event.get("td_client_id") if isinstance(event, dict) else None
        if not isinstance(visitor, str) or not visitor:
            visitor = ip
        return f"{account}/{crc32(visitor.encode(errors='replace')) % self._partition_buckets}"


def _columns(request: Request, more: Mapping[str, Any] | None) -> dict[str, Any]:
    columns = dict(more or {})
    if request.ip:
        columns["td_ip"] = request.ip
    if user_agent := request.headers.get("user-agent"):
        columns["td_user_agent"] = user_agent
    return columns
