"""Values that are slow to read are refreshed in the background, on demand and at a limited rate."""

from collections.abc import Callable

from doubles.clock import ManualClock
from ops.console.refreshed import Reading, Refreshed
from ops.failure import Failure


class Source:
    """A source that takes some time to read."""

    def __init__(self, clock: ManualClock, seconds: float = 0.0) -> None:
        self.clock = clock
        self.seconds = seconds
        self.reads = 0
        self.error = ""

    def get(self) -> int:
        """Read it."""
        self.clock.sleep(self.seconds)
        self.reads += 1
        if self.error:
            raise Failure(self.error)
        return self.reads


def made(source: Source, **more: float) -> Refreshed[int]:
    """Return a value that is refreshed synchronously, at most every 5 seconds."""
    return Refreshed(source.get, 5.0, source.clock, start=lambda job: job(), **more)


def test_a_value_is_refreshed_when_it_is_old() -> None:
    """Until then the last value is returned, unless the page expires what it has changed. With an error, both are shown until a refresh succeeds."""
    source = Source(ManualClock())
    value = made(source)
    first = source.clock.now()
    assert Reading(1, first) == value.latest()
    source.clock.sleep(4.5)
    assert Reading(1, first) == value.latest()
    source.clock.sleep(1.0)
    assert Reading(2, first + 5.5) == value.latest()
    value.expire()
    assert 3 == value.latest().value
    source.error = "log in again"
    source.clock.sleep(6)
    assert Reading(3, first + 5.5, "log in again") == value.latest()
    source.error = ""
    source.clock.sleep(6)
    assert (5, "") == (value.latest().value, value.latest().error)


def test_a_slow_value_is_refreshed_less_often() -> None:
    """Reading takes at most the given share of the time."""
    source = Source(ManualClock(), seconds=2.0)
    value = made(source, share=0.05)
    value.latest()
    source.clock.sleep(37.0)
    value.latest()
    assert 1 == source.reads
    source.clock.sleep(1.5)
    value.latest()

    assert 2 == source.reads


def test_only_one_refresh_runs_at_a_time() -> None:
    """Many pages may ask for the value, and none of them waits for the refresh. The console waits for the first, but not for long."""
    source, jobs = Source(ManualClock()), list[Callable[[], None]]()
    value = Refreshed(source.get, 5.0, source.clock, start=jobs.append)
    value.wait(0.01)
    assert [Reading(), Reading()] == [value.latest(), value.latest()]
    (job,) = jobs
    job()
    made(source).wait(60)

    assert 1 == value.latest().value
    assert 2 == source.reads
