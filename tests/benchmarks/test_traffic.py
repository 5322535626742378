"""Benchmarks use the same rows in every run, and contenders do the same work."""

import pytest

from benchmarks import traffic
from benchmarks.delivery import delivery
from benchmarks.memory import peak_mb
from benchmarks.worker import ROUNDS, _batches, _contenders
from worker.record import from_event


def test_events_are_reproducible() -> None:
    """Rows, envelopes and sequence numbers are the same in every run."""
    one, other = (traffic.event(25, groups=2, per_envelope=10) for _ in range(2))
    ((_, records),) = from_event(one).items()

    assert [record["kinesis"]["data"] for record in one["Records"]] == [
        record["kinesis"]["data"] for record in other["Records"]
    ]
    assert ["account_0", "account_1", "account_0"] == [record.account for record in records]
    assert [10, 10, 5] == [count for record in records for _, count, _ in record.blocks]


def test_later_events_have_higher_sequence_numbers() -> None:
    """The worker delivers the rows of each later event."""
    made = traffic.event(20)
    work = delivery()
    for number in range(3):
        assert {"batchItemFailures": []} == work.run(traffic.later(made, number), 120_000)

    assert 3 == len(work.spans())
    assert {} == work.chunks()


def test_contenders_do_the_same_work() -> None:
    """Each contender processes the same rows, and the floor concatenates exactly the rows in the envelopes."""
    seconds = _contenders(20, 10)

    names = {"worker", "floor", "fast floor", "decode", "td-client", "with upload"}
    assert names == seconds.keys()
    assert seconds["floor"] > 0


@pytest.mark.parametrize("groups", [1, 3])
def test_batches_are_processed(groups: int) -> None:
    """Batches are processed with one account and with several."""
    assert ROUNDS > 1
    assert _batches(40, groups) > 0


def test_peak_memory_is_measured_in_a_separate_process() -> None:
    """The peak memory of a 6 MB event is plausible: above 6 MB and below 500 MB."""
    assert 6 < peak_mb(10) < 500
