"""Spans are found by the time at which their records arrived, from the names of their objects."""

from dataclasses import replace

import pytest

from doubles.clock import START
from ops.books import planned_spans
from ops.books.planned_spans import is_within
from tests.support.delivery import Delivery, envelope, row
from tests.support.spans import span

HOUR = 3600.0


@pytest.fixture(scope="module")
def made() -> Delivery:
    """A delivery with one span an hour, for six hours; the last one was planned four hours late."""
    found = Delivery().map(shop="shop")
    for number in range(6):
        found.put(envelope("shop", {"views": [row(f"e{number}")]}, request_id=f"r{number}"))
        if number < 5:
            found.deliver(number)
        found.clock.sleep(HOUR)
    found.clock.sleep(3 * HOUR)
    found.deliver(5)
    return found


@pytest.mark.parametrize(
    ("since", "until", "held", "expected"),
    [
        (0.0, 6 * HOUR, 4 * HOUR, [0, 1, 2, 3, 4, 5]),
        (HOUR, 3 * HOUR, 0.0, [1, 2]),
        (HOUR, 3 * HOUR + 1, 0.0, [1, 2, 3]),
        (5 * HOUR, 6 * HOUR, 4 * HOUR, [5]),
        (-HOUR, 0.0, 0.0, []),
    ],
)
def test_spans_are_selected_by_the_arrival_of_their_records(
    made: Delivery, since: float, until: float, held: float, expected: list[int]
) -> None:
    """They come in the order of their plan; a record may have been on the stream for long before it was planned."""
    found = planned_spans.spans(made.ledger, made.objects, START + since, START + until, held=held)
    places = {one.place: number for number, one in enumerate(made.spans())}

    assert expected == [places[one.place] for one in found]


def test_an_object_that_no_span_refers_to_is_passed_over(made: Delivery) -> None:
    """It was written by an invocation that lost the append, or has been replaced since."""
    [lost, *_] = made.spans()
    stray = replace(lost, first=lost.last, object=lost.object and lost.object._replace(digest=b"x" * 16))
    made.objects.put(stray, b"stray")

    found = list(planned_spans.spans(made.ledger, made.objects, START, START + HOUR))

    assert [lost.place] == [one.place for one in found]


@pytest.mark.parametrize(
    ("since", "until", "expected", "of_receipt"),
    [
        (0, 10, False, False),
        (0, 11, True, True),
        (10, 11, True, True),
        (11, 20, True, False),
        (20, 30, True, False),
        (21, 30, False, False),
    ],
)
def test_a_span_is_within_a_time_if_a_record_may_be(
    since: float, until: float, *, expected: bool, of_receipt: bool
) -> None:
    """Only its first and its last arrival are known. A span whose rows never arrived on the stream is placed by its receipt."""
    assert expected == is_within(span(earliest=10_000, latest=20_000), since, until)
    assert of_receipt == is_within(span(records=0, received_at=10_000), since, until)


def test_what_was_written_anew_later_is_found_by_its_records() -> None:
    """The sweep and forgetting give a span another object, in a later hour; the object of edited rows is there anyway."""
    made = Delivery().map(shop="shop")
    for number in range(2):
        made.put(envelope("shop", {"views": [row(f"e{number}")]}, request_id=f"r{number}"))
        made.deliver(number)
        made.clock.sleep(HOUR)
    made.clock.sleep(72 * HOUR)
    for one in made.spans():
        anew = made.objects.without(one, lambda _: True, made.clock.now())
        made.objects.put(replace(one, object=anew.ref), anew.data)
        assert made.ledger.update(replace(one, object=anew.ref))[0]

    found = list(planned_spans.spans(made.ledger, made.objects, START, START + HOUR))

    assert [made.spans()[0].place] == [one.place for one in found]
