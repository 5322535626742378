"""Write keys are verified offline, and only with a valid secret's signature."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import write_key
from shared.errors import InvalidKeyError
from shared.write_key import WriteKey

SECRETS = {"k1": "first secret", "k2": "second secret"}

accounts = st.from_regex(r"[a-z0-9_]{3,64}", fullmatch=True)
key_ids = st.from_regex(r"(k1|k2)(-[0-9]{1,4})?", fullmatch=True)


@given(accounts, key_ids)
def test_a_signed_key_names_its_account_and_id(account: str, key_id: str) -> None:
    """This holds for every account and either secret, with or without a serial number."""
    key = write_key.sign(account, key_id, SECRETS[write_key.secret_id(key_id)])

    assert WriteKey(account, key_id) == write_key.verify(key, SECRETS)


def test_signing_never_changes() -> None:
    """Keys are embedded in pages and apps, so a new version must give the same signature."""
    assert "shop_a.k1.NMGpAirz2uDGALPbib5ZtA" == write_key.sign("shop_a", "k1", "first secret")


@st.composite
def forged(draw: st.DrawFn) -> str:
    """Draw a key in which a character was changed, added or removed."""
    key_id = draw(key_ids)
    key = write_key.sign(draw(accounts), key_id, SECRETS[write_key.secret_id(key_id)])
    place = draw(st.integers(0, len(key) - 1))
    other = draw(st.sampled_from("abcxyz019_-.AZ=é ")).replace(key[place], "~")
    before, after = key[:place], key[place + 1 :]
    return draw(st.sampled_from([before + other + after, before + after, key + other]))


@given(forged() | st.text(st.characters(exclude_categories=()), max_size=200))
def test_any_other_text_is_rejected(text: str) -> None:
    """It raises InvalidKeyError and nothing else. The message is logged and sent to the client, so it does not repeat the key."""
    with pytest.raises(InvalidKeyError) as caught:
        write_key.verify(text, SECRETS)
    mac = text.rpartition(".")[2]
    assert len(mac) < 20 or mac not in str(caught.value)


@pytest.mark.parametrize(("account", "key_id"), [("ab", "k1"), ("shop.a", "k1"), ("shop", "K1")])
def test_illegal_names_are_not_signed(account: str, key_id: str) -> None:
    """A key that could not be verified is not created."""
    with pytest.raises(ValueError, match="is not a legal"):
        write_key.sign(account, key_id, "secret")
