"""Names of chains, and of owners of claims."""

from collections.abc import Callable
from dataclasses import astuple

import pytest
from hypothesis import given

from tests.support.spans import CHAIN, chains, numbers, shard_chains, tags
from worker.chain import ChainId, Owner
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
        (CHAIN.before(ONE), f"{NAME}#{ONE}"),
        (CHAIN.within(ONE), f"{NAME}#{ONE}!"),
        (CHAIN.before(ONE).within(TWO), f"{NAME}#{ONE}#{TWO}!"),
        (ChainId.forced("lost", CHAIN, ONE), f"force#lost#{ONE}#{NAME}"),
        (ChainId.forced("lost", ChainId.edit("e"), TWO), f"force#lost#{TWO}#edit#e"),
        (ChainId.edit("0f"), "edit#0f"),
        (ChainId.overflow("r#1"), "overflow#r#1"),
    ],
)
def test_names_are_stable(chain: ChainId, name: str) -> None:
    """Names are ledger keys and part of the unique ids that rows are sent under."""
    assert name == chain.name
    assert chain == ChainId.parse(name)
    assert number("1700000000") == CHAIN.lowest


@given(shard_chains, numbers)
def test_gaps_have_the_shard_s_chain_as_root(chain: ChainId, after: Number) -> None:
    """This holds at any depth. A gap before a span is not the gap within it."""
    gaps = {chain.before(after), chain.within(after), chain.before(after).within(after)}

    assert 3 == len(gaps)
    assert {chain.root} == {gap.root for gap in gaps}
    assert chain.root is chain.root.root
    assert all(gap.is_of_stream and not gap.is_forced for gap in gaps)


@given(tags, shard_chains, numbers)
def test_other_chains_belong_to_no_stream(tag: str, original: ChainId, after: Number) -> None:
    """Each consists of its name, and only a forced replay's says so."""
    forced = ChainId.forced(tag, original, after)
    others = (forced, ChainId.edit(tag), ChainId.overflow(tag))

    assert [True, False, False] == [one.is_forced for one in others]
    assert not any(one.is_of_stream for one in others)
    assert {forced.name} == {member for member in astuple(forced) if member}


NO_CHAINS = ["", "events", "events#s", "events@x#s", "@1#s", "events@1#", f"{NAME}#x"]
NO_CHAINS += [f"force#a#1#{NAME}x#!", "force#a#b#c"]


@pytest.mark.parametrize(
    ("parse", "name"),
    [
        *((ChainId.parse, one) for one in NO_CHAINS),
        *((Owner.parse, one) for one in ("", ONE, f"events#{ONE}", NAME)),
    ],
)
def test_texts_that_name_no_chain_or_owner_are_rejected(parse: Callable[[str], object], name: str) -> None:
    """Each part of a name is required, and its numbers must be numbers. An owner is a chain and a number."""
    with pytest.raises(ValueError, match="does not name a chain"):
        parse(name)


@given(shard_chains, numbers)
def test_owners_round_trip_through_their_names(chain: ChainId, at: Number) -> None:
    """An owner is a record of a shard. Claims outlive the code that wrote them."""
    owner = Owner(chain.root, at)

    assert owner == Owner.parse(owner.name)
    assert f"{chain.root.name}#{at}" == owner.name
