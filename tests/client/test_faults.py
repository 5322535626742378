"""A short run of `make client-faults`, which kills a thousand programs."""

from tests.client.faults import Killer


def test_every_acknowledged_event_is_one_row() -> None:
    """Programs that are killed at random moments, during any failure, lose and duplicate nothing."""
    made = Killer(seed=7)
    made.run(points=20)

    assert 20 == made.kills.total()
    assert ["acknowledged"] == [name for name, count in made.counts.items() if count]
