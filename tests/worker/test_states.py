"""The state machine, and the steps that follow from a chunk's entry and the time."""

from copy import replace
from dataclasses import fields
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.settings import WorkerSettings
from worker.states import (
    DEFAULT_MEMORY_SECONDS,
    FINAL,
    LEDGER_RESTORED,
    LONGEST_INVOCATION_SECONDS,
    TRANSITIONS,
    UNSETTLED,
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

W, A, D, R, S = State.WAITING, State.AGAIN, State.DEAD, State.REJECTED, State.SPLIT
OK, DROPPED, REPLACED, COPY = State.DELIVERED, State.DROPPED, State.REPLACED, State.COPY
FORGOTTEN = State.FORGOTTEN
MEMORY, QUERY_DELAY = 3600.0, 600.0
REPEATABLE = MEMORY - LONGEST_INVOCATION_SECONDS
SINCE, NOW, AT = 1_700_000_000_000, 1_700_000_060_000, 1_700_000_030_000


def rules(**changes: Any) -> Rules:
    """Return rules with defaults."""
    defaults = {"memory_seconds": MEMORY, "query_delay_seconds": QUERY_DELAY, "sends_unasked": True}
    return Rules(**(defaults | changes))


def entry(state: State, **changes: Any) -> Entry:
    """Return an entry with a distinct value in every member."""
    members = {"database": "old_db", "generation": 2, "reason": "before", "at": AT, "words": "said"}
    return Entry(state, **(members | changes))


DOUBTED = entry(W, since=SINCE)


def test_states_have_stable_names_and_are_unsettled_final_or_an_operator_s() -> None:
    """Ledger entries outlive the code that wrote them. The sender works on the unsettled, nobody on the final."""
    names = "waiting again dead rejected split delivered dropped replaced copy forgotten"
    assert names.split() == [str(state) for state in State]
    assert ["send", "drop"] == [decision.value for decision in Decision]
    assert {W, A} == UNSETTLED
    assert {OK, DROPPED, REPLACED, COPY, FORGOTTEN} == FINAL


def test_there_are_few_transitions() -> None:
    """Each one is used, and a condition's text is empty only for the one that always holds."""
    assert len(TRANSITIONS) <= 16
    assert set(Event) == {event for one in TRANSITIONS for event in one.events}
    assert [Condition.ALWAYS] == [one for one in Condition if one.value == ""]


def on(event: Event, reason: str = "", **more: Any) -> Happening:
    """Return something that happens now."""
    return Happening(event, NOW, reason, **more)


# For each state and event: the next state if Treasure Data cannot have the chunk, and the next state if it may. A nested
# pair is for a chunk that cannot be halved, and one that can. Events that a state does not list leave it unchanged.
MACHINE: dict[State, dict[Event, Any]] = {
    W: {
        **dict.fromkeys((Event.OPENED, Event.UNANSWERED, Event.ABSENT), (W, W)),
        **dict.fromkeys((Event.REFUSED, Event.NOT_DELIVERABLE), (D, W)),
        **dict.fromkeys((Event.OBJECT_GONE, Event.NO_DATABASE), (D, D)),
        Event.ACCEPTED: (OK, OK),
        Event.PARTLY_REFUSED: ((D, S), W),
        Event.DROPPED: (DROPPED, W),
        Event.CUT_ANEW: (REPLACED, W),
    },
    A: {
        **dict.fromkeys((Event.INDEX_GONE, Event.OBJECT_GONE), (D, D)),
        Event.COPY_COUNTS: (COPY, COPY),
        Event.NO_COPY: (W, W),
        Event.NOT_RECORDED: (R, R),
    },
    D: {
        Event.ACCEPTED: (OK, OK),
        Event.COPY_COUNTS: (COPY, COPY),
        Event.NO_COPY: (W, W),
        Event.ABSENT: (D, W),
        Event.RESENT: (W, D),
        Event.DROPPED: (DROPPED, D),
        **dict.fromkeys((Event.REPLACED, Event.CUT_ANEW), (REPLACED, D)),
    },
    OK: {Event.CUT_ANEW: (REPLACED, OK)},
    R: {Event.DROPPED: (DROPPED, R), Event.REPLACED: (REPLACED, R)},
}


@pytest.mark.parametrize("event", Event)
@pytest.mark.parametrize("state", State)
def test_every_event_in_every_state_leads_to_the_specified_state(state: State, event: Event) -> None:
    """There are no other transitions: any other event returns the same entry object. A doubt does not matter if every attempt was refused."""
    expected = MACHINE.get(state, {}).get(event, (state, state))
    for doubted, certain, divisible in product((False, True), repeat=3):
        before = entry(state, since=SINCE if doubted else None)
        after = rules().follow(before, on(event, "why", certain=certain, divisible=divisible))
        to = expected[doubted and not certain]

        assert (to[divisible] if isinstance(to, tuple) else to) is after.state
        assert event in MACHINE.get(state, {}) or after is before


@pytest.mark.parametrize(
    ("before", "happening", "changes"),
    [
        # a doubt opens with the first send, and keeps its time
        (entry(W), on(Event.OPENED), {"since": NOW}),
        (DOUBTED, on(Event.OPENED), {}),
        (entry(W), on(Event.OPENED, database="db"), {"since": NOW, "database": "db"}),
        # what is settled has neither a doubt nor a reason
        *(
            (entry(state, since=since), on(event), {**to, "since": None, **SETTLED})
            for SETTLED in [{"reason": "", "words": "", "at": NOW}]
            for state, since, event, to in [
                (W, SINCE, Event.ACCEPTED, {"state": OK}),
                (D, SINCE, Event.ACCEPTED, {"state": OK}),
                (D, None, Event.DROPPED, {"state": DROPPED}),
                (R, None, Event.REPLACED, {"state": REPLACED}),
                (W, None, Event.CUT_ANEW, {"state": REPLACED}),
                (A, None, Event.NOT_RECORDED, {"state": R}),
                (A, None, Event.COPY_COUNTS, {"state": COPY}),
                (D, SINCE, Event.COPY_COUNTS, {"state": COPY}),
                (A, None, Event.NO_COPY, {"state": W}),
            ]
        ),
        # a dead chunk says why, since when, and what Treasure Data said
        (
            DOUBTED,
            on(Event.REFUSED, "http_415", certain=True, words="new"),
            {"state": D, "since": None, "reason": "http_415", "at": NOW, "words": "new"},
        ),
        (entry(W), on(Event.NOT_DELIVERABLE, "disabled"), {"state": D, "reason": "disabled", "at": NOW}),
        *(
            (
                DOUBTED,
                on(Event.PARTLY_REFUSED, "http_413", certain=True, divisible=divisible),
                {"since": None, "reason": "http_413", **to},
            )
            for divisible, to in [(True, {"state": S}), (False, {"state": D, "at": NOW})]
        ),
        # a doubt stays unless it is sure that nothing was accepted
        *(
            (DOUBTED, on(event, "http_503"), {"reason": "http_503"})
            for event in (Event.PARTLY_REFUSED, Event.REFUSED, Event.UNANSWERED)
        ),
        (DOUBTED, on(Event.UNANSWERED, "http_429", certain=True), {"reason": "http_429", "since": None}),
        (DOUBTED, on(Event.UNANSWERED), {}),
        (entry(A, since=SINCE), on(Event.NO_COPY), {"state": W, "words": "", "at": NOW}),
        # rows that are gone, or may be elsewhere, keep or get a doubt
        (DOUBTED, on(Event.OBJECT_GONE, "gone"), {"state": D, "reason": "gone", "at": NOW}),
        *(
            (entry(A), on(event, "gone"), {"state": D, "reason": "gone", "at": NOW, "since": NOW})
            for event in (Event.INDEX_GONE, Event.OBJECT_GONE)
        ),
        # what Treasure Data proves not to have goes under another id
        (DOUBTED, on(Event.ABSENT), {"since": None, "generation": 3, "reason": "", "words": ""}),
        (entry(D), on(Event.RESENT), {"state": W, "generation": 3, "reason": "", "words": ""}),
    ],
)
def test_a_transition_updates_the_entry(before: Entry, happening: Happening, changes: dict[str, Any]) -> None:
    """Everything that is not named stays."""
    assert replace(before, **changes) == rules().follow(before, happening)


def test_halves_wait_without_a_doubt_under_their_own_names() -> None:
    """They keep the reason, so that a run that ends between them says why they wait."""
    assert entry(W, since=None, words="") == Rules.half(entry(S, since=SINCE))
    assert Entry(W, None, "", 0, "", 0, "") == Entry()
    full = Happening(Event.OPENED, NOW, "", certain=False, divisible=False, database="", words="")
    assert full == Happening(Event.OPENED, NOW)
    assert Step(Action.SEND, None, "") == Step(Action.SEND)
    assert (900, "ledger_restored") == (LONGEST_INVOCATION_SECONDS, LEDGER_RESTORED)


happenings = st.builds(
    Happening,
    st.sampled_from(Event),
    st.integers(SINCE, SINCE + 10**9),
    st.sampled_from(["", "why"]),
    certain=st.booleans(),
    divisible=st.booleans(),
)


@given(st.sampled_from([Entry(), Entry(A), Entry(since=SINCE)]), st.lists(happenings, max_size=12))
def test_a_doubt_ends_only_by_proof(first: Entry, story: list[Happening]) -> None:
    """Delivered beats everything, and only what has no doubt is dropped, replaced, split or sent under another id."""
    now = first
    for happening in story:
        before, now = now, rules().follow(now, happening)
        if before.state in FINAL | {State.SPLIT}:
            is_cut = before.state is OK and happening.event is Event.CUT_ANEW
            assert before is now or is_cut
        if happening.event is Event.ACCEPTED and before.state in {W, D}:
            assert now.state is OK
        if before.since is not None and now.since is None:
            proofs = {Event.ACCEPTED, Event.ABSENT, Event.COPY_COUNTS}
            assert happening.event in proofs or happening.certain or before.state is A
        if now.state in {DROPPED, REPLACED, S} and before.state is not now.state:
            assert before.since is None or happening.certain
        assert now.generation - before.generation <= (happening.event in {Event.ABSENT, Event.RESENT})


# The sender's next step

SEND, ASK = Step(Action.SEND), Step(Action.ASK)
TOO_EARLY, DROP_IF_GONE = Step(Action.WAIT, reason="too_early_to_ask"), Step(Action.DROP, Event.DROPPED)


def step(one: Entry, obstacle: str | None = "", decision: Decision | None = None, after: float = 0.0) -> Step:
    """Return the step this many seconds after the doubt opened."""
    return rules().next_step(one, obstacle, decision, SINCE / 1000 + after)


@pytest.mark.parametrize(
    ("one", "obstacle", "decision", "expected"),
    [
        (Entry(A), "", None, Step(Action.DECIDE)),
        (Entry(A), None, Decision.SEND, Step(Action.DECIDE)),
        (Entry(W), "", None, SEND),
        (Entry(W), None, None, Step(Action.WAIT, reason="account_unavailable")),
        (Entry(W), "revoked_key", None, Step(Action.APPLY, Event.NOT_DELIVERABLE, "revoked_key")),
        (Entry(D), "", None, Step(Action.SEND, Event.RESENT)),
        (Entry(D), "revoked_key", None, Step(Action.WAIT, reason="revoked_key")),
        *((Entry(state), "", Decision.DROP, Step(Action.APPLY, Event.DROPPED)) for state in (W, D, R)),
        (Entry(R), "", None, Step(Action.WAIT, reason="settled")),
        (Entry(OK), "", None, Step(Action.WAIT, reason="settled")),
    ],
)
def test_the_next_step_without_a_doubt(
    one: Entry, obstacle: str | None, decision: Decision | None, expected: Step
) -> None:
    """What cannot be delivered dies, what an operator drops is dropped, and anything else is sent or waits."""
    assert expected == step(one, obstacle, decision)


@pytest.mark.parametrize("obstacle", ["", "revoked_key", None])
@pytest.mark.parametrize(
    ("state", "after", "decision", "expected"),
    [
        (W, REPEATABLE, None, SEND),
        (W, REPEATABLE, Decision.SEND, SEND),
        (W, REPEATABLE, Decision.DROP, DROP_IF_GONE),
        (W, REPEATABLE + 1, None, TOO_EARLY),
        (W, MEMORY + QUERY_DELAY, None, TOO_EARLY),
        (W, MEMORY + QUERY_DELAY + 1, None, ASK),
        (W, MEMORY + QUERY_DELAY + 1, Decision.DROP, DROP_IF_GONE),
        (D, MEMORY + QUERY_DELAY + 1, Decision.DROP, DROP_IF_GONE),
        (W, REPEATABLE + 1, Decision.SEND, Step(Action.SEND, Event.ABSENT)),
        (D, 0, None, TOO_EARLY),
        (D, MEMORY + QUERY_DELAY + 1, None, ASK),
        (D, 0, Decision.SEND, Step(Action.SEND, Event.ABSENT)),
    ],
)
def test_the_next_step_with_a_doubt(
    state: State, after: float, decision: Decision | None, expected: Step, obstacle: str | None
) -> None:
    """The same id until minute 45, nothing until 70, then a question; an operator may send without one. A drop sends nothing."""
    assert expected == step(Entry(state, since=SINCE), obstacle, decision, after)
    # not under an id of which a restored ledger knows nothing
    old = Step(Action.SEND, Event.ABSENT) if decision else TOO_EARLY
    restored = Entry(state, SINCE, reason=LEDGER_RESTORED)
    assert (old if expected == SEND else expected) == step(restored, obstacle, decision, after)


@pytest.mark.parametrize(
    ("presence", "unasked", "was_sent", "event"),
    [
        (Presence.PRESENT, True, True, Event.ACCEPTED),
        (Presence.PRESENT, False, False, Event.COPY_COUNTS),
        (Presence.ABSENT, False, True, Event.ABSENT),
        (Presence.UNASKABLE, True, True, Event.ABSENT),
        (Presence.UNASKABLE, False, True, None),
        (Presence.UNDECIDED, True, True, None),
    ],
)
def test_what_settles_a_doubt(presence: Presence, unasked: bool, was_sent: bool, event: Event | None) -> None:
    """By setting, rows that no query can find are sent again. What was never sent itself is another copy, or the books had it twice."""
    assert event is rules(sends_unasked=unasked).after_query(presence, was_sent=was_sent)


@given(st.integers(0, 10**5), st.integers(0, DEFAULT_MEMORY_SECONDS), st.integers(0, 10**5))
def test_no_id_is_sent_while_its_answer_may_be_asked_for(memory: int, before: int, delay: int) -> None:
    """Between the last send, also by an earlier setting up to the default, and the first question lie the longest invocation and the query delay."""
    some = rules(memory_seconds=float(memory), query_delay_seconds=float(delay))
    asked = some.askable_from(SINCE)

    for sending in (some, rules(memory_seconds=float(before))):
        assert not sending.may_repeat(SINCE, asked - LONGEST_INVOCATION_SECONDS - delay + 0.001)
    assert asked == SINCE / 1000 + max(memory, DEFAULT_MEMORY_SECONDS) + delay


def test_the_least_memory_is_the_default() -> None:
    """A deployment without the parameter repeats sends for as long as `askable_from` assumes of an earlier one."""
    (default,) = (one.default for one in fields(WorkerSettings) if one.name == "td_memory_minutes")
    assert DEFAULT_MEMORY_SECONDS == 60 * default
