"""Jobs that nobody waits for longer than they may take."""

import threading

from ops.background import within


def test_a_job_that_hangs_is_left() -> None:
    """It goes on in the background."""
    release, done = threading.Event(), threading.Event()

    assert within(0, lambda: release.wait(10) and done.set()) is None
    release.set()
    assert done.wait(10)
