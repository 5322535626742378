"""`make demo-outage`: Treasure Data is down for three hours, a filter leaves out records, and an hour of rows is lost."""

from chaos.outage import Story, tell


def test_an_outage_and_a_loss_cost_no_row() -> None:
    """Waiting rows are delivered on their own, replays restore exactly what was left out or lost, and every count is right."""
    lines: list[str] = []
    told = Story()
    assert tell(told, lines.append), "\n".join(lines)

    assert 7 == sum(line.startswith("  ✓ ") for line in lines)
    assert told.world.counts["RowsWaiting"] > 0
