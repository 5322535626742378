"""The ids of signing secrets."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.failure import Failure
from ops.signing_secrets import newest_key, next_secret_id, signing_of
from shared import names
from shared.write_key import HASH_KEY, PROXY_SECRET

NOON = datetime(2026, 11, 29, 12, 0, 30, tzinfo=UTC)


def test_an_id_is_the_minute_in_which_its_secret_was_made() -> None:
    """A second secret in the same minute gets the next minute's. Other members have another purpose, or sign no key."""
    assert "k2611291200" == next_secret_id({"k1"}, NOON.timestamp())
    assert "k2611291201" == next_secret_id({"k1", "k2611291200"}, NOON.timestamp())
    others = {HASH_KEY: "b", PROXY_SECRET: "c", "key_2": "d", "K3": "e", "k1-4": "f", "k5": "", "k6": 7}
    assert {"k1": "a"} == signing_of({"k1": "a"} | others)


def test_no_key_is_made_for_what_is_no_account() -> None:
    """Such as the mistyped name of one: `sluice doctor --account Shop`."""
    with pytest.raises(Failure, match="'Shop' is not a valid account name"):
        newest_key("Shop", {"k1": "a"}, ())


@given(st.lists(st.tuples(st.integers(1, 10_000), st.booleans()), max_size=20))
def test_the_id_of_a_retired_secret_does_not_come_back(history: list[tuple[int, bool]]) -> None:
    """Each secret gets an id that no secret has had before, and that is legal in a write key."""
    now, given_out, in_use = NOON, list[str](), set[str]()
    for minutes, retires in history:
        now += timedelta(minutes=minutes)
        made = next_secret_id(in_use, now.timestamp())
        given_out.append(made)
        in_use = set() if retires else in_use | {made}

    assert sorted(set(given_out)) == given_out
    assert all(names.is_key_id(made) for made in given_out)
