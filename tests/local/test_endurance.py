"""A short run of `make endurance`: many concurrent senders while parts are killed."""

from pathlib import Path

import pytest

from local.endurance import adds_up, run
from local.stack import LocalStack

pytestmark = pytest.mark.xdist_group("stack")


def test_every_accepted_event_becomes_one_row_although_parts_are_killed(tmp_path: Path) -> None:
    """Sixteen threads send events while functions and Valkey are killed."""
    with LocalStack(tmp_path / "stack") as stack:
        count, killed = run(stack, events=3000, threads=16, kills=6, seed=2)
        restarts = sum(part.restarts for part in stack.parts)

    assert adds_up(count)
    assert (6, 6, True) == (killed.total(), restarts, count.accepted.total() > 1000)
