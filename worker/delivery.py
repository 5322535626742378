"""The rules of delivery: what to do with a chunk, given its entry in the ledger, what happened, and the time.

One table, TRANSITIONS, lists every change of a chunk's state; the table in docs/delivery.md is generated from it. The other modules
report events and do what `Rules` returns. This module has no side effects.

Treasure Data may accept an attempt without Sluice learning of it. A chunk therefore has a *doubt* from before it is first sent (`since`:
when its span was planned, or when it was fenced to be sent) until an answer settles it. A pending chunk can have a doubt; a chunk that is
set aside with a doubt is *in doubt*. While Treasure Data remembers the attempt's unique_id, Sluice may send the chunk again under that id.
After that, it must query Treasure Data.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum, StrEnum

from worker.guards import NONE, Guard, Without

LONGEST_INVOCATION_SECONDS = 15 * 60
"""Lambda's own limit: a send that began in time can still be running for this long."""


class State(StrEnum):
    """The state of a chunk."""

    PENDING = "pending"
    PARKED = "parked"
    IN_DOUBT = "in_doubt"
    DEAD_LETTER = "dead_letter"
    REJECTED = "rejected"
    SPLIT = "split"
    DELIVERED = "delivered"
    DROPPED = "dropped"
    MISSING = "missing"
    RETURNED = "returned"


ASIDE = frozenset((State.PARKED, State.IN_DOUBT, State.DEAD_LETTER))
"""States of chunks that have all their rows in S3. REJECTED is not one: no sender was promised these events, and only some are kept."""
FINAL = frozenset((State.DELIVERED, State.DROPPED, State.MISSING, State.RETURNED))
"""Final states. Returned rows are on the stream again, and count in the next span that holds them."""


@dataclass(frozen=True, slots=True)
class Entry:
    """The ledger's entry for a chunk.

    Attributes:
        state: its state; a split chunk's halves have entries of their own.
        rows: how many rows it holds.
        since: UNIX milliseconds from which Treasure Data may have accepted it; None while no doubt is open. Only without a doubt may
            the chunk go to another database, be edited or be split.
        reason: why it is set aside, in one word.
        aside_at: UNIX milliseconds at which it was set aside in this state.
        database: the database it goes to, if that differs from the plan's; else empty.
        generation: how often it was given a new unique_id.
        edit: how often an operator has edited its planned chunk's rows.
        digest: of the object in S3 that holds its planned chunk; empty while there is none.
    """

    state: State = State.PENDING
    rows: int = 0
    since: int | None = None
    reason: str = ""
    aside_at: int = 0
    database: str = ""
    generation: int = 0
    edit: int = 0
    digest: str = ""


class Event(Enum):
    """What happens to a chunk."""

    DOUBT_OPENS = "it is about to be sent"
    ACCEPTED = "Treasure Data has it"
    REFUSED = "Treasure Data refuses it permanently"
    ROWS_REFUSED = "Treasure Data refuses rows of it permanently"
    TOO_LARGE = "it is too large"
    MISMATCHED = "Treasure Data has other bytes under its id"
    UNANSWERED = "it was not sent, or no answer settles it"
    DATABASE_FAILS = "its database fails while Treasure Data works"
    HELD_TOO_LONG = "it cannot be held any longer"
    NOT_DELIVERABLE = "its rows cannot go to any database"
    INVALID = "it holds rejected events"
    UNRESOLVED = "its account could not be looked up for too long"
    FORGOTTEN = "it has been pending for longer than Treasure Data remembers ids"
    ABSENT = "a query shows that Treasure Data does not have it"
    UNASKED = "Treasure Data cannot be queried, and a setting or an operator has it sent"
    PARKED_TOO_LONG = "it was parked for too long"
    DROPPED = "an operator drops it"
    EDITED = "an operator edits its rows"
    REPAIRED = "its events, repaired by an operator, are on the stream"
    RETURNED = "its rows are on the stream again"
    RECORDS_EXPIRED = "its records have expired"


@dataclass(frozen=True, slots=True)
class Happening:
    """An event and its details.

    Attributes:
        now: UNIX milliseconds.
        reason: in one word.
        certain: no attempt can have been accepted: this invocation opened the doubt, each of its attempts was definitely
            refused, and no other invocation has written the span since.
        divisible: the chunk has two rows or more, and its planned chunk may be halved further.
        database: the database it is about to be sent to.
        digest: of the object that holds its edited rows.
    """

    event: Event
    now: int
    reason: str = ""
    certain: bool = False
    divisible: bool = False
    database: str = ""
    digest: str = ""


class Presence(Enum):
    """Whether Treasure Data has rows, as far as its answers show it."""

    PRESENT = "it has them"
    ABSENT = "it does not have them"
    UNASKABLE = "the API key may not query, or no query can identify the rows"
    UNDECIDED = "no answer settles it"


class Condition(Enum):
    """A condition that must also hold for a transition."""

    ALWAYS = ""
    ABSENT = "Treasure Data cannot have it"
    DOUBTED = "Treasure Data may have it"
    DIVISIBLE = "Treasure Data cannot have it; it can be halved"
    INDIVISIBLE = "Treasure Data cannot have it; it cannot be halved"
    SEARCHED = "its rows cannot still come from the stream"


Change = Callable[[Entry, Happening], Entry]


def _settle(entry: Entry, _happening: Happening) -> Entry:
    return replace(entry, since=None, reason="")


def _open_doubt(entry: Entry, happening: Happening) -> Entry:
    since = happening.now if entry.since is None else entry.since
    return replace(entry, since=since, database=happening.database or entry.database)


def _open_doubt_again(entry: Entry, happening: Happening) -> Entry:
    return replace(_open_doubt(entry, happening), aside_at=happening.now)


def _set_aside(entry: Entry, happening: Happening) -> Entry:
    return replace(entry, since=None, reason=happening.reason, aside_at=happening.now)


def _clear_doubt(entry: Entry, happening: Happening) -> Entry:
    return replace(entry, since=None, reason=happening.reason or entry.reason)


def _set_aside_in_doubt(entry: Entry, happening: Happening) -> Entry:
    return replace(entry, reason=happening.reason, aside_at=happening.now)


def _say_why(entry: Entry, happening: Happening) -> Entry:
    return replace(entry, reason=happening.reason)


def _renew_id(entry: Entry, _happening: Happening) -> Entry:
    return replace(entry, since=None, generation=entry.generation + 1)


def _replace_rows(entry: Entry, happening: Happening) -> Entry:
    return replace(entry, edit=entry.edit + 1, generation=entry.generation + 1, digest=happening.digest)


def _nothing(entry: Entry, _happening: Happening) -> Entry:
    return entry


@dataclass(frozen=True, slots=True)
class Transition:
    """One row of the state machine: if `when` holds, `event` leads from any of `states` to `to`, and `change` updates the entry."""

    states: tuple[State, ...]
    event: Event
    to: State
    when: Condition = Condition.ALWAYS
    change: Change = _nothing


_UNSETTLED = (State.PENDING, State.PARKED, State.IN_DOUBT, State.DEAD_LETTER)
_SENT = (State.PENDING, State.IN_DOUBT)
_P, _D = (State.PENDING,), (State.IN_DOUBT,)

TRANSITIONS: tuple[Transition, ...] = (
    Transition(_P, Event.DOUBT_OPENS, State.PENDING, change=_open_doubt),
    Transition((State.PARKED, State.IN_DOUBT), Event.DOUBT_OPENS, State.IN_DOUBT, change=_open_doubt),
    Transition((State.DEAD_LETTER,), Event.DOUBT_OPENS, State.IN_DOUBT, change=_open_doubt_again),
    Transition(_UNSETTLED, Event.ACCEPTED, State.DELIVERED, change=_settle),
    Transition(_SENT, Event.REFUSED, State.DEAD_LETTER, Condition.ABSENT, _set_aside),
    Transition(_P, Event.REFUSED, State.IN_DOUBT, Condition.DOUBTED, _set_aside_in_doubt),
    Transition(_D, Event.REFUSED, State.IN_DOUBT, Condition.DOUBTED, _say_why),
    Transition(_SENT, Event.ROWS_REFUSED, State.SPLIT, Condition.DIVISIBLE),
    Transition(_SENT, Event.ROWS_REFUSED, State.DEAD_LETTER, Condition.INDIVISIBLE, _set_aside),
    Transition(_P, Event.ROWS_REFUSED, State.IN_DOUBT, Condition.DOUBTED, _set_aside_in_doubt),
    Transition(_D, Event.ROWS_REFUSED, State.IN_DOUBT, Condition.DOUBTED, _say_why),
    Transition(_SENT, Event.TOO_LARGE, State.SPLIT, Condition.DIVISIBLE),
    Transition(_SENT, Event.TOO_LARGE, State.DEAD_LETTER, Condition.INDIVISIBLE, _set_aside),
    Transition(_P, Event.TOO_LARGE, State.IN_DOUBT, Condition.DOUBTED, _set_aside_in_doubt),
    Transition(_D, Event.TOO_LARGE, State.IN_DOUBT, Condition.DOUBTED, _say_why),
    Transition(_P, Event.MISMATCHED, State.IN_DOUBT, change=_set_aside_in_doubt),
    Transition(_D, Event.MISMATCHED, State.IN_DOUBT, change=_say_why),
    Transition(_P, Event.UNANSWERED, State.PENDING, Condition.ABSENT, _clear_doubt),
    Transition(_D, Event.UNANSWERED, State.PARKED, Condition.ABSENT, _clear_doubt),
    Transition(_P, Event.DATABASE_FAILS, State.PARKED, Condition.ABSENT, _set_aside),
    Transition(_P, Event.DATABASE_FAILS, State.IN_DOUBT, Condition.DOUBTED, _set_aside_in_doubt),
    Transition(_P, Event.HELD_TOO_LONG, State.PARKED, Condition.ABSENT, _set_aside),
    Transition(_P, Event.HELD_TOO_LONG, State.IN_DOUBT, Condition.DOUBTED, _set_aside_in_doubt),
    Transition((State.PENDING, State.PARKED), Event.NOT_DELIVERABLE, State.DEAD_LETTER, change=_set_aside),
    Transition(_P, Event.INVALID, State.REJECTED, change=_set_aside),
    Transition(_P, Event.UNRESOLVED, State.PARKED, change=_set_aside),
    Transition(_P, Event.FORGOTTEN, State.IN_DOUBT, change=_set_aside_in_doubt),
    Transition(_D, Event.ABSENT, State.IN_DOUBT, Condition.SEARCHED, _renew_id),
    Transition(_D, Event.UNASKED, State.IN_DOUBT, change=_renew_id),
    Transition((State.PARKED,), Event.PARKED_TOO_LONG, State.DEAD_LETTER, change=_set_aside),
    Transition(
        (State.IN_DOUBT, State.DEAD_LETTER, State.REJECTED), Event.DROPPED, State.DROPPED, change=_settle
    ),
    Transition((State.REJECTED,), Event.REPAIRED, State.DROPPED, change=_say_why),
    Transition((State.DEAD_LETTER,), Event.RETURNED, State.RETURNED, change=_settle),
    Transition((State.DEAD_LETTER,), Event.EDITED, State.DEAD_LETTER, change=_replace_rows),
    Transition(_P, Event.RECORDS_EXPIRED, State.MISSING, change=_settle),
)
"""The state machine. An event without a matching row leaves the entry unchanged."""


_BY_PLACE: dict[tuple[State, Event], list[Transition]] = {}
for _transition in TRANSITIONS:
    for _state in _transition.states:
        _BY_PLACE.setdefault((_state, _transition.event), []).append(_transition)


class Action(Enum):
    """What to do with a chunk next."""

    SEND = "send it"
    ASK = "query Treasure Data for the rows"
    APPLY = "write the event to the ledger"
    WAIT = "leave it"


@dataclass(frozen=True, slots=True)
class Step:
    """The next step for a chunk.

    Attributes:
        event: what to write, for APPLY, or before a SEND.
        reason: for APPLY, the event's; for WAIT, why the chunk is left.
    """

    action: Action
    event: Event | None = None
    reason: str = ""


SEND = Step(Action.SEND)
ASK = Step(Action.ASK)


class Decision(Enum):
    """What an operator decides about rows."""

    SEND = "send"  # rows in doubt: send them, under a new id if Treasure Data may have forgotten the old one
    DROP = "drop"  # rows in doubt, dead letters or rejected events: give them up


@dataclass(frozen=True, slots=True)
class Rules:
    """Decides, within these limits, what each event means for a chunk and what to do next.

    Attributes:
        memory_seconds: how long Treasure Data remembers a unique_id.
        query_delay_seconds: how long after an import a query is sure to find its rows.
        held_at_most_seconds: how long rows may be held before they are set aside, whatever the reason.
        parked_max_seconds: how long rows may be parked before they become dead letters.
        retention_seconds: how long the stream keeps a record.
        sends_unasked: if the API key may not query, whether to send rows in doubt (True) or keep them for an operator.
        without: guards to leave out.
    """

    memory_seconds: float
    query_delay_seconds: float
    held_at_most_seconds: float
    parked_max_seconds: float
    retention_seconds: float
    sends_unasked: bool = True
    without: Without = NONE

    def follow(self, entry: Entry, happening: Happening) -> Entry:
        """Return the entry after an event. If no transition applies, that is `entry` itself, and nothing need be written."""
        absent = entry.since is None or happening.certain or Guard.OWN_DOUBT in self.without
        is_refused = happening.event in (Event.REFUSED, Event.ROWS_REFUSED)
        if is_refused and Guard.DOUBTED_REFUSAL in self.without:
            absent = True
        searched = entry.reason != UNSEARCHED or entry.generation > 0 or Guard.SEARCHED in self.without
        holding = {Condition.ALWAYS, Condition.ABSENT if absent else Condition.DOUBTED}
        if absent:
            holding.add(Condition.DIVISIBLE if happening.divisible else Condition.INDIVISIBLE)
        if searched:
            holding.add(Condition.SEARCHED)
        for transition in _BY_PLACE.get((entry.state, happening.event), ()):
            if transition.when in holding:
                to = transition.to
                if happening.event is Event.DOUBT_OPENS and Guard.FENCED_IN_DOUBT in self.without:
                    to = entry.state
                return replace(transition.change(entry, happening), state=to)
        return entry

    @staticmethod
    def half(entry: Entry) -> Entry:
        """Return the entry for each half of a chunk that is being split; the caller sets `rows`.

        A chunk is split only if Treasure Data cannot have it, so the halves of a chunk in doubt are parked.
        """
        if entry.state is State.PENDING:
            return entry
        return replace(entry, state=State.PARKED, since=None)

    @staticmethod
    def is_halved_first(entry: Entry, renewed: Entry) -> bool:
        """Return whether to halve a chunk before it is sent under its new id: under the old one it was called too large."""
        return renewed.generation > entry.generation and entry.reason == TOO_LARGE

    def may_repeat(self, since: int, now: float) -> bool:
        """Return whether a chunk whose doubt began at `since` (UNIX milliseconds) may be sent again under its id now (UNIX seconds)."""
        return now - since / 1000 <= self.memory_seconds - LONGEST_INVOCATION_SECONDS

    def is_held_too_long(self, arrived_at: float, now: float) -> bool:
        """Return whether rows of a record that arrived at `arrived_at` may not be held any longer; both in UNIX seconds."""
        return arrived_at < now - self.held_at_most_seconds

    @staticmethod
    def keeps_database(entry: Entry) -> bool:
        """Return whether a chunk goes where it went before, whatever its account's database is today: it may be there already."""
        return entry.since is not None

    def after_query(self, presence: Presence) -> Event | None:
        """Return the event that a query's result is for a chunk in doubt; None if it settles nothing."""
        match presence:
            case Presence.PRESENT:
                return Event.ACCEPTED
            case Presence.ABSENT:
                return Event.ABSENT
            case Presence.UNASKABLE if self.sends_unasked:
                return Event.UNASKED
        return None

    def askable_from(self, since: int) -> float:
        """Return the UNIX seconds from which a query shows whether Treasure Data has the rows of a doubt that began at `since` (UNIX milliseconds).

        Until its memory of the id has passed, the chunk may be sent again; the last of these attempts needs time to show too.
        """
        return since / 1000 + self.memory_seconds + self.query_delay_seconds

    def first_step(self, entry: Entry, obstacle: str, now: float, *, is_rejected: bool = False) -> Step:
        """Return the worker's next step for a pending chunk; `now` is UNIX seconds.

        `obstacle` says why its rows cannot be delivered. It is empty if they go to a database.
        """
        if is_rejected:
            return Step(Action.APPLY, Event.INVALID, obstacle)
        if obstacle:
            event = Event.UNRESOLVED if obstacle == UNRESOLVED else Event.NOT_DELIVERABLE
            return Step(Action.APPLY, event, obstacle)
        if entry.since is not None and not self.may_repeat(entry.since, now):
            return Step(Action.APPLY, Event.FORGOTTEN, "too_old_to_repeat")
        return SEND

    def next_step(self, entry: Entry, obstacle: str | None, decision: Decision | None, now: float) -> Step:
        """Return the redrive's next step for a chunk that is set aside; `now` is UNIX seconds.

        `obstacle` says why the account's rows cannot be delivered today. It is empty if they go to a database, None if that is unknown.
        """
        match entry.state:
            case State.PARKED if now * 1000 - entry.aside_at > self.parked_max_seconds * 1000:
                return Step(Action.APPLY, Event.PARKED_TOO_LONG, "parked_too_long")
            case State.PARKED if obstacle:
                return Step(Action.APPLY, Event.NOT_DELIVERABLE, obstacle)
            case State.DEAD_LETTER | State.IN_DOUBT | State.REJECTED if decision is Decision.DROP:
                return Step(Action.APPLY, Event.DROPPED)
            case State.PARKED | State.DEAD_LETTER:
                return SEND if obstacle == "" else _wait(obstacle)
            case State.IN_DOUBT:
                return self._step_in_doubt(entry, obstacle, decision, now)
        return _wait("settled")

    def _step_in_doubt(
        self, entry: Entry, obstacle: str | None, decision: Decision | None, now: float
    ) -> Step:
        if entry.since is None or self.may_repeat(entry.since, now):
            return SEND if obstacle == "" else _wait(obstacle)
        if decision is Decision.SEND:
            return Step(Action.SEND, Event.UNASKED) if obstacle == "" else _wait(obstacle)
        return ASK if now > self.askable_from(entry.since) else _wait("too_early_to_ask")


TOO_LARGE = "too_large"
"""The reason of a chunk in doubt that a proxy called too large. If Treasure Data proves not to have it, it is halved before it is sent."""
ROW_TOO_LARGE = "row_too_large"
"""The reason of a dead letter that is a single row, too large to import."""
UNRESOLVED = "unresolved"
"""The reason of parked rows whose account could not be looked up for too long."""
UNSEARCHED = "stream_unsearched"
"""The reason of an overflow envelope in doubt: the stream may have it too, and could not be searched."""


def _wait(reason: str | None) -> Step:
    return Step(Action.WAIT, reason=reason or "account_unavailable")
