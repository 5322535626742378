"""The edge policy's document is the published one, or it is rejected."""

import tracemalloc

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import policy
from shared.errors import InvalidPolicyError
from shared.person_hash import HASH_BYTES
from shared.policy import AccountLimits, EdgePolicy, OverflowLimit, PolicyEntry
from shared.tracking_plan import PlannedColumn, PlannedTable, TrackingPlan

positive = st.integers(1, 2**40)
entries = st.builds(
    PolicyEntry,
    status=st.sampled_from(["active", "disabled"]),
    revoked_key_ids=st.frozensets(st.sampled_from(["k1", "k1-2", "z9-1234"]), max_size=3),
    limits=st.builds(AccountLimits, positive, st.none() | positive, st.none() | positive, positive, positive),
    plan=st.sampled_from([None, TrackingPlan({"orders": PlannedTable({"amount": PlannedColumn("number")})})]),
)
accounts = st.dictionaries(st.sampled_from(["shop", "news_2", "x" * 64]), entries, max_size=5)


@given(
    accounts,
    st.integers(0, 2**53),
    st.none() | st.builds(OverflowLimit, positive, positive, positive),
    st.dictionaries(
        st.sampled_from(["shop", "news_2", "gone"]),
        st.dictionaries(
            st.sampled_from(["email", "td_ip"]),
            st.frozensets(st.binary(min_size=HASH_BYTES, max_size=HASH_BYTES), max_size=3),
        ),
    ),
)
def test_policies_round_trip(
    wanted: dict[str, PolicyEntry],
    at: int,
    overflow: OverflowLimit | None,
    persons: dict[str, dict[str, frozenset[bytes]]],
) -> None:
    """Accounts, the overflow queue and refused persons have different writers: each keeps what the others wrote, and writes nothing older."""
    refused = {
        account: {column: b"".join(hashes) for column, hashes in columns.items()}
        for account, columns in persons.items()
    }
    found = EdgePolicy.parse(policy.encode({}, at))
    found = EdgePolicy.parse(policy.with_refused(found, refused, 0))
    found = EdgePolicy.parse(policy.with_overflow(found, overflow, 0))
    found = EdgePolicy.parse(policy.encode(wanted, 0, found))

    assert (at, overflow, refused) == (found.published_at, found.overflow, found.refused)
    assert {name: entry._replace(refused=persons.get(name, {})) for name, entry in wanted.items()} == {
        name: found.account(name) for name in wanted
    }
    assert found.account("-") is None


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Draw a document that ends early or has a changed byte."""
    data = bytearray(policy.encode(draw(accounts), 1))
    place = draw(st.integers(0, len(data) - 1))
    if draw(st.booleans()):
        return bytes(data[:place])
    data[place] ^= draw(st.integers(1, 255))
    return bytes(data)


@given(damaged() | st.binary(max_size=100))
def test_any_other_bytes_are_rejected(data: bytes) -> None:
    """The object may be damaged, a proxy's page, another object or empty; no account is refused because of it."""
    with pytest.raises(InvalidPolicyError):
        EdgePolicy.parse(data)


def test_the_error_for_a_newer_version_names_it() -> None:
    """The message names both versions, for the log."""
    with pytest.raises(InvalidPolicyError, match="version 2; this reader knows 1"):
        EdgePolicy.parse(msgpack.packb([2, {"anything": True}]))


@pytest.mark.parametrize(
    ("value", "refused", "entry"),
    [
        ({"status": "disabled", "color": "red"}, None, PolicyEntry("disabled")),
        ({"status": "paused", "revoked": "k1", "limits": [1]}, None, PolicyEntry()),
        ({"revoked": [1, "k1", "K 2"]}, None, PolicyEntry(revoked_key_ids=frozenset({"k1"}))),
        ({"limits": {"tables": 5, "visitors": 9, "events_per_second": "many"}}, None, PolicyEntry(limits=AccountLimits(5))),
        ([1, 2], None, PolicyEntry()),
        (5, None, PolicyEntry()),
        *[({}, refused, PolicyEntry()) for refused in (5, {"shop": 5}, {"shop": {"email": "text"}})],
    ],
)  # fmt: skip
def test_unknown_members_are_ignored(value: object, refused: object, entry: PolicyEntry) -> None:
    """Unknown or illegal members do not invalidate the rest; if persons cannot be read, nobody is refused."""
    entries = {"shop": value if value == 5 else msgpack.packb(value)}
    body = msgpack.packb([7, entries, "more", refused, "more"])

    found = EdgePolicy.parse(msgpack.packb([1, policy.sha256(body).digest(), body, "more"]))

    assert entry == found.account("shop")


@pytest.mark.parametrize(
    "value", [{"tables": 0}, {"tables": True}, {"tables": "9"}, {"visitors": 1}, ["tables"], None]
)
def test_illegal_limits_are_rejected(value: object) -> None:
    """Limits that an operator writes must be legal."""
    with pytest.raises(ValueError, match=r"limit|tables"):
        AccountLimits.parse(value)


def test_10000_accounts_take_at_most_20_mb() -> None:
    """This includes the document and the memory for parsing it."""
    one = PolicyEntry("disabled", frozenset({"k1", "k1-2", "k1-3"}), AccountLimits(50, 100, 1_000_000))
    data = policy.encode({f"account_{number:05}": one for number in range(10_000)}, 1)
    tracemalloc.start()
    EdgePolicy.parse(data)
    peak = tracemalloc.get_traced_memory()[1] + len(data)
    tracemalloc.stop()

    assert peak <= 20 << 20
