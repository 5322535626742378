"""Rules for legal names."""

from collections.abc import Callable

import pytest

from shared import names


@pytest.mark.parametrize(
    ("is_legal", "legal", "illegal"),
    [
        (names.is_account, ["shop_1", "a" * 64], ["a" * 65, "ab", "Shop", "shop-1", "shop\n", "shöp", ""]),
        (names.is_key_id, ["k1", "k1-9999", "k" * 16], ["k" * 17, "k1-", "k1-10000", "k1-a", "K1", ""]),
        (names.is_key_id, ["hash"], [".hash", ".forget"]),
        (names.is_database, ["events_2026", "a" * 128], ["a" * 129, "ab", "Events"]),
        (names.is_table, ["pageviews", "a" * 128], ["a" * 129, "page views", "٣٣٣"]),
    ],
)
def test_names_are_checked(is_legal: Callable[[str], bool], legal: list[str], illegal: list[str]) -> None:
    """A legal name has lower case ASCII letters, digits and `_`, and the length that its kind allows."""
    assert legal == [name for name in [*legal, *illegal] if is_legal(name)]
