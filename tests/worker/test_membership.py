"""Membership: which span has a record, and in which gap one lies that no span has."""

import pytest

from shared.errors import HeldError
from tests.support.delivery import BUCKET, Delivery, lose_answer
from tests.support.inline_executor import InlineExecutor
from tests.support.spans import CHAIN, span
from worker.chain import ChainId, Owner
from worker.index import EMPTY, Index
from worker.ledger import BEHIND_ALL, Gap
from worker.membership import Membership
from worker.record import START, Number, number
from worker.span import Span, digest_of_numbers
from worker.span_object import encode

N = {n: number(str(n)) for n in range(1, 100)}


class Made:
    """A ledger and a bucket with the spans that a test appends."""

    def __init__(self) -> None:
        self.delivery = Delivery()
        self.membership: Membership = self.delivery.wiring.membership

    def append(self, chain: ChainId, after: Number, *numbers: int) -> Span:
        """Append a span with these records."""
        found = [N[n] for n in numbers]
        none = ("",) * len(found), (0,) * len(found)
        index = Index(" ".join(found), none[1], none[1], none[0], none[1], frozenset(), (), EMPTY.plan)
        encoded = encode([], index, 1_700_000_000.0)
        made = span(
            chain=chain,
            after=after,
            first=found[0],
            last=found[-1],
            chunks={},
            records=len(found),
            digest=digest_of_numbers(found),
            latest=numbers[-1],
            object=encoded.ref,
            settled=True,
        )
        self.delivery.objects.put(made, encoded.data, InlineExecutor())
        return self.delivery.ledger.append(made)[1]

    def locate(self, n: int, *beside: int) -> Span | Gap:
        """Locate a record."""
        return self.membership.locate(CHAIN, N[n], [N[one] for one in beside])


@pytest.fixture
def made() -> Made:
    """Return an empty ledger."""
    return Made()


def test_a_record_in_no_span_lies_at_the_end_of_its_chain_or_in_a_gap_before_a_span(made: Made) -> None:
    """The end has the latest arrival of the chain so far. A closed chain has none: what a worker still has must own a claim."""
    assert Gap(CHAIN, START) == made.locate(5)
    made.append(CHAIN, START, 3)
    made.append(CHAIN, N[3], 8, 9)

    assert Gap(CHAIN, N[9], None, 9) == made.locate(10)
    assert Gap(CHAIN.before(START), START, N[3]) == made.locate(2)
    assert Gap(CHAIN.before(N[3]), START, N[8]) == made.locate(5)
    end = {"after": N[9], "first": BEHIND_ALL, "last": BEHIND_ALL}
    made.delivery.ledger.append(span(chain=CHAIN, chunks={}, records=0, object=None, **end))
    assert Gap(CHAIN.before(N[9]), START, BEHIND_ALL) == made.locate(10)


def test_a_record_is_in_the_span_whose_index_has_its_number(made: Made) -> None:
    """Lying between its borders is not enough. The borders of a span of two records name them: it needs no index."""
    one, two = made.append(CHAIN, START, 3, 5), made.append(CHAIN, N[5], 7, 9, 11)

    assert [one, one, Gap(CHAIN.within(START), START, N[5])] == [made.locate(n) for n in (3, 5, 4)]
    assert 0 == made.delivery.s3.calls.count("get_object")
    assert {} == made.membership.gaps_of([Owner(CHAIN, N[n]) for n in (3, 5, 7)], InlineExecutor)
    assert [two, two, two] == [made.locate(n) for n in (7, 9, 11)]
    assert [Gap(CHAIN.within(N[5]), START, N[n]) for n in (9, 11)] == [made.locate(n) for n in (8, 10)]


def test_gaps_have_gaps(made: Made) -> None:
    """A gap's chain grows like any other, up to the gap's limit, and a record that it passes over lies in a gap of its own."""
    made.append(CHAIN, START, 2, 20, 30)
    gap = CHAIN.within(START)
    made.append(gap, START, 5, 7, 9)
    expected = {
        4: Gap(gap.before(START), START, N[5]),
        6: Gap(gap.within(START), START, N[7]),
        12: Gap(gap, N[9], N[20], 9),
    }

    assert expected == {n: made.locate(n) for n in expected}


def test_a_redelivered_batch_needs_no_index(made: Made) -> None:
    """The item's count and digest show that all its records are there. With one more or less, or another, the index is read."""
    one = made.append(CHAIN, START, 3, 5, 7)

    assert one == made.locate(5, 1, 3, 5, 7, 9)
    assert 0 == made.delivery.s3.calls.count("get_object")
    assert isinstance(made.locate(4, 3, 4, 5, 7), Gap)
    assert isinstance(made.locate(6, 3, 6, 7), Gap)
    assert 1 == made.delivery.s3.calls.count("get_object")


@pytest.mark.parametrize("damage", ["unreadable", "changed", "gone"])
def test_without_its_index_nobody_knows_where_a_record_is(made: Made, damage: str) -> None:
    """It is neither in the span nor in a gap, so it is held."""
    made.append(CHAIN, START, 3, 5, 7)
    (name,) = made.delivery.span_objects()
    if damage == "unreadable":
        made.delivery.s3.before["get_object"] = lambda _: lose_answer()
    elif damage == "changed":
        made.delivery.s3.client.put_object(Bucket=BUCKET, Key=name, Body=b"x" * 500)
    else:
        made.delivery.s3.client.delete_object(Bucket=BUCKET, Key=name)

    with pytest.raises(HeldError, match="the index of a span cannot be read"):
        made.locate(5)
