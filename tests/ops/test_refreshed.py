"""What takes long is got in the background, only so often, and only while somebody asks."""

from collections.abc import Callable

from doubles.clock import ManualClock
from ops.failure import Failure
from ops.refreshed import Reading, Refreshed


class Source:
    """What is read; it takes some time."""

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
    """Return a value that is got in line, at most every 5 seconds."""
    return Refreshed(source.get, 5.0, source.clock, start=lambda job: job(), **more)


def test_a_value_is_got_again_when_it_is_old() -> None:
    """Until then the last one is returned."""
    source = Source(ManualClock())
    value = made(source)
    first = source.clock.now()
    assert Reading(1, first) == value.latest()
    source.clock.sleep(4.5)
    assert Reading(1, first) == value.latest()
    source.clock.sleep(1.0)

    assert Reading(2, first + 5.5) == value.latest()


def test_a_value_that_takes_long_is_got_less_often() -> None:
    """Getting it takes at most its share of the time."""
    source = Source(ManualClock(), seconds=2.0)
    value = made(source, share=0.05)
    value.latest()
    source.clock.sleep(37.0)
    value.latest()
    assert 1 == source.reads
    source.clock.sleep(1.5)
    value.latest()

    assert 2 == source.reads


def test_one_run_at_a_time() -> None:
    """Many pages ask; the answer comes at once."""
    source, jobs = Source(ManualClock()), list[Callable[[], None]]()
    value = Refreshed(source.get, 5.0, source.clock, start=jobs.append)
    assert [Reading(), Reading()] == [value.latest(), value.latest()]
    (job,) = jobs
    job()

    assert 1 == value.latest().value


def test_an_old_value_stays_beside_the_error() -> None:
    """The page says both, until it can be got again."""
    source = Source(ManualClock())
    value = made(source)
    before = value.latest()
    source.error = "log in again"
    source.clock.sleep(6)
    failed = value.latest()
    source.error = ""
    source.clock.sleep(6)

    assert Reading(1, before.at, "log in again") == failed
    assert (3, "") == (value.latest().value, value.latest().error)


def test_what_was_changed_is_looked_at_again() -> None:
    """However young the value is."""
    source = Source(ManualClock())
    value = made(source)
    value.latest()
    value.expire()

    assert 2 == value.latest().value


def test_waiting_for_a_value_ends_when_it_is_there_or_the_time_is_up() -> None:
    """A stack with a long history opens all the same."""
    source, jobs = Source(ManualClock()), list[Callable[[], None]]()
    slow = Refreshed(source.get, 5.0, source.clock, start=jobs.append)
    slow.wait(0.01)
    assert 0 == source.reads
    made(source).wait(60)

    assert 1 == source.reads
