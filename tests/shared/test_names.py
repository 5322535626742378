"""Rules for legal names."""

from collections.abc import Callable

import pytest

from shared import names


@pytest.mark.parametrize(
    ("legal", "name", "expected"),
    [
        (names.is_account, "shop_1", True),
        (names.is_account, "a" * 64, True),
        (names.is_account, "a" * 65, False),
        (names.is_account, "ab", False),
        (names.is_account, "Shop", False),
        (names.is_account, "shop-1", False),
        (names.is_account, "shop\n", False),
        (names.is_account, "shöp", False),
        (names.is_account, "", False),
        (names.is_key_id, "k1", True),
        (names.is_key_id, "k1-9999", True),
        (names.is_key_id, "k" * 16, True),
        (names.is_key_id, "k" * 17, False),
        (names.is_key_id, "k1-", False),
        (names.is_key_id, "k1-10000", False),
        (names.is_key_id, "k1-a", False),
        (names.is_key_id, "K1", False),
        (names.is_key_id, "", False),
        (names.is_database, "events_2026", True),
        (names.is_database, "a" * 128, True),
        (names.is_database, "a" * 129, False),
        (names.is_database, "ab", False),
        (names.is_database, "Events", False),
        (names.is_table, "pageviews", True),
        (names.is_table, "a" * 128, True),
        (names.is_table, "a" * 129, False),
        (names.is_table, "page views", False),
        (names.is_table, "٣٣٣", False),
    ],
)
def test_names_are_checked_by_their_kind(legal: Callable[[str], bool], name: str, expected: bool) -> None:
    """A legal name has lower case ASCII letters, digits and `_`, and the length that its kind allows."""
    assert expected == legal(name)
