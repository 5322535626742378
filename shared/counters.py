"""What accounts have spent of their budgets, as the ingest counts it in DynamoDB.

One item for an account and an hour: `pk`, `sk` (hours since 1970, as text), `s0` to `s59` and `l0` to `l59` (what small and large requests
spent in each minute, in microseconds of the budget), `refused_requests`, `refused_events`, and `expires` (UNIX seconds). Accounts that
are far below their budget have no items.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

KEEP_SECONDS = 35 * 86_400
"""How long an item is kept, for the numbers of refused requests."""

_MINUTES = 60


class Spent(NamedTuple):
    """What small and large requests have spent, in seconds of the budget."""

    small: float
    large: float


class Counters(NamedTuple):
    """What is added to an account's counters.

    Attributes:
        minute: the minute of it, since 1970.
        spent: what requests have spent.
        refused_requests: how many requests were refused.
        refused_events: how many events those had, at least.
    """

    minute: int
    spent: Spent
    refused_requests: int = 0
    refused_events: int = 0

    def update(self, table: str, account: str) -> dict[str, Any]:
        """Return the arguments of the `UpdateItem` that adds them. Its response has the totals of this minute and the last."""
        hour, minute = divmod(self.minute, _MINUTES)
        added = {
            f"s{minute}": round(self.spent.small * 1e6),
            f"l{minute}": round(self.spent.large * 1e6),
            "refused_requests": self.refused_requests,
            "refused_events": self.refused_events,
        }
        if minute:
            added |= {f"s{minute - 1}": 0, f"l{minute - 1}": 0}  # only to have their totals in the response
        values = {f":{name}": {"N": str(number)} for name, number in added.items()}
        return {
            "TableName": table,
            "Key": {"pk": {"S": account}, "sk": {"S": str(hour)}},
            "UpdateExpression": f"ADD {', '.join([f'{name} :{name}' for name in added])} SET expires = :expires",
            "ExpressionAttributeValues": values
            | {":expires": {"N": str(self.minute * _MINUTES + KEEP_SECONDS)}},
            "ReturnValues": "UPDATED_NEW",
        }


def totals(answer: Mapping[str, Any], minute: int) -> tuple[Spent, Spent | None]:
    """Return what was spent in a minute and in the one before it, by the response to an update.

    The latter is None in the first minute of an hour: another item has it.

    Raises:
        ValueError: the response is not one to `Counters.update`.
    """
    try:
        attributes = answer["Attributes"]
        this, last = _spent(attributes, minute % _MINUTES), None
        if minute % _MINUTES:
            last = _spent(attributes, minute % _MINUTES - 1)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError("not the response to an update of counters") from error
    return this, last


def spent_in(item: Mapping[str, Any], minute: int) -> Spent:
    """Return what an item says was spent in a minute since 1970; nothing if the item is of another hour.

    Raises:
        KeyError, ValueError: the item is not one of counters.
    """
    hour, minute = divmod(minute, _MINUTES)
    if item["sk"]["S"] != str(hour):
        return Spent(0.0, 0.0)
    small, large = (int(item.get(f"{kind}{minute}", {"N": "0"})["N"]) / 1e6 for kind in "sl")
    return Spent(small, large)


def _spent(attributes: Mapping[str, Any], minute: int) -> Spent:
    small, large = (int(attributes[f"{kind}{minute}"]["N"]) / 1e6 for kind in "sl")
    if small < 0 or large < 0:
        raise ValueError("negative")
    return Spent(small, large)
