"""Accounts are stored as hashes in Redis."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import names
from shared.accounts import ALL_FIELDS, Account, AccountKeys
from shared.errors import InvalidAccountError
from shared.policy import AccountLimits
from shared.tracking_plan import PlannedColumn, PlannedTable, TrackingPlan

titles = PlannedTable({"title": PlannedColumn("string", description="ä")})
positive = st.integers(1, 2**40)
made = st.builds(
    Account,
    database=st.from_regex(r"[a-z0-9_]{3,128}", fullmatch=True),
    status=st.sampled_from(["active", "disabled"]),
    revoked_key_ids=st.frozensets(st.from_regex(r"[a-z0-9]{1,16}(-[0-9]{1,4})?", fullmatch=True), max_size=3),
    plan=st.sampled_from([None, TrackingPlan(), TrackingPlan({"pageviews": titles})]),
    limits=st.builds(AccountLimits, st.integers(1, 500), st.none() | positive, st.none(), positive, positive),
)


@given(made)
def test_accounts_round_trip_through_redis(account: Account) -> None:
    """An account's fields describe it completely."""
    fields = account.to_fields()

    assert account == Account.from_fields(fields)
    assert set(ALL_FIELDS) == set(fields)


@pytest.mark.parametrize("text", ["{", "[]", '{"tables": 0, "visitors": 5}', '{"tables": "many"}'])
def test_illegal_limits_do_not_invalidate_an_account(text: str) -> None:
    """Its rows are delivered under the default limits."""
    assert Account("events") == Account.from_fields({"database": "events", "limits": text})


@pytest.mark.parametrize(
    "fields", [{}, {"database": None}, {"database": "Events"}, {"database": "events", "status": "on"}]
)
def test_invalid_fields_are_rejected(fields: dict[str, str | None]) -> None:
    """A hash without a legal database or with an unknown status is not an account."""
    with pytest.raises(InvalidAccountError):
        Account.from_fields(fields)


def test_no_account_has_the_sentinels_key() -> None:
    """The sentinel's key does not contain a legal account name."""
    keys = AccountKeys("ledger")

    assert not names.is_account(keys.sentinel.removeprefix(keys.of("")))
