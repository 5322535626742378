"""Output in a pipe."""

import pytest

from doubles.clock import ManualClock
from ops import screen


def test_progress_in_a_pipe_is_a_line_every_ten_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    """A log shows that a long command is alive, and is not flooded by it."""
    clock = ManualClock()
    with screen.progress("sending", hidden=False, unit="rows delivered", now=clock.now) as show:
        for second in range(25):
            show(description="sending", completed=1000 * second)
            clock.sleep(1)

    assert ["sending: 10,000 rows delivered", "sending: 20,000 rows delivered"] == (
        capsys.readouterr().err.splitlines()
    )


def test_hidden_progress_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """JSON output is for scripts."""
    clock = ManualClock()
    with screen.progress("sending", hidden=True, now=clock.now) as show:
        clock.sleep(60)
        show(description="sending", completed=5)

    assert ("", "") == capsys.readouterr()
