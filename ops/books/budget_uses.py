"""What accounts have spent of their budgets, and what was refused above them, from the ingest's counters.

The counters have only accounts that spend much. What was refused is a lower bound.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shared.counters import spent_in
from shared.errors import InvalidObjectError

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

DAY_SECONDS = 86_400
_HOUR_SECONDS, _MINUTE_SECONDS = 3600, 60


@dataclass(frozen=True, slots=True)
class BudgetUse:
    """What one account has spent: the share of its budget in the last whole minute, where 1 is all, and what was refused in a day, at least."""

    account: str
    spent: float
    refused_requests: int
    refused_events: int


@dataclass(frozen=True, slots=True)
class BudgetUses:
    """The counters of one stack."""

    dynamodb: "DynamoDBClient"
    table: str

    def all(self, now: float) -> list[BudgetUse]:
        """Return the accounts that have spent much within a day before `now` (UNIX seconds), by name."""
        items = self._pages(
            self.dynamodb.scan,
            FilterExpression="sk >= :since",
            ExpressionAttributeValues={":since": {"S": _since(now)}},
        )
        return list(_uses(items, now))

    def of(self, account: str, now: float) -> BudgetUse:
        """Return what one account has spent within a day before `now` (UNIX seconds)."""
        items = self._pages(
            self.dynamodb.query,
            KeyConditionExpression="pk = :account AND sk >= :since",
            ExpressionAttributeValues={":account": {"S": account}, ":since": {"S": _since(now)}},
        )
        return next(_uses(items, now), BudgetUse(account, 0.0, 0, 0))

    def _pages(self, read: Callable[..., Any], **request: Any) -> Iterator[Mapping[str, Any]]:
        while True:
            answer = read(TableName=self.table, **request)
            yield from answer["Items"]
            if "LastEvaluatedKey" not in answer:
                return
            request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]


def _since(now: float) -> str:
    return str(int(now - DAY_SECONDS) // _HOUR_SECONDS)


def _uses(items: Iterable[Mapping[str, Any]], now: float) -> Iterator[BudgetUse]:
    """Yield what the items say, by account."""
    minute = int(now) // _MINUTE_SECONDS - 1
    found: dict[str, tuple[float, int, int]] = {}
    try:
        for item in items:
            spent, requests, events = found.get(item["pk"]["S"], (0.0, 0, 0))
            found[item["pk"]["S"]] = (
                spent + sum(spent_in(item, minute)) / _MINUTE_SECONDS,
                requests + int(item["refused_requests"]["N"]),
                events + int(item["refused_events"]["N"]),
            )
    except (KeyError, ValueError) as error:
        raise InvalidObjectError("the table of counters has an item that is not one") from error
    for account, use in sorted(found.items()):
        yield BudgetUse(account, *use)
