"""What all dialects share: verify the key, encode events as rows, and store the rows."""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import NamedTuple
from zlib import crc32

from ingest import rejected as rejected_events
from ingest.batch import Batch
from ingest.budget import Budgets, Spending
from ingest.keyring import Keyring
from ingest.plan_check import PlanCheck
from ingest.policy import PolicyReader
from ingest.privacy import Privacy, Screen, Visitor
from ingest.rate import Allowance, Rate
from ingest.refusal import ANSWERS, Refused
from ingest.refused_persons import RefusedPersons
from ingest.rejected import Rejection
from ingest.request import Request
from ingest.stream import Stream
from shared import envelope, rows
from shared.clock import Clock
from shared.envelope import Envelope, RejectedEvent
from shared.errors import InvalidKeyError, SecretUnavailableError
from shared.event_id import new_event_id
from shared.telemetry import Telemetry
from shared.tracking_plan import TrackingPlan
from shared.write_key import WriteKey

MAX_EVENTS = 500
"""Events per request."""
MAX_TABLES = 20
"""Tables per request: each becomes an import of its own."""


def check_count(count: int) -> None:
    """Check the number of events in a request. `Intake.accept` does this for a batch; a request of several needs its own check.

    Raises:
        Refused: `no_events`, `too_many_events`.
    """
    if not count:
        raise Refused("no_events")
    if count > MAX_EVENTS:
        raise Refused("too_many_events")


class Admitted(NamedTuple):
    """A sender whose write key is valid and within its rate.

    Attributes:
        key: the verified write key.
        plan: the account's tracking plan, None if it has none.
        allowance: what the key may send.
        spending: what its account may spend.
        persons: whose events its account refuses; None if it refuses nobody's.
    """

    key: WriteKey
    plan: TrackingPlan | None
    allowance: Allowance
    spending: Spending
    persons: RefusedPersons | None


class EventOutcome(NamedTuple):
    """What happened to a request's events.

    Attributes:
        accepted: how many are stored.
        rejected: the others, in order.
        encoded: table and row of each event that became a row, by its index.
    """

    accepted: int
    rejected: Sequence[Rejection]
    encoded: Mapping[int, tuple[str, bytes]]

    @property
    def refusal(self) -> Refused | None:
        """The first rejection as the answer to the whole request; None if there is none."""
        return Refused(self.rejected[0].code, self.rejected[0].message) if self.rejected else None


PARTITION_KEYS = 8192
"""Partition keys per account. They hash to shards at random: with 32 for each of 256 shards, the busiest shard gets 1.5 times its share."""


class Intake:
    """Accepts events.

    Args:
        keyring: verifies write keys.
        policies: reads the edge policy.
        stream: stores envelopes.
        privacy: decides what is kept about visitors.
        rate: limits what a key may send.
        budgets: limit what an account may spend.
        redirect_hosts: hosts that a postback may redirect to.
        clock: timestamps requests.
        entropy: returns n random bytes, for ids.
        telemetry: counts rejected events.
    """

    def __init__(
        self,
        keyring: Keyring,
        policies: PolicyReader,
        stream: Stream,
        privacy: Privacy,
        *,
        rate: Rate,
        budgets: Budgets,
        redirect_hosts: Sequence[str],
        clock: Clock,
        entropy: Callable[[int], bytes],
        telemetry: Telemetry,
    ) -> None:
        self._keyring = keyring
        self._policies = policies
        self._stream = stream
        self.privacy = privacy
        self._rate = rate
        self._budgets = budgets
        self.redirect_hosts = redirect_hosts
        self._clock = clock
        self._entropy = entropy
        self._telemetry = telemetry

    def verify(self, key: object, places: str) -> Admitted:
        """Verify a write key.

        Args:
            key: the key; None and empty values count as missing.
            places: where the sender may put it, for a person.

        Raises:
            Refused: `missing_key`, `invalid_key`, `keys_unavailable`, `unknown_account`, `disabled_account`, `revoked_key`,
                `rate_exceeded`, `budget_exceeded`.
        """
        if not key:
            raise Refused("missing_key", f"{ANSWERS['missing_key'].meaning}: send it as {places}")
        if not isinstance(key, str):
            raise Refused("invalid_key")
        try:
            verified = self._keyring.verify(key)
        except InvalidKeyError as error:
            raise Refused("invalid_key", str(error)) from None
        except SecretUnavailableError:
            raise Refused("keys_unavailable") from None
        entry = self._policies.entry(verified)
        allowance = self._rate.allowance(verified, entry.limits)
        spending = self._budgets.of(verified.account, entry.limits)
        persons = self._persons(verified.account, entry.refused) if entry.refused else None
        return Admitted(verified, entry.plan, allowance, spending, persons)

    def _persons(self, account: str, hashes: Mapping[str, frozenset[bytes]]) -> RefusedPersons | None:
        key = self._keyring.forget_key()
        return RefusedPersons(key, account, hashes) if key is not None else None

    def is_ready(self) -> bool:
        """Return whether events would become durable."""
        return self._stream.is_ready()

    def now(self) -> float:
        """Return UNIX seconds."""
        return self._clock.now()

    def new_id(self) -> str:
        """Return a new unique id."""
        return new_event_id(int(self._clock.now() * 1000), self._entropy)

    def accept(self, request: Request, sender: Admitted, batch: Batch, visitor: Visitor) -> EventOutcome:
        """Encode the events as rows and store them.

        Args:
            request: the request that sent them.
            sender: the verified sender.
            batch: the events.
            visitor: who caused them.

        Raises:
            Refused: `no_events`, `too_many_events`, `unwanted_bot`, `budget_exceeded`; or `stream_unavailable`: no event was stored or, in a batch
                with an id, at least one valid event was not. A retry may succeed.
        """
        check_count(len(batch.events))
        if not self.privacy.accepts(visitor):
            raise Refused("unwanted_bot")
        sent = batch.events
        if batch.rewrite:
            batch = batch._replace(events=[batch.rewrite(event) for event in batch.events])
        now = int(self._clock.now() * 1000)
        arrival = rows.Arrival(
            now,
            {**batch.columns, "bot": visitor.bot} if visitor.bot else batch.columns,
            drift=rows.clock_drift(batch.sent_at, now // 1000),
            table_is_column=batch.single_table,
        )
        key = sender.key
        check = PlanCheck(sender.plan, partial(self.privacy.screen, visitor))
        encoded, rejected = self._encode(key.account, batch, arrival, check, sender.persons)
        if check.violations:
            self._report_drift(key.account, check.violations)
        kept: tuple[RejectedEvent, ...] = ()
        if rejected:
            kept = rejected_events.events_of(
                batch, sent, rejected, partial(_screen_of_copies, check, sender.persons), arrival
            )
        size = sum([len(row) for _, row in encoded.values()], sum([len(event.original) for event in kept]))
        sender.allowance.charge(len(batch.events), size)
        sender.spending.spend(len(batch.events), size, now / 1000, self._policies.overflow_level())
        envelopes = self._envelopes(encoded, kept, key, now, batch)
        partition_key = self._partition_key(key.account, batch, request)
        not_stored = self._put(envelopes, encoded, partition_key, request.deadline)
        if not_stored and (batch.id or len(not_stored) == len(encoded)):
            raise Refused("stream_unavailable")
        if not_stored:
            message = ANSWERS["stream_unavailable"].meaning
            rejected += [Rejection(index, "stream_unavailable", message) for index in not_stored]
            rejected.sort(key=lambda rejection: rejection.index)
        accepted = len(encoded) - len(not_stored)
        if rejected:
            self._telemetry.count("EventsRejected", len(rejected))
        return EventOutcome(accepted, rejected, encoded)

    def _encode(
        self,
        account: str,
        batch: Batch,
        arrival: rows.Arrival,
        check: PlanCheck,
        persons: RefusedPersons | None,
    ) -> tuple[dict[int, tuple[str, bytes]], list[Rejection]]:
        """Return the table and row of each event by its index, and the rejections of events that cannot become rows."""
        encoded: dict[int, tuple[str, bytes]] = {}
        rejected: list[Rejection] = []
        screens: dict[str, Screen | None] = {}
        for index, event in enumerate(batch.events):
            table = ""
            try:
                if persons is not None:
                    persons.check(event)
                table = rows.table_of({} if batch.single_table else event, batch.table)
                if table not in screens:
                    if len(screens) >= MAX_TABLES:
                        raise rows.Rejected("too_many_tables", ANSWERS["too_many_tables"].meaning)  # noqa: TRY301 -- like the row rules
                    screen = check.screen(table)
                    screens[table] = screen if persons is None else persons.after(screen)
                new_id = partial(self._event_id, account, batch, index)
                row = rows.encode(event, arrival, new_id, screens[table])
            except rows.Rejected as reason:
                rejected.append(Rejection(index, reason.code, reason.message, table))
            else:
                encoded[index] = table, row
        return encoded, rejected

    def _report_drift(self, account: str, violations: Mapping[tuple[str, rows.PlanCode], int]) -> None:
        for (table, code), count in violations.items():
            self._telemetry.info(
                "events differ from the tracking plan", code=code, account=account, table=table, count=count
            )

    def _event_id(self, account: str, batch: Batch, index: int) -> str:
        """Return the id for an event that has none."""
        if batch.id:
            return batch.event_id(account, index)
        return (batch.sent and batch.uuid(index)) or self.new_id()

    def _envelopes(
        self,
        encoded: Mapping[int, tuple[str, bytes]],
        rejected: tuple[RejectedEvent, ...],
        key: WriteKey,
        now: int,
        batch: Batch,
    ) -> list[Envelope]:
        """Return a request's rows in envelopes. Its rejected events go into the last one or, if that is full, into another."""
        if batch.id:
            envelopes = list(batch.claims(encoded, key, now))
        elif batch.sent:
            envelopes = list(batch.single_claims(encoded, key, now, self.new_id))
        else:
            request_id = new_event_id(now, self._entropy)
            envelopes = list(envelope.divide(encoded.values(), key.account, key.key_id, now, request_id))
        if not rejected:
            return envelopes
        if envelopes and (last := rejected_events.joined(envelopes[-1], rejected)):
            return [*envelopes[:-1], last]
        if batch.id:
            return [*envelopes, batch.rejected_claim(rejected, key, now)]
        return [*envelopes, Envelope(key.account, key.key_id, now, self.new_id(), 0, (), rejected)]

    def _put(
        self, envelopes: Sequence[Envelope], encoded: Collection[int], partition_key: str, deadline: float
    ) -> list[int]:
        """Store the envelopes; return the indices of the events that could not be stored."""
        if not encoded:
            for item in envelopes:
                self._stream.offer(item, partition_key, deadline)
            return []
        stored = self._stream.put(envelopes, partition_key, deadline)
        if all(stored):
            return []
        not_stored: list[int] = []
        indices = iter(encoded)  # each envelope holds consecutive rows
        for item, is_durable in zip(envelopes, stored, strict=True):
            covered = list(islice(indices, item.row_count))
            if not is_durable:
                not_stored += covered
        return not_stored

    def _partition_key(self, account: str, batch: Batch, request: Request) -> str:
        """Return the partition key. Events from one visitor share a key, so they stay in order.

        Requests without a visitor, such as a server's, spread over all keys.
        """
        event = batch.events[0]
        visitor = event.get("td_client_id") if isinstance(event, dict) else None
        if not isinstance(visitor, str) or not visitor:
            visitor = request.id or request.ip
        return f"{account}/{crc32(visitor.encode(errors='replace')) % PARTITION_KEYS}"


def _screen_of_copies(check: PlanCheck, persons: RefusedPersons | None, table: str) -> Screen | None:
    screen = check.privacy(table)
    return screen if screen is None or persons is None else persons.after(screen)
