"""`make demo-outage`: Treasure Data is down for three hours, and later loses an hour of rows."""

from chaos.outage import story, tell


def test_an_outage_and_a_loss_cost_no_row() -> None:
    """The backlog drains on its own, a forced replay restores exactly the lost rows, and every count is right."""
    lines: list[str] = []
    told = story()
    assert tell(told, lines.append), "\n".join(lines)

    assert 7 == sum(line.startswith("  ✓ ") for line in lines)
    assert told.pipeline.world.counts["RowsInDoubt"] > 0
