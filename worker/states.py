"""The states of a chunk, and what changes them.

One table, TRANSITIONS, lists what events make of a chunk; the table in docs/internals/delivery.md is generated from it. The other modules
report events and do what `Rules` returns. Chunks that come to be later have entries without an event: halves (`Rules.half`), and chunks that forgetting cuts, which keep the entry of the old one, or count forgotten rows. This module has no side effects.

Treasure Data may accept an attempt without Sluice learning of it. A chunk therefore has a *doubt* from before it is first sent (`since`:
when its span was planned, or when the sender wrote that it is about to send) until an answer settles it. While Treasure Data remembers
the attempt's unique_id, Sluice may send the chunk again under that id. After that, it must query Treasure Data.
"""

from collections.abc import Callable
from copy import replace
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import NamedTuple

LONGEST_INVOCATION_SECONDS = 15 * 60
"""Lambda's own limit: a send that began in time can still be running for this long."""
DEFAULT_MEMORY_SECONDS = 60 * 60
"""The default of TD_MEMORY_MINUTES: an earlier deployment may have repeated a send by it."""
ACCOUNT_UNAVAILABLE = "account_unavailable"
"""The reason of rows that wait because Redis does not say where their account's rows go."""
LEDGER_RESTORED = "ledger_restored"
"""The reason of rows that a ledger restored from a backup knows nothing newer about: they may have been sent in parts."""


class State(StrEnum):
    """The state of a chunk."""

    WAITING = "waiting"
    AGAIN = "again"
    DEAD = "dead"
    REJECTED = "rejected"
    SPLIT = "split"
    DELIVERED = "delivered"
    DROPPED = "dropped"
    REPLACED = "replaced"
    COPY = "copy"
    FORGOTTEN = "forgotten"


UNSETTLED = frozenset((State.WAITING, State.AGAIN))
"""States that the sender works on."""
USUAL_AGAIN_SECONDS = 1800.0
"""Rows that were put again wait until every shard has shown what it received; up to here, that is nothing unusual."""
FINAL = frozenset((State.DELIVERED, State.DROPPED, State.REPLACED, State.COPY, State.FORGOTTEN))
"""Final states: nobody needs the chunk's rows any more."""


class Entry(NamedTuple):
    """The ledger's entry for a chunk.

    Attributes:
        state: its state; a split chunk's halves have entries of their own.
        since: UNIX milliseconds from which Treasure Data may have accepted it; None while no doubt is open. Only without a doubt may
            the chunk be sent to another database, edited, dropped or split.
        database: the database that it was sent to, or that must be asked, too; empty if that is the plan's, or if it was never sent.
        generation: how often it was given a new unique_id.
        reason: why it waits or is dead, in one word.
        at: UNIX milliseconds at which it last died, was settled or was decided to count; 0 for when its span was planned.
        words: Treasure Data's own explanation of a refusal, as `explanation.kept` returns it.
    """

    state: State = State.WAITING
    since: int | None = None
    database: str = ""
    generation: int = 0
    reason: str = ""
    at: int = 0
    words: str = ""


class Event(Enum):
    """What happens to a chunk. ABSENT has it sent under a new id: by an answer (`Presence.ABSENT`), or by a decision without one."""

    OPENED = "it is about to be sent"
    ACCEPTED = "Treasure Data has it"
    REFUSED = "Treasure Data refuses it permanently"
    PARTLY_REFUSED = "Treasure Data refuses its size, or some rows"
    UNANSWERED = "it was not sent, or no answer settles it"
    ABSENT = "Treasure Data proves not to have it, or an operator or a setting has it sent without proof"
    NOT_DELIVERABLE = "its account cannot have it delivered"
    OBJECT_GONE = "its span object is gone"
    NO_DATABASE = "its account has no database"
    COPY_COUNTS = "another copy of its envelope counts"
    NO_COPY = "no other copy of its envelope counts"
    NOT_RECORDED = "no other copy of its envelope has its rejected events, as far as indexes show it"
    INDEX_GONE = "an index that would show another copy has been deleted"
    RESENT = "an operator sends it again"
    DROPPED = "an operator drops it"
    REPLACED = "an operator replaces its rows"
    CUT_ANEW = "a person in it is forgotten; other chunks have the other rows"


@dataclass(frozen=True, slots=True)
class Happening:
    """An event and its details.

    Attributes:
        now: UNIX milliseconds.
        reason: in one word.
        certain: no attempt can have been accepted: this invocation opened the doubt, each of its attempts was definitely
            refused or not made, and no other invocation has written the span since.
        divisible: the chunk has two rows or more, and its planned chunk may be halved further.
        database: the database it is about to be sent to.
        words: Treasure Data's own explanation.
    """

    event: Event
    now: int
    reason: str = ""
    certain: bool = False
    divisible: bool = False
    database: str = ""
    words: str = ""


class Condition(Enum):
    """A condition that must also hold for a transition. ABSENT needs no query: no doubt is open, or the happening is `certain`."""

    ALWAYS = ""
    ABSENT = "Treasure Data cannot have it"
    DOUBTED = "Treasure Data may have it"
    DIVISIBLE = "Treasure Data cannot have it; it can be halved"


Change = Callable[[Entry, Happening], Entry]


def _open_doubt(entry: Entry, happening: Happening) -> Entry:
    since = happening.now if entry.since is None else entry.since
    return replace(entry, since=since, database=happening.database or entry.database)


def _pass_on(entry: Entry, happening: Happening) -> Entry:
    reason = "" if entry.since is None else entry.reason  # it says what kind of doubt that is
    return replace(entry, reason=reason, words="", at=happening.now)


def _settle(entry: Entry, happening: Happening) -> Entry:
    return replace(entry, reason="", words="", at=happening.now, since=None)


def _say_why(entry: Entry, happening: Happening) -> Entry:
    return replace(entry, reason=happening.reason or entry.reason, words=happening.words or entry.words)


def _clear_doubt(entry: Entry, happening: Happening) -> Entry:
    return replace(_say_why(entry, happening), since=None)


def _give_up(entry: Entry, happening: Happening) -> Entry:
    return replace(_clear_doubt(entry, happening), at=happening.now)


def _give_up_in_doubt(entry: Entry, happening: Happening) -> Entry:
    return replace(_say_why(entry, happening), at=happening.now, since=entry.since or happening.now)


def _lose(entry: Entry, happening: Happening) -> Entry:
    return replace(_say_why(entry, happening), at=happening.now)


def _renew_id(entry: Entry, _happening: Happening) -> Entry:
    return replace(entry, since=None, generation=entry.generation + 1, reason="", words="")


@dataclass(frozen=True, slots=True)
class Transition:
    """One row of the state machine: if `when` holds, any of `events` leads from any of `states` to `to`, and `change` updates the entry."""

    states: tuple[State, ...]
    events: tuple[Event, ...]
    to: State
    change: Change
    when: Condition = Condition.ALWAYS


_W, _D, _A, _R = State.WAITING, State.DEAD, State.AGAIN, State.REJECTED

TRANSITIONS: tuple[Transition, ...] = (
    Transition((_W,), (Event.OPENED,), _W, _open_doubt),
    Transition((_W, _D), (Event.ACCEPTED,), State.DELIVERED, _settle),
    Transition((_W,), (Event.PARTLY_REFUSED,), State.SPLIT, _clear_doubt, Condition.DIVISIBLE),
    Transition(
        (_W,), (Event.REFUSED, Event.PARTLY_REFUSED, Event.NOT_DELIVERABLE), _D, _give_up, Condition.ABSENT
    ),
    Transition(
        (_W,), (Event.REFUSED, Event.PARTLY_REFUSED, Event.UNANSWERED), _W, _say_why, Condition.DOUBTED
    ),
    Transition((_W,), (Event.UNANSWERED,), _W, _clear_doubt, Condition.ABSENT),
    Transition((_W, _D), (Event.ABSENT,), _W, _renew_id, Condition.DOUBTED),
    Transition((_W,), (Event.OBJECT_GONE, Event.NO_DATABASE), _D, _lose),
    Transition((_A, _D), (Event.COPY_COUNTS,), State.COPY, _settle),
    Transition((_A, _D), (Event.NO_COPY,), _W, _pass_on),
    Transition((_A,), (Event.NOT_RECORDED,), _R, _settle),
    Transition((_A,), (Event.OBJECT_GONE, Event.INDEX_GONE), _D, _give_up_in_doubt),
    Transition((_D,), (Event.RESENT,), _W, _renew_id, Condition.ABSENT),
    Transition((_W, _D, _R), (Event.DROPPED,), State.DROPPED, _settle, Condition.ABSENT),
    Transition((_D, _R), (Event.REPLACED,), State.REPLACED, _settle, Condition.ABSENT),
    Transition((_W, _D, State.DELIVERED), (Event.CUT_ANEW,), State.REPLACED, _settle, Condition.ABSENT),
)
"""The state machine. The first row that matches counts. An event without one leaves the entry unchanged."""

_BY_PLACE: dict[tuple[State, Event], list[Transition]] = {}
for _transition in TRANSITIONS:
    for _state in _transition.states:
        for _event in _transition.events:
            _BY_PLACE.setdefault((_state, _event), []).append(_transition)


class Presence(Enum):
    """Whether Treasure Data has rows, as far as its answers to a query show it."""

    PRESENT = "it has them"
    ABSENT = "it does not have them"
    UNASKABLE = "the API key may not query, or no query can identify the rows"
    UNDECIDED = "no answer settles it"


class Action(Enum):
    """What to do with a chunk next."""

    SEND = "send it"
    ASK = "query Treasure Data for the rows"
    DECIDE = "find out whether another copy of its envelope counts"
    APPLY = "write the event to the ledger"
    DROP = "drop it if nobody can be asked: Treasure Data may have it"
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


class Decision(Enum):
    """What an operator decides about chunks."""

    SEND = "send"  # without asking: under a new id, but for rows that wait and may still be sent under the old one
    DROP = "drop"


@dataclass(frozen=True, slots=True)
class Rules:
    """Decides, within these limits, what each event means for a chunk and what to do next.

    Attributes:
        memory_seconds: how long Treasure Data remembers a unique_id.
        query_delay_seconds: how long after an import a query is sure to find its rows.
        sends_unasked: if the API key may not query, whether to send rows with an old doubt (True) or keep them for an operator.
    """

    memory_seconds: float
    query_delay_seconds: float
    sends_unasked: bool

    def follow(self, entry: Entry, happening: Happening) -> Entry:
        """Return the entry after an event. If no transition applies, that is `entry` itself, and nothing need be written."""
        absent = entry.since is None or happening.certain
        holding = {Condition.ALWAYS, Condition.ABSENT if absent else Condition.DOUBTED}
        if absent and happening.divisible:
            holding.add(Condition.DIVISIBLE)
        for transition in _BY_PLACE.get((entry.state, happening.event), ()):
            if transition.when in holding:
                return replace(transition.change(entry, happening), state=transition.to)
        return entry

    @staticmethod
    def half(entry: Entry) -> Entry:
        """Return the entry for each half of a chunk that is being split: it waits, without a doubt."""
        return replace(entry, state=State.WAITING, since=None, words="")

    def may_repeat(self, since: int, now: float) -> bool:
        """Return whether a chunk whose doubt began at `since` (UNIX milliseconds) may be sent under the same id now (UNIX seconds)."""
        return now - since / 1000 <= self.memory_seconds - LONGEST_INVOCATION_SECONDS

    def askable_from(self, since: int) -> float:
        """Return the UNIX seconds from which a query shows whether Treasure Data has the rows of a doubt that began at `since` (UNIX milliseconds).

        Until its memory of the id has passed, the chunk may be sent again; the last of these attempts needs time to show too. A setting
        below the default may be newer than the last attempt, so it ends only repeats earlier.
        """
        memory_seconds = max(self.memory_seconds, DEFAULT_MEMORY_SECONDS)
        return since / 1000 + memory_seconds + self.query_delay_seconds

    def after_query(self, presence: Presence, *, was_sent: bool) -> Event | None:
        """Return the event that a query's result is for a chunk with a doubt; None if it settles nothing.

        If the chunk was put again and never sent itself, what Treasure Data has is from another copy.
        """
        match presence:
            case Presence.PRESENT if not was_sent:
                return Event.COPY_COUNTS
            case Presence.PRESENT:
                return Event.ACCEPTED
            case Presence.ABSENT:
                return Event.ABSENT
            case Presence.UNASKABLE if self.sends_unasked:
                return Event.ABSENT
        return None

    def next_step(self, entry: Entry, obstacle: str | None, decision: Decision | None, now: float) -> Step:
        """Return the sender's next step for a chunk that was selected; `now` is UNIX seconds.

        `obstacle` says why the account's rows cannot be delivered today. It is empty if they go to a database, None if that is unknown.
        """
        if decision is Decision.DROP:  # what nobody wants any more is not sent because of that
            return Step(Action.APPLY if entry.since is None else Action.DROP, Event.DROPPED)
        match entry.state:
            case State.AGAIN:
                return Step(Action.DECIDE)
            case State.WAITING | State.DEAD if entry.since is not None:
                return self._step_in_doubt(entry, decision, now)
            case State.WAITING if obstacle:
                return Step(Action.APPLY, Event.NOT_DELIVERABLE, obstacle)
            case State.WAITING | State.DEAD if obstacle == "":
                return Step(Action.SEND, None if entry.state is State.WAITING else Event.RESENT)
            case State.WAITING | State.DEAD:
                return Step(Action.WAIT, reason=obstacle or ACCOUNT_UNAVAILABLE)
        return Step(Action.WAIT, reason="settled")

    def _step_in_doubt(self, entry: Entry, decision: Decision | None, now: float) -> Step:
        since = entry.since or 0
        # whatever clocks and settings say, nobody knows when a restored ledger's rows were first sent
        is_known = entry.reason != LEDGER_RESTORED
        if entry.state is State.WAITING and is_known and self.may_repeat(since, now):
            return Step(Action.SEND)
        if decision is Decision.SEND:
            return Step(Action.SEND, Event.ABSENT)
        if now > self.askable_from(since):
            return Step(Action.ASK)
        return Step(Action.WAIT, reason="too_early_to_ask")
