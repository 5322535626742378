"""Names of chains."""

from dataclasses import astuple

import pytest
from hypothesis import given

from tests.support.spans import CHAIN, chains, numbers, replays
from worker.chain import ChainId, ClaimOwner
from worker.record import Number, number

NAME = "events@1700000000#shardId-000000000000"
ONE, TWO = number("49590338"), number("7")


@given(chains)
def test_names_round_trip(chain: ChainId) -> None:
    """A name determines its chain, so no two chains share a name."""
    assert chain == ChainId.parse(chain.name)


@pytest.mark.parametrize(
    ("chain", "name"),
    [
        (CHAIN, NAME),
        (CHAIN.hole(ONE), f"{NAME}#{ONE}"),
        (CHAIN.hole(ONE).hole(TWO), f"{NAME}#{ONE}#{TWO}"),
        (CHAIN.forced("lost/shop/*"), f"{NAME}#force#lost/shop/*"),
        (CHAIN.forced("lost/*/*").hole(ONE), f"{NAME}#force#lost/*/*#{ONE}"),
        (ChainId.overflow("r"), "overflow#r"),
        (ChainId.overflow("r#1"), "overflow#r#1"),
    ],
)
def test_names_are_stable(chain: ChainId, name: str) -> None:
    """Names are ledger keys and part of the unique ids that rows are sent under."""
    assert name == chain.name


def test_an_overflow_chain_consists_of_its_name() -> None:
    """It belongs to no stream and no shard, and is the same wherever it is created."""
    chain = ChainId.overflow("r")

    assert {"r"} == {member for member in astuple(chain) if member}
    assert None not in astuple(chain)
    assert chain.is_overflow


@given(replays, numbers)
def test_holes_and_replays_have_the_shard_s_chain_as_root(replay: str, after: Number) -> None:
    """This holds at any depth. A stream recreated under the same name has other chains."""
    derived = CHAIN.forced(replay).hole(after).hole(after)

    assert CHAIN == derived.root
    assert bool(replay) == derived.is_forced
    assert not derived.is_overflow
    assert ChainId("events", "1700000001", CHAIN.shard) != CHAIN
    assert CHAIN is CHAIN.root


def test_a_chain_knows_its_shard_s_lowest_possible_number() -> None:
    """Records of an older stream with the same name have lower numbers and can be told apart by them."""
    assert number("1700000000") == CHAIN.lowest


@pytest.mark.parametrize("name", ["", "events", "events#s", "events@x#s", "@1#s", "events@1#", f"{NAME}#x"])
def test_texts_that_do_not_name_a_chain_are_rejected(name: str) -> None:
    """Each part of a name is required, and its numbers must be numbers."""
    with pytest.raises(ValueError, match="does not name a chain"):
        ChainId.parse(name)


# Owners of claims


@given(chains, numbers)
def test_owners_round_trip_through_their_names(chain: ChainId, at: Number) -> None:
    """An owner is a record of a shard or an overflow chain, whatever the id in the chain's name looks like."""
    owner = ClaimOwner(chain) if chain.is_overflow else ClaimOwner.record(chain, at)

    assert owner == ClaimOwner.parse(owner.name)


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (ClaimOwner(CHAIN, ONE), f"{NAME}#{ONE}"),
        (ClaimOwner(ChainId.overflow("r")), "overflow#r"),
        (ClaimOwner(ChainId.overflow("r#1")), "overflow#r#1"),
    ],
)
def test_names_of_owners_are_stable(owner: ClaimOwner, name: str) -> None:
    """Claims outlive the version of the worker that wrote them."""
    assert name == owner.name
    assert owner == ClaimOwner.parse(name)


@pytest.mark.parametrize(
    "chain", [CHAIN, CHAIN.hole(TWO), CHAIN.forced("lost/*/*"), CHAIN.forced("l/*/*").hole(TWO)]
)
def test_a_record_is_the_same_owner_wherever_it_is_planned(chain: ChainId) -> None:
    """The shard's chain, its holes and forced replays beside it all hold the shard's records."""
    assert ClaimOwner(CHAIN, ONE) == ClaimOwner.record(chain, ONE)


@pytest.mark.parametrize("name", ["", ONE, f"events#{ONE}", NAME])
def test_texts_that_do_not_name_an_owner_are_rejected(name: str) -> None:
    """An owner without a number is an overflow chain."""
    with pytest.raises(ValueError, match="does not name a chain"):
        ClaimOwner.parse(name)
