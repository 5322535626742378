"""The drain benchmark, on a small backlog."""

from benchmarks.drain import ACCOUNTS, drain


def test_a_backlog_is_drained() -> None:
    """Every batch is processed with one import per account, and its time is measured."""
    drained = drain(1_200, per_envelope=10, per_batch=400)

    assert 3 == len(drained.seconds)
    assert 3 * ACCOUNTS == drained.uploads
    assert drained.rate > 0
