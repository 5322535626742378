"""A slice of the schedules that `make chaos` runs by the thousand."""

import gc

import pytest

from chaos import schedule as schedules
from chaos.functions import Functions
from chaos.pipeline import Pipeline
from chaos.run import run_schedule, run_seed
from chaos.schedule import DRAWN, Schedule
from chaos.trouble import Kind
from chaos.verdict import Verdict, judge
from chaos.world import World
from shared.tracking_plan import CODES

EVENTS = 150


@pytest.mark.parametrize("kind", [kind for kind in DRAWN if kind not in schedules.COSTLY])
def test_each_kind_of_trouble_breaks_no_promise(kind: Kind) -> None:
    """With one kind of trouble and what it needs beside it: nothing lost, duplicated, misrouted, stuck or miscounted."""
    schedule = schedules.draw(7, EVENTS, schedules.with_companions(kind))
    verdict = run_schedule(schedule)
    assert not verdict.violations, verdict
    assert verdict.accepted > 0


@pytest.mark.parametrize("seed", range(10_001, 10_013, 2))
def test_mixtures_of_trouble_break_no_promise(seed: int) -> None:
    """With many kinds of trouble at once the promises hold as well."""
    ran = run_seed(seed, EVENTS)
    assert not ran.verdict.violations, ran.verdict


def test_a_schedule_leaves_the_garbage_collector_on() -> None:
    """The worker's invocations turn it off: with one that stays frozen, a process of many schedules grew without end."""
    gc.disable()
    run_schedule(schedules.draw(3, 10, ()))
    assert gc.isenabled()


def test_a_seed_decides_everything() -> None:
    """The same seed gives the same trace, line by line."""
    traces: list[list[str]] = [[], []]
    for trace in traces:
        run_schedule(schedules.draw(61, EVENTS), trace=trace)
    assert len(traces[0]) > 1000
    assert traces[0] == traces[1]


def test_without_trouble_everything_is_delivered_at_once() -> None:
    """Without trouble every row is in Treasure Data within seconds, and nothing is set aside."""
    verdict = run_schedule(schedules.draw(1, EVENTS, ()))
    assert (verdict.delivered, verdict.aside, verdict.largest_delay < 15) == (EVENTS, 0, True)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_wrong_edge_policy_refuses_nobody(seed: int) -> None:
    """Cut off, of the next version, an older one or gone: of every account what does not stray from a plan is accepted."""
    pipeline, verdict = finished(schedules.draw(seed, EVENTS, (Kind.S3_POLICY, Kind.COLD)))

    assert not verdict.violations, verdict
    strays = {number for number, sent in pipeline.sent.items() if sent.stray(number)}
    assert set() == pipeline.sent.keys() - pipeline.accepted.keys() - strays


def finished(schedule: Schedule) -> tuple[Pipeline, Verdict]:
    """Return a pipeline that has run a schedule, and what became of the events."""
    world = World(schedule)
    pipeline = Pipeline(world, Functions(world))
    pipeline.run()
    return pipeline, judge(pipeline)


@pytest.mark.parametrize("seed", [5, 6, 17, 27])
def test_what_strays_from_a_plan_is_set_aside_and_repaired(seed: int) -> None:
    """In quarantine: complete, once and counted; an operator repairs it, and each event is delivered once."""
    pipeline, verdict = finished(schedules.draw(seed, EVENTS, ()))

    strays = {number for number, sent in pipeline.sent.items() if sent.stray(number)}
    assert not verdict.violations, verdict
    assert (
        strays == {copy.number for copy in pipeline.copies if copy.code in CODES} == pipeline.repaired.keys()
    )
    assert (EVENTS, EVENTS) == (verdict.accepted, verdict.delivered)


@pytest.mark.parametrize("seed", [35, 49])
def test_what_strays_from_a_plan_that_observes_is_delivered(seed: int) -> None:
    """Nothing is rejected for it."""
    pipeline, verdict = finished(schedules.draw(seed, EVENTS, ()))

    assert not verdict.violations, verdict
    assert any(sent.stray(number) for number, sent in pipeline.sent.items())
    assert not {code for _, code in pipeline.told} & set(CODES)
    assert EVENTS == verdict.delivered


@pytest.mark.parametrize("seed", [49, 56])
def test_a_plan_that_changes_in_the_middle_breaks_no_promise(seed: int) -> None:
    """Copies of a request may be judged by different plans."""
    verdict = run_schedule(schedules.draw(seed, EVENTS, (Kind.PLAN, Kind.CLIENT_DEAF, Kind.COLD)))

    assert not verdict.violations, verdict
    assert verdict.strikes[Kind.PLAN] > 0
