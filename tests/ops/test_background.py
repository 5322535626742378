"""Jobs that nobody waits for longer than they may take."""

import threading

import pytest

from ops.background import within


def test_a_job_that_hangs_is_left() -> None:
    """It goes on in the background. A result or an error in time is passed on."""
    release, done = threading.Event(), threading.Event()

    assert within(0, lambda: release.wait(60) and done.set()) is None
    release.set()
    assert done.wait(60)
    assert 7 == within(60, lambda: 7)
    with pytest.raises(ZeroDivisionError):
        within(60, lambda: 1 // 0)
