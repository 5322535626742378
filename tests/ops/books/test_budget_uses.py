"""What accounts have spent of their budgets, read back from the counters that the ingest writes."""

import pytest

from doubles.clock import ManualClock
from doubles.dynamodb import MemoryDynamoDB
from local.resources import COUNTERS
from ops.books.budget_uses import BudgetUse, BudgetUses
from shared.counters import Counters, Spent
from shared.errors import InvalidObjectError

NOW = 1_764_000_000 // 3600 * 3600
MINUTE = NOW // 60 - 1


class Counted:
    """A table of counters, read in pages of two items."""

    def __init__(self) -> None:
        clock = ManualClock(NOW)
        self.dynamodb = MemoryDynamoDB(clock.now, page_items=2)
        self.dynamodb.create_table(TableName="counters", **COUNTERS)
        self.spending = BudgetUses(self.dynamodb, "counters")  # type: ignore[arg-type]  # a double with the client's methods

    def add(self, account: str, minute: int, *, refused: int = 0, events: int = 0, small: float = 0) -> None:
        """Count as the ingest does."""
        counters = Counters(minute, Spent(small, 6), refused, events)
        self.dynamodb.update_item(**counters.update("counters", account))


def test_a_days_refusals_and_the_last_minutes_spending_are_read() -> None:
    """A day has many items of an account; older ones and other minutes do not count. One that somebody else has written is an error."""
    made = Counted()
    for hour in range(48):
        made.add("shop", MINUTE - 60 * hour, refused=1, events=10)
    made.add("shop", MINUTE, small=24)
    made.add("news", MINUTE - 5, refused=2, events=2)

    shop = BudgetUse("shop", (6 + 6 + 24) / 60, 24, 240)
    assert [BudgetUse("news", 0.0, 2, 2), shop] == made.spending.all(NOW)
    assert shop == made.spending.of("shop", NOW)
    assert BudgetUse("quiet", 0.0, 0, 0) == made.spending.of("quiet", NOW)
    item = {"pk": {"S": "shop"}, "sk": {"S": str(NOW // 3600)}, "refused_events": {"N": "1"}}
    made.dynamodb.put_item(TableName="counters", Item=item)
    with pytest.raises(InvalidObjectError):
        made.spending.all(NOW)
