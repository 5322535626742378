"""Every run of the fault-injection tests is judged by the specification."""

from collections import deque

import pytest

from chaos import defences
from chaos import schedule as schedules
from chaos.functions import Functions
from chaos.pipeline import Pipeline
from chaos.run import run_schedule
from chaos.specification import EVENTS as EVENT_KINDS
from chaos.specification import Event
from chaos.trace import Trace
from chaos.trouble import Kind
from chaos.world import World

EVENTS = 120
OF_THE_LEDGER = {"claimed", "tag bound", "ledger restored", "ledger repaired"}
RARE = OF_THE_LEDGER | {"object lost", "probed", "stream deleted"}


def seen(seed: int, *kinds: Kind) -> tuple[Trace, deque[Event]]:
    """Run a schedule, and return its trace and all that the judge was told."""
    world = World(schedules.draw(seed, EVENTS, kinds))
    trace, pipeline = Trace(world), Pipeline(world, Functions(world))
    events = trace._recent = deque[Event]()
    trace.watch(pipeline.worker)
    pipeline.run()
    return trace, events


def test_without_trouble_the_judge_sees_all_that_happens_and_nothing_wrong() -> None:
    """Objects, appends, sends, answers, settlements, listings, acknowledgements, and deletes of the sweep."""
    trace, events = seen(1)

    assert not trace.broken, trace.told
    assert set(EVENT_KINDS) - RARE <= {event.what for event in events}
    rows = sum(chunk.rows for item in trace.judge.items.values() for chunk in item.chunks)
    assert EVENTS == rows
    sent = [event for event in events if event.what == "sent"]
    assert sent
    assert all(event.key and event.database for event in sent)


def test_answers_to_queries_and_probes_are_seen() -> None:
    """A chunk in doubt is asked for, and a failing database is probed."""
    trace, events = seen(1, Kind.TD_LOST_ANSWER, Kind.TD_OUTAGE)

    assert not trace.broken, trace.told
    assert "probed" in {event.what for event in events}
    assert {"imported", "unknown", "unsent", "counted", "counted none"} <= {event.answer for event in events}


@pytest.mark.parametrize(
    ("defence", "seed", "rule"),
    [
        ("an object is stored before its span is appended", 0, "object before append"),
        ("a span is appended once", 1, "append once"),
        ("a write asks for the version that it read", 0, "settle by version"),
        ("copies of an envelope have one claim", 1, "claim"),
        ("in a gap, claims are made with the append", 0, "claim with append"),
        ("records in gaps claim", 0, "claim in gaps"),
        ("records that arrive late claim", 1, "claim late ones"),
        ("rows that were put again are looked for", 0, "whole listing"),
        ("the chain of a closed shard is closed before it counts as passed", 0, "close"),
        ("Treasure Data is queried about doubts", 0, "ask"),
    ],
)
def test_a_rule_that_is_left_out_is_named(defence: str, seed: int, rule: str) -> None:
    """A worker that breaks a rule breaks it by name, in the verdict too, with the event and what happened before."""
    one = next(one for one in defences.ALL if one.name == defence)
    verdict = run_schedule(schedules.draw(seed, EVENTS, one.kinds), defences.without(one.weakness))

    assert verdict.rules[rule]
    assert verdict.violations[f"rule: {rule}"] == verdict.rules[rule]
    assert any("\n" in told for told in verdict.told)
