"""Forgetting persons: all interleavings with a few actors that deliver, and runs of the real handlers with trouble."""

import pytest

from chaos import schedule as schedules
from chaos.forget_actors import LEFT_OUT, SCENES
from chaos.forget_runs import forgotten, run
from chaos.specification_explorer import Explorer, Scene

NAMED = {scene.name: scene for scene in SCENES}
MISSED = (
    ("forget beside a worker and a sender", "settle by version"),
    ("forget twice, beside an operator", "settle by version"),
    ("forget beside an edit", "settle by version"),
    ("forget beside a sender in doubt", "cut without doubt"),
    ("forget what waits, beside a sender", "delete before cutting"),
    ("forget beside a sender in doubt", "wait until it is shown"),
    ("delete by value, beside a sender in doubt", "ask for others"),
    ("forget what was delivered, beside a forced replay", "search again"),
    ("forget beside an edit", "search again"),
)


@pytest.mark.parametrize("scene", SCENES, ids=[scene.name for scene in SCENES])
def test_nothing_of_the_person_is_left_and_nothing_of_anybody_else_is_missing(scene: Scene) -> None:
    """After the last search, in every interleaving: in Treasure Data, in the ledger's books and in every object."""
    explorer = Explorer(scene, judge_every=20)

    assert 0 < explorer.run()
    assert "" == explorer.wrong


@pytest.mark.parametrize(("scene", "rule"), MISSED)
def test_a_rule_that_is_left_out_is_missed(scene: str, rule: str) -> None:
    """Some interleaving breaks a promise without it."""
    explorer = Explorer(NAMED[scene], frozenset({rule}))
    explorer.run()

    assert explorer.wrong


def test_every_rule_of_forgetting_is_left_out_once() -> None:
    """What no scene would miss is no rule."""
    assert LEFT_OUT.keys() <= {rule for _, rule in MISSED}


@pytest.mark.parametrize("seed", [2, 5, 6, 10_001, 10_003, 10_007, 10_011])
def test_persons_are_forgotten_in_spite_of_trouble(seed: int) -> None:
    """Nothing of them is left, nobody else's event is lost or doubled, the books balance, and no rule is broken."""
    pipeline, verdict = run(schedules.draw(seed, 120, None if seed > 10_000 else ()))

    assert not verdict.violations, verdict
    assert [] == pipeline.remembered()
    assert [] == pipeline.unfinished()
    assert 0 < forgotten(pipeline)
