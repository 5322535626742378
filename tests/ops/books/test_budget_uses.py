"""What accounts have spent of their budgets, read back from the counters that the ingest writes."""

from typing import Any

import pytest

from doubles.clock import ManualClock
from doubles.dynamodb import MemoryDynamoDB
from local.resources import COUNTERS
from ops.books.budget_uses import BudgetUse, BudgetUses
from shared.counters import Counters, Spent
from shared.errors import InvalidObjectError

NOW = 1_764_000_000 // 3600 * 3600
MINUTE = NOW // 60 - 1


def test_a_days_refusals_and_the_last_minutes_spending_are_read() -> None:
    """A day has many items of an account; older ones and other minutes do not count. One that somebody else has written is an error."""
    dynamodb: Any = MemoryDynamoDB(ManualClock(NOW).now, page_items=2)
    dynamodb.create_table(TableName="counters", **COUNTERS)
    uses = BudgetUses(dynamodb, "counters")
    counted = [("shop", Counters(MINUTE - 60 * hour, Spent(0, 6), 1, 10)) for hour in range(48)]
    counted.append(("shop", Counters(MINUTE, Spent(24, 6), 0, 0)))
    counted.append(("news", Counters(MINUTE - 5, Spent(0, 6), 2, 2)))
    for account, counters in counted:
        dynamodb.update_item(**counters.update("counters", account))

    shop = BudgetUse("shop", (6 + 6 + 24) / 60, 24, 240)
    assert [BudgetUse("news", 0.0, 2, 2), shop] == uses.all(NOW)
    assert shop == uses.of("shop", NOW)
    assert BudgetUse("quiet", 0.0, 0, 0) == uses.of("quiet", NOW)
    item = {"pk": {"S": "shop"}, "sk": {"S": str(NOW // 3600)}, "refused_events": {"N": "1"}}
    dynamodb.put_item(TableName="counters", Item=item)
    with pytest.raises(InvalidObjectError):
        uses.all(NOW)
