"""Treasure Data was down last night, and later it lost an hour of rows."""

from chaos.outage import story, tell


def test_an_outage_and_a_loss_cost_no_row() -> None:
    """Three hours of outage drain by themselves; a forced replay restores exactly what was lost; every count is right."""
    lines: list[str] = []
    told = story()
    assert tell(told, lines.append), "\n".join(lines)

    assert 7 == sum(line.startswith("  ✓ ") for line in lines)
    assert told.pipeline.world.counts["RowsInDoubt"] > 0
