"""Names of chains."""

from dataclasses import astuple

import pytest
from hypothesis import given

from tests.support.spans import CHAIN, chains, numbers, replays
from worker.chain import ChainId
from worker.record import Number, number

NAME = "events@1700000000#shardId-000000000000"
ONE, TWO = number("49590338"), number("7")


@given(chains)
def test_a_name_says_everything(chain: ChainId) -> None:
    """A chain comes back from its name unchanged, and two chains never have one name."""
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
def test_names_stay_what_they_are(chain: ChainId, name: str) -> None:
    """Names are keys of what the ledger holds, and part of the ids under which rows travel."""
    assert name == chain.name


def test_an_overflow_chain_is_only_its_name() -> None:
    """It belongs to no stream and no shard, and is the same wherever it is made."""
    chain = ChainId.overflow("r")

    assert {"r"} == {member for member in astuple(chain) if member}
    assert None not in astuple(chain)
    assert chain.is_overflow


@given(replays, numbers)
def test_holes_and_replays_have_the_shard_s_chain_as_root(replay: str, after: Number) -> None:
    """However deep, they belong to one shard; a stream created again under its name has other chains."""
    derived = CHAIN.forced(replay).hole(after).hole(after)

    assert CHAIN == derived.root
    assert bool(replay) == derived.is_forced
    assert not derived.is_overflow
    assert ChainId("events", "1700000001", CHAIN.shard) != CHAIN
    assert CHAIN is CHAIN.root


def test_no_record_of_a_shard_has_a_lower_number_than_its_first_possible_one() -> None:
    """The chain's name has that number, so records of an older stream of the same name can be told apart."""
    assert number("1700000000") == CHAIN.lowest


@pytest.mark.parametrize("name", ["", "events", "events#s", "events@x#s", "@1#s", "events@1#", f"{NAME}#x"])
def test_other_texts_are_not_names(name: str) -> None:
    """What does not name a chain is refused."""
    with pytest.raises(ValueError, match="does not name a chain"):
        ChainId.parse(name)
