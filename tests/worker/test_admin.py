"""The admin function: accounts and checks."""

from copy import replace
from functools import partial
from typing import Any
from unittest.mock import Mock

import pytest
import redis
from botocore.exceptions import ConnectionClosedError
from botocore.parsers import ResponseParserError

from doubles.clock import START
from doubles.treasure_data import Action, Fault, Kind
from local.functions import ADMIN
from shared import policy
from shared.errors import SecretUnavailableError
from shared.policy import AccountLimits, EdgePolicy, OverflowLimit, PolicyEntry
from tests.support.delivery import BUCKET, KEYS, Delivery, once, row
from tests.support.treasure_data import put

HOST = "api.td"
CLOSED = {"database": "closed_db", "status": "disabled", "revoked_key_ids": "", "limits": "", "plan": ""}
SHOP = CLOSED | {"database": "shop_db", "status": "active"}


def delivery() -> Delivery:
    """Return a delivery with one active and one disabled account."""
    made = Delivery()
    assert "error" not in ask(made, do="apply", accounts={"shop": SHOP, "closed": CLOSED})
    return made


def ask(made: Delivery, **event: Any) -> dict[str, Any]:
    """Return the admin function's answer to a request."""
    return made.wiring_of(ADMIN).admin.run(event, made.deadline(60_000))


def published(made: Delivery) -> EdgePolicy:
    """Return the edge policy as the ingest would read it."""
    return EdgePolicy.parse(made.s3.get_object(Bucket=BUCKET, Key=policy.KEY)["Body"].read())


def test_applying_and_changing_accounts_publishes_the_edge_policy() -> None:
    """The policy has the same accounts as Redis, and a later time of publication."""
    made = delivery()
    first = published(made)
    made.clock.time += 1
    ask(made, do="change", account="shop", fields=SHOP | {"revoked_key_ids": "k1", "limits": '{"tables": 5}'})
    second = published(made)

    assert (PolicyEntry(), PolicyEntry("disabled")) == (first.account("shop"), first.account("closed"))
    revoked = PolicyEntry(revoked_key_ids=frozenset({"k1"}), limits=AccountLimits(5))
    assert (revoked, PolicyEntry("disabled")) == (second.account("shop"), second.account("closed"))
    assert second.published_at - first.published_at == 1000


def test_publish_keeps_what_the_scaler_published_and_restores_a_lost_policy() -> None:
    """The former is about the overflow queue. The latter is rebuilt from Redis, without changing an account."""
    made = delivery()
    overflow = OverflowLimit(int(START * 2000), 3, 50_000)
    document = policy.with_overflow(published(made), overflow, 1)
    made.s3.put_object(Bucket=BUCKET, Key=policy.KEY, Body=document)
    ask(made, do="publish")
    assert overflow == published(made).overflow
    made.s3.delete_object(Bucket=BUCKET, Key=policy.KEY)

    assert {"closed", "shop"} == ask(made, do="publish")["accounts"].keys()
    assert PolicyEntry("disabled") == published(made).account("closed")


@pytest.mark.parametrize(
    ("event", "error"),
    [
        ({"do": "apply", "accounts": {"new": SHOP}}, "policy_not_published"),
        ({"do": "change", "account": "shop", "fields": CLOSED}, "policy_not_published"),
        ({"do": "apply", "accounts": {"shop": {"database": "No!"}}}, "invalid_account"),
        ({"do": "apply", "accounts": {"No!": SHOP}}, "invalid_account"),
        ({"do": "change", "account": "shop", "fields": SHOP | {"status": "gone"}}, "invalid_account"),
    ],
)
def test_nothing_changes_unless_accounts_are_valid_and_published(event: dict[str, Any], error: str) -> None:
    """Otherwise the edge would reject accounts that Redis has. The answer says what is wrong."""
    made = delivery()
    before = ask(made, do="accounts")
    failures = ConnectionClosedError(endpoint_url="http://aws"), ResponseParserError("html")
    made.s3.before["put_object"] = Mock(side_effect=failures)
    for _ in failures:
        answer = ask(made, **event)
        assert error == answer["error"]
        assert ("Nothing was changed" in answer["message"]) is (error == "policy_not_published")
    assert answer["message"]
    assert before == ask(made, do="accounts")


def test_an_account_that_is_added_during_a_change_is_published_by_it() -> None:
    """The edge would reject its events otherwise."""
    made = delivery()
    made.s3.before["put_object"] = once(lambda: ask(made, do="change", account="new", fields=SHOP))
    ask(made, do="change", account="shop", fields=CLOSED)

    assert {"new", "shop", "closed"} == published(made).entries.keys()


def test_an_incomplete_redis_is_never_published() -> None:
    """The edge would reject the accounts that Redis has lost. A new account counts once it was added."""
    made = delivery()
    added = ask(made, do="change", account="new", fields=SHOP)
    assert {"shop", "closed", "new"} == added["accounts"].keys()
    assert added == ask(made, do="publish")
    made.redis.delete(KEYS.of("new"))
    answers = [ask(made, do="publish"), ask(made, do="change", account="shop", fields=CLOSED)]

    assert ["accounts_incomplete"] * 2 == [answer["error"] for answer in answers]
    assert PolicyEntry() == published(made).account("shop")


def test_a_damaged_account_stays_published_until_it_is_repaired_or_removed() -> None:
    """The edge policy would otherwise refuse its events, and forgetting not know its database. If it is lost there too, nothing is published."""
    made = delivery()
    made.redis.hset(KEYS.of("closed"), mapping={"plan": "{"})
    apply = partial(ask, made, do="apply", accounts={"shop": SHOP})
    for answer in (ask(made, do="publish"), ask(made, do="change", account="shop", fields=SHOP), apply()):
        assert ({"shop"}, {"closed"}) == (answer["accounts"].keys(), answer["damaged"].keys())
    assert PolicyEntry("disabled") == published(made).account("closed")
    made.s3.delete_object(Bucket=BUCKET, Key=policy.KEY)
    assert ["accounts_incomplete"] * 2 == [one["error"] for one in (ask(made, do="publish"), apply())]
    assert {} == apply(removes_damaged=True)["damaged"]
    assert {"shop"} == published(made).entries.keys()


def test_a_check_reports_what_the_key_may_do_and_writes_nothing() -> None:
    """It tests the right to write with an import of no rows. With an unknown key, it says nothing about databases."""
    made = delivery()
    answer = ask(made, do="check")
    expected = {
        "knows_key": True,
        "host": HOST,
        "status": 200,
        "error": "",
        "databases": {"shop_db": ""},
        "missing": ["shop_db"],
        "may_query": True,
    }
    assert expected == answer["treasure_data"]
    assert {"memory_minutes": 60, "query_delay_minutes": 10} == answer["assumed"]
    assert {} == made.td.counts()

    made.secrets.values["td"] = "1/other"
    made.start()
    assert "unknown_request" == ask(made, do="dance")["error"]
    unknown = {"knows_key": False, "host": HOST, "status": 401, "error": ""}
    assert unknown == ask(made, do="check")["treasure_data"]


@pytest.mark.parametrize(
    ("account", "table", "shown"),
    [("shop", "views", True), ("shop", "bare", False), ("shop", "gone", None), ("nobody", "views", None)],
)
def test_reports_whether_a_table_shows_our_columns(account: str, table: str, shown: bool | None) -> None:
    """Rows in doubt are searched for by these columns; without a table, the answer is null."""
    made = delivery()
    made.td.create("shop_db", "views", "bare")
    put(made.td, "shop_db.views", [row("e1")])
    made.td.settings = replace(made.td.settings, query_delay=0)

    assert {"shown": shown} == ask(made, do="columns", account=account, table=table)


@pytest.mark.parametrize(
    ("problem", "error"),
    [
        (
            redis.ConnectionError("away."),
            {"error": "redis_unreachable", "message": "Redis does not answer: away"},
        ),
        (SecretUnavailableError("no value yet"), {"error": "no_redis_url", "message": "no value yet"}),
    ],
)
def test_an_unreachable_redis_is_reported(problem: Exception, error: dict[str, str]) -> None:
    """A check reports it too, and checks Treasure Data all the same."""
    made = delivery()
    for call in ("hset", "hmget", "hget", "scan_iter"):
        setattr(made.redis, call, Mock(side_effect=problem))

    assert error == ask(made, do="accounts")
    checked = ask(made, do="check")
    assert (error, True) == (checked["redis"], checked["treasure_data"]["knows_key"])


@pytest.mark.parametrize(
    ("action", "status", "expected"),
    [
        (Action.IMPORT, 403, {"databases": {"shop_db": "http_403"}, "may_query": True}),
        (Action.QUERY, 403, {"databases": {"shop_db": ""}, "may_query": False}),
        (Action.IMPORT, 503, {"databases": {"shop_db": "http_503"}, "may_query": True}),
        (Action.QUERY, 503, {"databases": {"shop_db": ""}, "may_query": None}),
    ],
)
def test_a_check_reports_missing_rights(action: Action, status: int, expected: dict[str, Any]) -> None:
    """Each database is tested, and the right to query; what Treasure Data does not say is null."""
    made = delivery()
    made.td.create("shop_db")
    made.td.faults.add(Fault(kind=Kind.STATUS, action=action, status=status))
    rights = ask(made, do="check")["treasure_data"]

    assert expected == {name: rights[name] for name in expected}


def test_a_check_ends_in_time_although_imports_hang() -> None:
    """Else nobody would learn that they hang, nor anything about Redis, as soon as a stack has many databases."""
    made = delivery()
    accounts = {f"shop{n}": SHOP | {"database": f"db_{n}"} for n in range(9)}
    ask(made, do="apply", accounts=accounts)
    made.td.faults.add(Fault(kind=Kind.HANG, action=Action.IMPORT))
    began = made.clock.now()
    checked = ask(made, do="check")

    assert made.clock.now() - began < 60
    assert {"timeout"} == set(checked["treasure_data"]["databases"].values())
    assert accounts == checked["redis"]["accounts"]
