"""A short run of `make endurance`: many concurrent senders while parts are killed."""

from pathlib import Path

import pytest

from local.endurance import Count, run, settle
from local.stack import LocalStack
from tests.support.sluice import until

pytestmark = pytest.mark.xdist_group("stack")


def test_every_accepted_event_becomes_one_row_although_parts_are_killed(tmp_path: Path) -> None:
    """Sixteen threads send events while functions, Treasure Data and Valkey are killed.

    AWS is not killed: puts that it does not acknowledge would wait in the overflow queue for minutes.
    """
    count = Count()
    with LocalStack(tmp_path / "stack") as stack:
        run(stack, count, total=3000, threads=16, kills=6, seed=2, spared=("aws",))
        settle(stack, count, patience=60)
        until(lambda: not stack.revive() and all(part.running for part in stack.parts))
        restarts = sum(part.restarts for part in stack.parts)

    assert (set(), set()) == (count.lost, count.doubled)
    assert len(count.accepted) <= count.said
    assert (6, 6, True) == (count.killed.total(), restarts, len(count.accepted) > 1000)
