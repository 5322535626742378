"""The admin function: accounts, checks, and the probe rows that measure Treasure Data."""

from dataclasses import replace
from typing import Any

import pytest
import redis

from doubles.clock import START
from doubles.treasure_data import Action, Fault, Kind
from local.functions import ADMIN
from shared import policy
from shared.errors import SecretUnavailableError
from shared.policy import AccountLimits, EdgePolicy, OverflowLimit, PolicyEntry
from tests.support.delivery import BUCKET, KEYS, Delivery, lose_answer, row
from tests.support.treasure_data import put
from worker.probe_rows import MEASURE_TABLE

SENT = {"do": "send_probe", "database": "shop_db", "mark": "m-1", "id": "i-1", "time": int(START)}
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


def test_what_the_scaler_published_is_kept() -> None:
    """It is about the overflow queue, not about accounts."""
    made = delivery()
    overflow = OverflowLimit(int(START * 2000), 3, 50_000)
    document = policy.with_overflow(published(made), overflow, 1)
    made.s3.put_object(Bucket=BUCKET, Key=policy.KEY, Body=document)

    ask(made, do="publish")

    assert overflow == published(made).overflow


@pytest.mark.parametrize(
    "event",
    [{"do": "apply", "accounts": {"new": SHOP}}, {"do": "change", "account": "shop", "fields": CLOSED}],
)
def test_nothing_changes_if_the_policy_cannot_be_published(event: dict[str, Any]) -> None:
    """Otherwise the edge would reject accounts that Redis has."""
    made = delivery()
    before = ask(made, do="accounts")
    made.s3.before["put_object"] = lambda _: lose_answer()
    answer = ask(made, **event)

    assert "policy_not_published" == answer["error"]
    assert "Nothing was changed" in answer["message"]
    assert before == ask(made, do="accounts")


def test_an_incomplete_redis_is_never_published() -> None:
    """The edge would reject the accounts that Redis has lost."""
    made = delivery()
    made.redis.delete(KEYS.of("closed"))
    answers = [ask(made, do="publish"), ask(made, do="change", account="shop", fields=CLOSED)]

    assert ["accounts_incomplete"] * 2 == [answer["error"] for answer in answers]
    assert PolicyEntry() == published(made).account("shop")


def test_publish_restores_a_lost_policy() -> None:
    """It is rebuilt from Redis, without changing an account."""
    made = delivery()
    made.s3.delete_object(Bucket=BUCKET, Key=policy.KEY)
    answer = ask(made, do="publish")

    assert {"closed", "shop"} == answer["accounts"].keys()
    assert PolicyEntry("disabled") == published(made).account("closed")


def test_a_new_account_counts_toward_completeness() -> None:
    """Once added, Redis is complete with the account and incomplete without it."""
    made = delivery()
    added = ask(made, do="change", account="new", fields=SHOP)
    again = ask(made, do="publish")
    made.redis.delete(KEYS.of("new"))
    lost = ask(made, do="publish")

    assert {"shop", "closed", "new"} == added["accounts"].keys()
    assert added == again
    assert "accounts_incomplete" == lost["error"]


def test_unknown_requests_get_an_error_answer() -> None:
    """A newer command thereby learns that the stack is older."""
    assert "unknown_request" == ask(delivery(), do="dance")["error"]


def test_a_probe_row_can_be_found_by_its_mark() -> None:
    """Missing tables and databases are created, and the row's event id says what it is."""
    made = delivery()

    assert {"taken": True, "reason": ""} == ask(made, **SENT)
    assert ["sluice-measure-m-1"] == made.ids("shop_db", MEASURE_TABLE)
    made.clock.sleep(made.query_delay + 1)
    asked = {"do": "ask_probe", "database": "shop_db", "time": int(START)}
    assert {"shown": True, "reason": ""} == ask(made, **asked, mark="m-1")
    assert {"shown": False, "reason": ""} == ask(made, **asked, mark="m-2")


def test_the_probe_id_determines_the_unique_id() -> None:
    """Treasure Data therefore drops a second probe row that is sent under the same id."""
    made = delivery()
    for mark in ("m-1", "m-2"):
        ask(made, **SENT | {"mark": mark})
    ask(made, **SENT | {"mark": "m-3", "id": "i-2"})

    assert ["sluice-measure-m-1", "sluice-measure-m-3"] == made.ids("shop_db", MEASURE_TABLE)


@pytest.mark.parametrize("database", ["closed_db", "elsewhere"])
def test_probe_rows_go_only_to_databases_of_active_accounts(database: str) -> None:
    """Databases that are unknown or belong to a disabled account are refused, and nothing is created."""
    made = delivery()

    assert "unknown_database" == ask(made, **SENT | {"database": database})["error"]
    assert {} == made.td.counts()


@pytest.mark.parametrize("mark", ["", "Up", "it's", "a" * 65])
def test_invalid_marks_are_rejected(mark: str) -> None:
    """A mark becomes part of a query, so it must not hold anything with a meaning in SQL."""
    made = delivery()

    assert "error" in ask(made, **SENT | {"mark": mark})
    assert {} == made.td.counts()


def test_the_answer_gives_the_reason_for_a_failure() -> None:
    """If Treasure Data does not accept a row or does not answer a query, the caller learns why."""
    made = delivery()
    made.fail(status=503)
    assert {"taken": False, "reason": "http_503"} == ask(made, **SENT)
    made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.QUERY, status=403))
    answer = ask(made, do="ask_probe", database="shop_db", mark="m", time=1)

    assert {"shown": None, "reason": "forbidden"} == answer


def test_a_check_reports_what_the_key_may_do_and_writes_nothing() -> None:
    """It tests the right to write with an import of no rows."""
    made = delivery()
    answer = ask(made, do="check")
    expected = {
        "answers": True,
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


@pytest.mark.parametrize(
    ("account", "table", "shown"),
    [("shop", "views", True), ("shop", "bare", False), ("shop", "gone", None), ("nobody", "views", None)],
)
def test_reports_whether_a_table_shows_the_columns_that_searches_need(
    account: str, table: str, shown: bool | None
) -> None:
    """Rows in doubt are searched for by these columns; without a table, the answer is null."""
    made = delivery()
    made.td.create("shop_db", "views", "bare")
    put(made.td, "shop_db.views", [row("e1")])
    made.td.settings = replace(made.td.settings, query_delay=0)

    assert {"shown": shown} == ask(made, do="columns", account=account, table=table)


@pytest.mark.parametrize(
    "event",
    [
        {"do": "apply", "accounts": {"shop": {"database": "No!"}}},
        {"do": "apply", "accounts": {"No!": SHOP}},
        {"do": "change", "account": "shop", "fields": SHOP | {"status": "gone"}},
    ],
)
def test_invalid_accounts_change_nothing(event: dict[str, Any]) -> None:
    """The answer says what is wrong with them."""
    made = delivery()
    before = ask(made, do="accounts")
    answer = ask(made, **event)

    assert "invalid_account" == answer["error"]
    assert answer["message"]
    assert before == ask(made, do="accounts")


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

    def fail(*_: Any, **__: Any) -> Any:
        raise problem

    for call in ("hset", "hmget", "hget", "scan_iter"):
        setattr(made.redis, call, fail)

    assert error == ask(made, do="accounts")
    checked = ask(made, do="check")
    assert (error, True) == (checked["redis"], checked["treasure_data"]["answers"])


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


def test_a_check_reports_an_unknown_api_key() -> None:
    """The answer then says nothing about databases."""
    made = delivery()
    made.secrets.values["td"] = "1/other"
    made.start()

    expected = {"answers": True, "knows_key": False, "host": HOST, "status": 401, "error": ""}
    assert expected == ask(made, do="check")["treasure_data"]
