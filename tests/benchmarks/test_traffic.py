"""Benchmarks use the same rows in every run, and contenders do the same work."""

from benchmarks import traffic
from benchmarks.delivery import delivery
from benchmarks.memory import peak_mb
from benchmarks.worker import _contenders
from worker.record import from_event


def test_events_are_the_same_in_every_run_and_later_ones_are_delivered() -> None:
    """So are envelopes, accounts and sequence numbers; the worker delivers the rows of each later event."""
    one, other = (traffic.event(25, groups=2, per_envelope=10) for _ in range(2))
    ((_, records),) = from_event(one).items()
    work = delivery(groups=2)
    answers = [work.run(traffic.later(one, number), 120_000) for number in range(3)]

    assert one == other
    assert ["account_0", "account_1", "account_0"] == [record.account for record in records]
    assert [10, 10, 5] == [count for record in records for _, count, _ in record.blocks]
    assert ([{"batchItemFailures": []}] * 3, {}) == (answers, work.chunks())


def test_contenders_do_the_same_work() -> None:
    """Each contender processes the same rows, and the floor concatenates exactly the rows in the envelopes."""
    seconds = _contenders(20, 10)

    names = {"worker", "floor", "fast floor", "decode", "td-client", "with upload"}
    assert names == seconds.keys()
    assert seconds["floor"] > 0


def test_peak_memory_is_measured_in_a_separate_process() -> None:
    """The peak memory of a 6 MB event is plausible: above 6 MB and below 500 MB."""
    assert 6 < peak_mb(10) < 500
