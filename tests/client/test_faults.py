"""A short run of `make client-faults`, which kills a thousand programs."""

from tests.client.faults import run


def test_every_acknowledged_event_is_one_row() -> None:
    """Programs that are killed at random moments, during any failure, lose and duplicate nothing."""
    result = run(points=20, seed=7)

    assert (20, True, 0, 0, 0) == (
        result.kills.total(),
        result.acknowledged > 0,
        result.lost,
        result.duplicated,
        result.undrained,
    )
