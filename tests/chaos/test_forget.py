"""Forgetting persons: runs of the real handlers with trouble."""

import pytest

from chaos import schedule as schedules
from chaos.forget_runs import forgotten, run


@pytest.mark.parametrize("seed", [2, 5, 6, 10_001, 10_003, 10_007, 10_011])
def test_persons_are_forgotten_in_spite_of_trouble(seed: int) -> None:
    """Nothing of them is left, nobody else's event is lost or doubled, the books balance, and no rule is broken."""
    pipeline, verdict = run(schedules.draw(seed, 120, None if seed > 10_000 else ()))

    assert not verdict.violations, verdict
    assert [] == pipeline.remembered()
    assert [] == pipeline.unfinished()
    assert 0 < forgotten(pipeline)
