"""Watermarks over the simulated pipeline: how far they are behind."""

from functools import partial

import pytest

from chaos import isolation
from chaos.functions import Functions
from chaos.pipeline import Pipeline
from chaos.world import World


@pytest.mark.parametrize("window", [0, 15])
def test_a_watermark_is_behind_by_less_than_the_batch_window_and_seven_minutes(window: int) -> None:
    """With steady traffic, every table's watermark lags by at most the batch window and seven minutes: five of them are how far arrival times may run back."""
    world = World(isolation.steady(accounts=3, minutes=20, every=15))
    pipeline = Pipeline(world, Functions(world), window)
    for sent in world.schedule.sent:
        world.simulation.at(sent.at, partial(pipeline.send, sent))
    pipeline.begin()
    first = world.schedule.sent[0].at
    for number in range(40):
        world.simulation.at(first + 300 + 20 * number, pipeline.observer.look)
    world.simulation.run(world.schedule.sent[-1].at)
    lags = [
        given.at - before / 1000
        for given in pipeline.observer.given
        for account, table in given.completeness.tables
        if (before := given.completeness.before(account, table)) is not None
    ]

    assert len(lags) > 100
    assert max(lags) <= window + 420
