"""Watermarks over the simulated pipeline: how far they are behind."""

from functools import partial

import pytest

from chaos.functions import Functions
from chaos.pipeline import Pipeline
from chaos.schedule import START, Schedule, Setup
from chaos.traffic import TABLES, Sent
from chaos.world import World


@pytest.mark.parametrize("window", [0, 15])
def test_a_watermark_is_behind_by_less_than_the_batch_window_and_seven_minutes(window: int) -> None:
    """With steady traffic, every table's watermark lags by at most the batch window and seven minutes: five of them are how far arrival times may run back."""
    setup = Setup(2, tuple((f"acct_{number}", f"db_{number}") for number in range(3)), 168, 1200)
    world = World(Schedule(1, setup, ()))
    pipeline, simulation = Pipeline(world, Functions(world), window), world.simulation
    for number in range(240):
        at, event = START + 10 + 5 * number, ((number, TABLES[number // 3 % 3]),)
        sent = Sent(at, f"acct_{number % 3}", f"v{number % 7}", "events", event)
        simulation.at(at, partial(pipeline.send, sent))
    pipeline.begin()
    for number in range(40):
        simulation.at(START + 310 + 20 * number, pipeline.observer.look)
    simulation.run(START + 1200)
    lags = [
        given.at - before / 1000
        for given in pipeline.observer.given
        for account, table in given.completeness.tables
        if (before := given.completeness.before(account, table)) is not None
    ]

    assert len(lags) > 100
    assert max(lags) <= window + 420
