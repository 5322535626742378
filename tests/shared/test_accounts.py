"""How accounts are stored in Redis."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import names
from shared.accounts import ALL_FIELDS, Account, AccountKeys
from shared.errors import InvalidAccountError
from shared.policy import AccountLimits, PolicyEntry
from shared.tracking_plan import PlannedColumn, PlannedTable, TrackingPlan

made = st.builds(
    Account,
    database=st.from_regex(r"[a-z0-9_]{3,128}", fullmatch=True),
    status=st.sampled_from(["active", "disabled"]),
    revoked_key_ids=st.frozensets(st.from_regex(r"[a-z0-9]{1,16}(-[0-9]{1,4})?", fullmatch=True), max_size=3),
    plan=st.sampled_from(
        [
            None,
            TrackingPlan(),
            TrackingPlan({"pageviews": PlannedTable({"title": PlannedColumn("string", description="ä")})}),
        ]
    ),
    limits=st.builds(AccountLimits, st.integers(1, 500), st.none() | st.integers(1, 2**40), st.none()),
)


@given(made)
def test_an_account_survives_redis(account: Account) -> None:
    """Its fields describe it completely."""
    fields = account.to_fields()

    assert account == Account.from_fields(fields)
    assert set(ALL_FIELDS) == set(fields)


def test_only_the_database_is_required() -> None:
    """An account is active and has no revoked keys unless its fields say otherwise."""
    assert Account("events") == Account.from_fields(
        {"database": "events", "status": None, "revoked_key_ids": None}
    )


@pytest.mark.parametrize("text", ["{", "[]", '{"tables": 0, "visitors": 5}', '{"tables": "many"}'])
def test_illegal_limits_do_not_stop_an_account(text: str) -> None:
    """Its rows are delivered under the default ones."""
    assert Account("events") == Account.from_fields({"database": "events", "limits": text})


def test_the_edge_policy_says_what_the_account_says() -> None:
    """All but the database, which the edge does not need."""
    account = Account("events", "disabled", frozenset({"k1"}), AccountLimits(5))

    assert PolicyEntry("disabled", frozenset({"k1"}), AccountLimits(5)) == account.to_entry()


@pytest.mark.parametrize(
    "fields", [{}, {"database": None}, {"database": "Events"}, {"database": "events", "status": "on"}]
)
def test_invalid_fields_are_refused(fields: dict[str, str | None]) -> None:
    """A hash without a legal database or with an unknown status is not an account."""
    with pytest.raises(InvalidAccountError):
        Account.from_fields(fields)


def test_no_account_is_the_sentinel() -> None:
    """No legal account name gives the sentinel's key."""
    keys = AccountKeys("ledger")

    assert not names.is_account(keys.sentinel.removeprefix(keys.of("")))
