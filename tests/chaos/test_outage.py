"""`make demo-outage`: Treasure Data is down for three hours, and then loses the rows of an hour."""

from chaos.outage import Story, tell


def test_an_outage_and_a_loss_cost_no_row() -> None:
    """Waiting rows are delivered on their own, a forced replay restores exactly what was lost, and every count is right."""
    lines: list[str] = []
    told = Story()
    assert tell(told, lines.append), "\n".join(lines)

    assert 6 == sum(line.startswith("  ✓ ") for line in lines)
    assert told.world.counts["RowsWaiting"] > 0
