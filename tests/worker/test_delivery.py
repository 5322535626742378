"""The rules of delivery: the state machine, and the steps that follow from a chunk's entry and the time."""

from dataclasses import replace
from functools import cache
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.delivery import (
    ASIDE,
    ASK,
    FINAL,
    LONGEST_INVOCATION_SECONDS,
    ROW_TOO_LARGE,
    SEND,
    TOO_LARGE,
    TRANSITIONS,
    UNRESOLVED,
    UNSEARCHED,
    Action,
    Condition,
    Decision,
    Entry,
    Event,
    Happening,
    Presence,
    Rules,
    State,
    Step,
)
from worker.guards import Guard

P, K, U, D, S = State.PENDING, State.PARKED, State.IN_DOUBT, State.DEAD_LETTER, State.SPLIT
R = State.REJECTED
OK, DROPPED, MISSING = State.DELIVERED, State.DROPPED, State.MISSING

MEMORY, QUERY_DELAY, PARKED_MAX = 3600.0, 600.0, 14 * 86_400.0
HELD_AT_MOST = 43_200.0
REPEATABLE = MEMORY - LONGEST_INVOCATION_SECONDS
SINCE, NOW, ASIDE_AT = 1_700_000_000_000, 1_700_000_060_000, 1_700_000_030_000


def rules(**changes: Any) -> Rules:
    """Return rules with defaults."""
    members = {
        "memory_seconds": MEMORY,
        "query_delay_seconds": QUERY_DELAY,
        "held_at_most_seconds": HELD_AT_MOST,
        "parked_max_seconds": PARKED_MAX,
        "retention_seconds": 86_400.0,
    }
    return Rules(**(members | changes))


def entry(state: State, **changes: Any) -> Entry:
    """Return an entry with a distinct value in every member."""
    members = {
        "rows": 7,
        "since": None,
        "reason": "before",
        "aside_at": ASIDE_AT,
        "database": "old_db",
        "generation": 2,
        "edit": 1,
        "digest": "d1",
    }
    return Entry(state, **(members | changes))


def test_state_names_are_stable() -> None:
    """Ledger entries outlive the version of the worker that wrote them."""
    expected = [
        "pending",
        "parked",
        "in_doubt",
        "dead_letter",
        "rejected",
        "split",
        "delivered",
        "dropped",
        "missing",
        "returned",
    ]

    assert expected == [str(state) for state in State]
    assert "unresolved" == UNRESOLVED


def test_decisions_have_the_command_s_names() -> None:
    """The command uses the same words."""
    assert ["send", "drop"] == [decision.value for decision in Decision]


def test_states_are_pending_aside_final_or_split() -> None:
    """Each state is in exactly one of these groups."""
    assert {K, U, D} == ASIDE
    assert {OK, DROPPED, MISSING, State.RETURNED} == FINAL


def test_an_entry_begins_pending_and_empty() -> None:
    """It stands for a chunk without an entry in the ledger."""
    assert Entry(P, 0, None, "", 0, "", 0, 0, "") == Entry()


def test_a_happening_assumes_nothing() -> None:
    """By default it is neither certain nor divisible, and its texts are empty."""
    expected = Happening(Event.DOUBT_OPENS, NOW, "", certain=False, divisible=False, database="", digest="")

    assert expected == Happening(Event.DOUBT_OPENS, NOW)


def test_sending_and_asking_need_no_event_or_reason() -> None:
    """The constants SEND and ASK leave both out."""
    assert (Step(Action.SEND, None, ""), Step(Action.ASK, None, "")) == (SEND, ASK)


def test_rows_are_sent_unasked_by_default() -> None:
    """Keeping them for a person to decide is a setting."""
    assert rules(sends_unasked=True) == rules()


def test_the_unconditional_condition_has_no_text() -> None:
    """The diagram of the state machine then shows the event alone."""
    assert "" == Condition.ALWAYS.value


def test_an_invocation_takes_at_most_15_minutes() -> None:
    """This is Lambda's limit, in seconds."""
    assert 900 == LONGEST_INVOCATION_SECONDS


# For each state and event: the next state if Treasure Data cannot have the chunk, and the next state if it may. A nested
# pair is for a chunk that cannot be halved, and one that can. Events that a state does not list leave it unchanged.
MACHINE = {
    P: {
        Event.DOUBT_OPENS: (P, P),
        Event.ACCEPTED: (OK, OK),
        Event.REFUSED: (D, U),
        Event.ROWS_REFUSED: ((D, S), U),
        Event.TOO_LARGE: ((D, S), U),
        Event.MISMATCHED: (U, U),
        Event.UNANSWERED: (P, P),
        Event.DATABASE_FAILS: (K, U),
        Event.HELD_TOO_LONG: (K, U),
        Event.NOT_DELIVERABLE: (D, D),
        Event.INVALID: (R, R),
        Event.UNRESOLVED: (K, K),
        Event.FORGOTTEN: (U, U),
        Event.RECORDS_EXPIRED: (MISSING, MISSING),
    },
    K: {
        Event.DOUBT_OPENS: (U, U),
        Event.ACCEPTED: (OK, OK),
        Event.NOT_DELIVERABLE: (D, D),
        Event.PARKED_TOO_LONG: (D, D),
    },
    U: {
        Event.DOUBT_OPENS: (U, U),
        Event.ACCEPTED: (OK, OK),
        Event.REFUSED: (D, U),
        Event.ROWS_REFUSED: ((D, S), U),
        Event.TOO_LARGE: ((D, S), U),
        Event.MISMATCHED: (U, U),
        Event.UNANSWERED: (K, U),
        Event.ABSENT: (U, U),
        Event.UNASKED: (U, U),
        Event.DROPPED: (DROPPED, DROPPED),
    },
    D: {
        Event.DOUBT_OPENS: (U, U),
        Event.ACCEPTED: (OK, OK),
        Event.DROPPED: (DROPPED, DROPPED),
        Event.EDITED: (D, D),
        Event.RETURNED: (State.RETURNED, State.RETURNED),
    },
    R: {Event.DROPPED: (DROPPED, DROPPED), Event.REPAIRED: (DROPPED, DROPPED)},
}


@pytest.mark.parametrize("event", Event)
@pytest.mark.parametrize("state", State)
def test_every_event_in_every_state_leads_to_the_specified_state(state: State, event: Event) -> None:
    """There are no other transitions: any other event returns the same entry object."""
    expected = MACHINE.get(state, {}).get(event, (state, state))
    for doubted, divisible in product((False, True), repeat=2):
        to = expected[doubted]
        before = entry(state, since=SINCE if doubted else None)
        then = rules().follow(before, Happening(event, NOW, "why", divisible=divisible))

        assert (to[divisible] if isinstance(to, tuple) else to) is then.state
        assert event in MACHINE.get(state, {}) or then is before


@pytest.mark.parametrize("event", Event)
@pytest.mark.parametrize("state", State)
def test_a_certain_refusal_equals_no_attempt(state: State, event: Event) -> None:
    """If every attempt was definitely refused, an open doubt does not affect the next state."""
    for divisible in (False, True):
        happening = Happening(event, NOW, "why", certain=True, divisible=divisible)
        certain = rules().follow(entry(state, since=SINCE), happening)
        unsent = rules().follow(entry(state), replace(happening, certain=False))

        assert unsent.state is certain.state


@pytest.mark.parametrize(
    ("before", "happening", "changes"),
    [
        # A fence opens a doubt, or keeps the time of an open one.
        (entry(P), Happening(Event.DOUBT_OPENS, NOW), {"since": NOW}),
        (entry(P, since=SINCE), Happening(Event.DOUBT_OPENS, NOW), {}),
        (
            entry(P),
            Happening(Event.DOUBT_OPENS, NOW, database="new_db"),
            {"since": NOW, "database": "new_db"},
        ),
        (entry(K), Happening(Event.DOUBT_OPENS, NOW), {"state": U, "since": NOW}),
        (entry(U, since=SINCE), Happening(Event.DOUBT_OPENS, NOW), {}),
        (
            entry(U),
            Happening(Event.DOUBT_OPENS, NOW, database="new_db"),
            {"since": NOW, "database": "new_db"},
        ),
        # Once sent, a dead letter belongs to the schedule, as if it had just been set aside.
        (entry(D), Happening(Event.DOUBT_OPENS, NOW), {"state": U, "since": NOW, "aside_at": NOW}),
        # A chunk that is accepted, dropped or missing has neither a doubt nor a reason.
        (entry(P, since=SINCE), Happening(Event.ACCEPTED, NOW), {"state": OK, "since": None, "reason": ""}),
        (entry(K), Happening(Event.ACCEPTED, NOW), {"state": OK, "reason": ""}),
        (entry(D), Happening(Event.DROPPED, NOW), {"state": DROPPED, "reason": ""}),
        (
            entry(U, since=SINCE),
            Happening(Event.DROPPED, NOW),
            {"state": DROPPED, "since": None, "reason": ""},
        ),
        (
            entry(P, since=SINCE),
            Happening(Event.RECORDS_EXPIRED, NOW),
            {"state": MISSING, "since": None, "reason": ""},
        ),
        # A set-aside chunk says why and since when; a new reason alone does not change its age.
        (
            entry(P),
            Happening(Event.REFUSED, NOW, "http_422"),
            {"state": D, "reason": "http_422", "aside_at": NOW},
        ),
        (
            entry(P, since=SINCE),
            Happening(Event.REFUSED, NOW, "http_422", certain=True),
            {"state": D, "since": None, "reason": "http_422", "aside_at": NOW},
        ),
        (
            entry(P, since=SINCE),
            Happening(Event.REFUSED, NOW, "http_422"),
            {"state": U, "reason": "http_422", "aside_at": NOW},
        ),
        (entry(U, since=SINCE), Happening(Event.REFUSED, NOW, "http_422"), {"reason": "http_422"}),
        (
            entry(U),
            Happening(Event.REFUSED, NOW, "http_422"),
            {"state": D, "reason": "http_422", "aside_at": NOW},
        ),
        (
            entry(U, since=SINCE),
            Happening(Event.MISMATCHED, NOW, "md5_mismatch"),
            {"reason": "md5_mismatch"},
        ),
        (
            entry(P, since=SINCE),
            Happening(Event.MISMATCHED, NOW, "md5_mismatch", certain=True),
            {"state": U, "reason": "md5_mismatch", "aside_at": NOW},
        ),
        (
            entry(P, since=SINCE),
            Happening(Event.FORGOTTEN, NOW, "too_old_to_repeat"),
            {"state": U, "reason": "too_old_to_repeat", "aside_at": NOW},
        ),
        (
            entry(P, since=SINCE),
            Happening(Event.NOT_DELIVERABLE, NOW, "unknown_account"),
            {"state": D, "since": None, "reason": "unknown_account", "aside_at": NOW},
        ),
        (
            entry(P, since=SINCE),
            Happening(Event.UNRESOLVED, NOW, UNRESOLVED),
            {"state": K, "since": None, "reason": UNRESOLVED, "aside_at": NOW},
        ),
        (
            entry(K),
            Happening(Event.PARKED_TOO_LONG, NOW, "parked_too_long"),
            {"state": D, "reason": "parked_too_long", "aside_at": NOW},
        ),
        # The chunk is too large and cannot be halved, or Treasure Data may have all of it.
        (
            entry(P),
            Happening(Event.TOO_LARGE, NOW, "http_413"),
            {"state": D, "reason": "http_413", "aside_at": NOW},
        ),
        (
            entry(P, since=SINCE),
            Happening(Event.TOO_LARGE, NOW, "http_413"),
            {"state": U, "reason": "http_413", "aside_at": NOW},
        ),
        (entry(U, since=SINCE), Happening(Event.TOO_LARGE, NOW, "http_413"), {"reason": "http_413"}),
        # The chunk waits no longer.
        *(
            (
                entry(P, since=since),
                Happening(event, NOW, "why"),
                {"state": to, "reason": "why", "aside_at": NOW},
            )
            for event in (Event.DATABASE_FAILS, Event.HELD_TOO_LONG)
            for since, to in ((None, K), (SINCE, U))
        ),
        # An orderly end without an answer clears the doubt only if no attempt can have been accepted.
        (entry(P, since=SINCE), Happening(Event.UNANSWERED, NOW, "http_503"), {}),
        (
            entry(P, since=SINCE),
            Happening(Event.UNANSWERED, NOW, "http_429", certain=True),
            {"since": None, "reason": "http_429"},
        ),
        (
            entry(U, since=SINCE),
            Happening(Event.UNANSWERED, NOW, certain=True),
            {"state": K, "since": None},
        ),
        # A chunk that Treasure Data does not have is sent under another id.
        (entry(U, since=SINCE), Happening(Event.ABSENT, NOW), {"since": None, "generation": 3}),
        (entry(U, since=SINCE), Happening(Event.UNASKED, NOW), {"since": None, "generation": 3}),
        # So do edited rows.
        (entry(D), Happening(Event.EDITED, NOW, digest="d2"), {"generation": 3, "edit": 2, "digest": "d2"}),
        # Some of its rows are refused after a doubt.
        (entry(U, since=SINCE), Happening(Event.ROWS_REFUSED, NOW, "http_422"), {"reason": "http_422"}),
        # The chunk needs no delivery any more.
        (
            entry(P, since=SINCE),
            Happening(Event.INVALID, NOW, "too_deep"),
            {"state": R, "since": None, "reason": "too_deep", "aside_at": NOW},
        ),
        (
            entry(R),
            Happening(Event.REPAIRED, NOW, "repaired"),
            {"state": DROPPED, "reason": "repaired"},
        ),
        (entry(D), Happening(Event.RETURNED, NOW), {"state": State.RETURNED, "reason": ""}),
        # A chunk of an unsearched envelope gets another id only after it was sent under another id.
        (
            entry(U, since=SINCE, reason=UNSEARCHED, generation=1),
            Happening(Event.ABSENT, NOW),
            {"since": None, "generation": 2},
        ),
        # The entries of the halves replace that of a split chunk.
        (entry(P), Happening(Event.TOO_LARGE, NOW, "http_413", divisible=True), {"state": S}),
    ],
)
def test_a_transition_changes_only_these_members(
    before: Entry, happening: Happening, changes: dict[str, Any]
) -> None:
    """Everything else known about a chunk stays."""
    assert replace(before, **changes) == rules().follow(before, happening)


HAPPENINGS = tuple(
    Happening(event, now, "why", certain=certain, divisible=divisible, database=database, digest="d2")
    for event, now, certain, divisible, database in product(
        Event, (NOW, NOW + 1), (False, True), (False, True), ("", "new_db")
    )
)
BEGINNINGS = (
    Entry(since=SINCE, rows=7),
    Entry(K, rows=7, reason="stream_refused", aside_at=ASIDE_AT),
    Entry(U, rows=7, since=SINCE, reason=UNSEARCHED, aside_at=ASIDE_AT),
)
"""The entries that a plan implies, and those that the drainer writes for an envelope it cannot put on the stream."""
MOST_IDS, MOST_EDITS = 2, 1  # a third id is like the second


@cache
def lives() -> tuple[tuple[Entry, Happening, Entry], ...]:
    """Return every transition of every entry that a chunk can have: before, happening, after."""
    found, waiting, seen = [], list(BEGINNINGS), set(BEGINNINGS)
    while waiting:
        before = waiting.pop()
        for happening in HAPPENINGS:
            after = rules().follow(before, happening)
            found.append((before, happening, after))
            if after not in seen and after.generation <= MOST_IDS and after.edit <= MOST_EDITS:
                seen.add(after)
                waiting.append(after)
    return tuple(found)


def test_final_states_and_splits_never_change() -> None:
    """No event changes the entry of a chunk that is settled for good or split into halves."""
    ended = FINAL | {State.SPLIT}

    assert ended | {P, K, U, D, R} == {before.state for before, _, _ in lives()}
    assert [] == [life for life in lives() if life[0].state in ended and life[2] is not life[0]]


def test_parked_chunks_and_dead_letters_have_no_doubt() -> None:
    """They are sent to the account's current database, so Treasure Data must not have them already."""
    assert [] == [life for life in lives() if life[2].state in (K, D) and life[2].since is not None]


CLEARS = {Event.ACCEPTED, Event.ABSENT, Event.UNASKED, Event.DROPPED, Event.RECORDS_EXPIRED}
"""Events that settle whether Treasure Data has the chunk."""
NEVER_SENT = {Event.NOT_DELIVERABLE, Event.UNRESOLVED, Event.INVALID}
"""Events of chunks that have no destination: none of them was ever sent."""


def test_only_certainty_clears_a_doubt() -> None:
    """A doubt ends with an answer from Treasure Data, or if every attempt was definitely refused."""
    cleared = [life for life in lives() if life[0].since is not None and life[2].since is None]

    assert cleared
    assert [] == [life for life in cleared if not (life[1].certain or life[1].event in CLEARS | NEVER_SENT)]


def test_a_doubt_keeps_the_time_of_its_first_attempt() -> None:
    """Treasure Data's memory of an id is counted from the first attempt, whatever is sent later under it."""
    kept = [life for life in lives() if None not in (life[0].since, life[2].since)]

    assert kept
    assert [] == [life for life in kept if life[0].since != life[2].since]


def test_an_id_is_renewed_only_after_the_old_one_is_settled() -> None:
    """Either Treasure Data does not have the old id's rows, or a person or a rule decides so."""
    for before, happening, after in lives():
        renewed = happening.event in (Event.ABSENT, Event.UNASKED, Event.EDITED) and after is not before
        assert before.generation + renewed == after.generation
        assert after.since is None or not renewed


def test_rows_are_never_forgotten() -> None:
    """No event changes an entry's row count or lowers its edit number, and set-aside chunks say since when."""
    for before, _, after in lives():
        assert before.rows == after.rows
        assert before.edit <= after.edit
        assert after.state not in ASIDE or after.aside_at > 0


def test_an_unsearched_envelope_gets_no_new_id() -> None:
    """Its rows may still come from the stream, so their absence in Treasure Data proves nothing."""
    unsearched = [life for life in lives() if life[0].reason == UNSEARCHED and life[0].generation == 0]

    assert unsearched
    assert [] == [life for life in unsearched if life[1].event is Event.ABSENT and life[2] is not life[0]]


def test_reasons_that_the_rules_read_are_stable() -> None:
    """Entries that are weeks old hold them."""
    assert ("too_large", "row_too_large", "stream_unsearched") == (TOO_LARGE, ROW_TOO_LARGE, UNSEARCHED)


@pytest.mark.parametrize("event", [Event.REFUSED, Event.ROWS_REFUSED])
def test_without_its_guard_a_refusal_in_doubt_becomes_a_dead_letter(event: Event) -> None:
    """Fault injection thereby shows what the guard is for."""
    unguarded = rules(without=frozenset({Guard.DOUBTED_REFUSAL}))

    assert (U, D) == tuple(
        one.follow(entry(U, since=SINCE), Happening(event, NOW)).state for one in (rules(), unguarded)
    )


def test_without_its_guard_an_unsearched_chunk_gets_another_id() -> None:
    """Fault injection thereby shows what the guard is for. No other guard affects this."""
    before = entry(U, since=SINCE, reason=UNSEARCHED, generation=0)
    ids = [
        rules(without=frozenset(Guard) - kept).follow(before, Happening(Event.ABSENT, NOW)).generation
        for kept in ({Guard.SEARCHED}, set[Guard]())
    ]

    assert [0, 1] == ids


def test_rejected_events_are_set_aside_whatever_their_account() -> None:
    """Their senders were told that they are rejected."""
    step = Step(Action.APPLY, Event.INVALID, "too_deep")

    assert step == rules().first_step(Entry(since=SINCE), "too_deep", LATER + 1, is_rejected=True)


@pytest.mark.parametrize(
    ("whole", "changes"),
    [
        (entry(P, since=SINCE), {}),
        (entry(P), {}),
        (entry(U, since=SINCE), {"state": K, "since": None}),
    ],
)
def test_a_half_inherits_the_entry_of_the_whole(whole: Entry, changes: dict[str, Any]) -> None:
    """Halves of a pending chunk are pending.

    Halves of one in doubt are parked: Treasure Data cannot have it.
    """
    assert replace(whole, **changes) == Rules.half(whole)


@pytest.mark.parametrize(
    ("reason", "ids", "is_halved"), [(TOO_LARGE, 1, True), (TOO_LARGE, 0, False), ("http_500", 1, False)]
)
def test_a_chunk_called_too_large_is_halved_before_it_gets_another_id(
    reason: str, ids: int, is_halved: bool
) -> None:
    """Under the same id it is sent whole, because Treasure Data may have it."""
    before = entry(U, reason=reason)

    assert is_halved == Rules.is_halved_first(before, replace(before, generation=before.generation + ids))


def test_no_transition_is_unreachable() -> None:
    """Of two transitions for the same state and event, each has a condition that the other lacks."""
    seen = [
        (state, line.event, line.when) for line in TRANSITIONS for state in line.states if line.when.value
    ]
    always = [(state, line.event) for line in TRANSITIONS for state in line.states if not line.when.value]

    assert len(set(seen)) == len(seen)
    assert len(set(always)) == len(always)
    assert not {(state, event) for state, event, _ in seen} & set(always)


# Steps

LATER = 1_700_000_000.0 + REPEATABLE
"""The last moment, in UNIX seconds, at which a chunk in doubt since SINCE may be sent under its id."""


@pytest.mark.parametrize(
    ("since", "now", "step"),
    [
        (None, 2e9, SEND),
        (SINCE, SINCE / 1000, SEND),
        (SINCE, LATER, SEND),
        (SINCE, LATER + 0.001, Step(Action.APPLY, Event.FORGOTTEN, "too_old_to_repeat")),
    ],
)
def test_a_pending_chunk_is_sent_while_treasure_data_remembers_its_id(
    since: int | None, now: float, step: Step
) -> None:
    """The margin is the longest invocation: a send may arrive that long after the clock was read."""
    assert step == rules().first_step(Entry(since=since), "", now)


@pytest.mark.parametrize("since", [None, SINCE])
def test_a_pending_chunk_without_a_destination_is_not_sent(since: int | None) -> None:
    """It is parked if the obstacle may pass, and otherwise a dead letter, whatever its age."""
    for now in (SINCE / 1000, LATER + 1):
        assert Step(Action.APPLY, Event.UNRESOLVED, UNRESOLVED) == rules().first_step(
            Entry(since=since), UNRESOLVED, now
        )
        assert Step(Action.APPLY, Event.NOT_DELIVERABLE, "revoked_key") == rules().first_step(
            Entry(since=since), "revoked_key", now
        )


def waits(reason: str) -> Step:
    """Return the step that leaves a chunk alone."""
    return Step(Action.WAIT, reason=reason)


def applies(event: Event, reason: str = "") -> Step:
    """Return the step that records an event."""
    return Step(Action.APPLY, event, reason)


EXPIRES = ASIDE_AT / 1000 + PARKED_MAX
ASKABLE = SINCE / 1000 + MEMORY + QUERY_DELAY
DOUBTED = entry(U, since=SINCE)
SEND_UNASKED = Step(Action.SEND, Event.UNASKED)


@pytest.mark.parametrize(
    ("before", "obstacle", "decision", "now", "step"),
    [
        # parked
        (entry(K), "", None, EXPIRES, SEND),
        (entry(K), "", None, EXPIRES + 0.001, applies(Event.PARKED_TOO_LONG, "parked_too_long")),
        (entry(K), "revoked_key", None, EXPIRES, applies(Event.NOT_DELIVERABLE, "revoked_key")),
        (entry(K), "revoked_key", None, EXPIRES + 1, applies(Event.PARKED_TOO_LONG, "parked_too_long")),
        (entry(K), None, None, EXPIRES, waits("account_unavailable")),
        (entry(K), None, None, EXPIRES + 1, applies(Event.PARKED_TOO_LONG, "parked_too_long")),
        (entry(K), "", Decision.DROP, EXPIRES, SEND),
        (entry(K), "", Decision.SEND, EXPIRES, SEND),
        # dead letters
        (entry(D), "", None, EXPIRES + 1, SEND),
        (entry(D), "unknown_account", None, EXPIRES, waits("unknown_account")),
        (entry(D), None, None, EXPIRES, waits("account_unavailable")),
        (entry(D), "", Decision.SEND, EXPIRES, SEND),
        (entry(D), "unknown_account", Decision.SEND, EXPIRES, waits("unknown_account")),
        (entry(D), "unknown_account", Decision.DROP, EXPIRES, applies(Event.DROPPED)),
        (entry(D), None, Decision.DROP, EXPIRES, applies(Event.DROPPED)),
        # in doubt, by age
        (DOUBTED, "", None, LATER, SEND),
        (DOUBTED, "", None, LATER + 0.001, waits("too_early_to_ask")),
        (DOUBTED, "", None, ASKABLE, waits("too_early_to_ask")),
        (DOUBTED, "", None, ASKABLE + 0.001, ASK),
        (entry(U), "", None, ASKABLE + 1, SEND),
        # in doubt, with an obstacle
        (DOUBTED, "unknown_account", None, LATER, waits("unknown_account")),
        (DOUBTED, None, None, LATER, waits("account_unavailable")),
        (DOUBTED, None, None, ASKABLE + 1, ASK),
        # in doubt, decided by a person
        (DOUBTED, "", Decision.SEND, LATER, SEND),
        (DOUBTED, "", Decision.SEND, LATER + 0.001, SEND_UNASKED),
        (DOUBTED, "", Decision.SEND, ASKABLE + 1, SEND_UNASKED),
        (DOUBTED, "unknown_account", Decision.SEND, ASKABLE + 1, waits("unknown_account")),
        (DOUBTED, "", Decision.DROP, LATER, applies(Event.DROPPED)),
        (DOUBTED, None, Decision.DROP, ASKABLE + 1, applies(Event.DROPPED)),
        (entry(R), "too_deep", Decision.DROP, ASKABLE + 1, applies(Event.DROPPED)),
        (entry(R), "too_deep", None, ASKABLE + 1, waits("settled")),
    ],
)
def test_the_next_step_of_a_set_aside_chunk(
    before: Entry, obstacle: str | None, decision: Decision | None, now: float, step: Step
) -> None:
    """Entry, account, decision and time determine whether the redrive sends, asks, writes or waits."""
    assert step == rules().next_step(before, obstacle, decision, now)


@pytest.mark.parametrize("decision", [None, *Decision])
@pytest.mark.parametrize("state", sorted(set(State) - ASIDE - {R}))
def test_the_redrive_leaves_other_chunks_alone(state: State, decision: Decision | None) -> None:
    """Pending and settled chunks are not its business."""
    assert waits("settled") == rules().next_step(entry(state), "", decision, ASKABLE + 1)


@given(st.integers(0, 10 * 86_400_000), st.sampled_from([None, *Decision]))
def test_a_chunk_is_never_sent_under_an_id_that_may_be_forgotten(age: int, decision: Decision | None) -> None:
    """After Treasure Data's memory of the id ends, the chunk is sent under another id or not at all."""
    now = (SINCE + age) / 1000
    step = rules().next_step(DOUBTED, "", decision, now)

    assert step != SEND or age <= REPEATABLE * 1000
    assert step != ASK or age > (MEMORY + QUERY_DELAY) * 1000


@pytest.mark.parametrize(
    ("age", "too_long"), [(HELD_AT_MOST, False), (HELD_AT_MOST + 0.001, True), (0.0, False)]
)
def test_rows_are_held_for_a_limited_time_after_their_record_arrived(age: float, too_long: bool) -> None:
    """At the limit itself, they are still held."""
    assert too_long == rules().is_held_too_long(SINCE / 1000, SINCE / 1000 + age)


@pytest.mark.parametrize("state", [K, U, D])
@pytest.mark.parametrize("since", [None, 0, SINCE])
def test_only_a_chunk_with_a_doubt_keeps_its_database(state: State, since: int | None) -> None:
    """Treasure Data may have its rows there. Without a doubt, it goes to its account's current database."""
    assert (since is not None) == Rules.keeps_database(entry(state, since=since))


@pytest.mark.parametrize(
    ("presence", "unasked", "event"),
    [
        (Presence.PRESENT, True, Event.ACCEPTED),
        (Presence.PRESENT, False, Event.ACCEPTED),
        (Presence.ABSENT, True, Event.ABSENT),
        (Presence.ABSENT, False, Event.ABSENT),
        (Presence.UNASKABLE, True, Event.UNASKED),
        (Presence.UNASKABLE, False, None),
        (Presence.UNDECIDED, True, None),
        (Presence.UNDECIDED, False, None),
    ],
)
def test_a_query_s_result_decides_what_becomes_of_a_chunk_in_doubt(
    presence: Presence, unasked: bool, event: Event | None
) -> None:
    """If Treasure Data cannot be queried, a setting decides whether the chunk is sent or kept for an operator."""
    assert event is rules(sends_unasked=unasked).after_query(presence)


# Guards, which fault injection switches off by name


@pytest.mark.parametrize(
    ("guard", "before", "happening", "state"),
    [
        (Guard.OWN_DOUBT, entry(P, since=SINCE), Happening(Event.DATABASE_FAILS, NOW), K),
        (Guard.DOUBTED_REFUSAL, entry(P, since=SINCE), Happening(Event.REFUSED, NOW), D),
        (Guard.FENCED_IN_DOUBT, entry(D), Happening(Event.DOUBT_OPENS, NOW), D),
    ],
)
def test_a_guard_can_be_switched_off(guard: Guard, before: Entry, happening: Happening, state: State) -> None:
    """Without it, the chunk ends in the state that the guard protects from."""
    assert state is rules(without={guard}).follow(before, happening).state
    assert state is not rules().follow(before, happening).state
