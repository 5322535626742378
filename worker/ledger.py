"""The ledger: what is planned, by whom, and what came of it, in one DynamoDB table (`pk`, `sk`, `ttl`).

    pk = chain, sk = after    a span, appended to its chain by one conditional put
    pk = put#<request id>     the one record on the stream whose rows count, of an envelope that may stand there twice
    pk = breakers, sk = name  a database found sick

Every write names its writer. DynamoDB's client may repeat a write whose answer was lost, and the repetition is then
refused because of the first: the writer's name on the item that stands there tells that it is our own.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from shared import errors
from shared.clock import Clock
from worker.journal import Journal
from worker.record import Number
from worker.span import SECONDS_KEPT, Span

_BREAKERS = "breakers"
_BREAKER_SECONDS_KEPT = 30 * 86_400


class LedgerUnavailableError(errors.LedgerUnavailableError):
    """The ledger cannot be reached: nothing may be sent, everything is held."""


@dataclass(frozen=True, slots=True)
class OpenBreaker:
    """A database found sick: its name, since when (UNIX milliseconds) and why."""

    database: str
    since: int
    reason: str


class Ledger:
    """Reads and writes the ledger.

    Args:
        dynamodb: a boto3 client.
        table: its table's name.
        clock: tells when items may be forgotten.
        entropy: returns that many random bytes, to name writers.
        journal: counts failures.
    """

    def __init__(
        self, dynamodb: Any, table: str, clock: Clock, entropy: Callable[[int], bytes], journal: Journal
    ) -> None:
        self._dynamodb = dynamodb
        self._table = table
        self._clock = clock
        self._entropy = entropy
        self._journal = journal

    def preceding(self, chain: str, number: Number) -> Span | None:
        """Return the chain's last span that begins to stand before `number`: the one whose `after` is below it."""
        answer = self._call(
            self._dynamodb.query,
            KeyConditionExpression="pk = :pk AND sk < :sk",
            ExpressionAttributeValues={":pk": {"S": chain}, ":sk": {"S": number}},
            ScanIndexForward=False,
            Limit=1,
            ConsistentRead=True,
        )
        return Span.from_item(answer["Items"][0]) if answer["Items"] else None

    def get(self, chain: str, after: Number) -> Span | None:
        """Return a span; None when there is none."""
        answer = self._call(
            self._dynamodb.get_item, Key={"pk": {"S": chain}, "sk": {"S": after}}, ConsistentRead=True
        )
        return Span.from_item(answer["Item"]) if "Item" in answer else None

    def append(self, span: Span) -> tuple[bool, Span]:
        """Append a span to its chain unless another follows there already; the exclusion on which all rests.

        Returns:
            Whether it is ours that stands there now, and what stands there.
        """
        span = replace(span, version=1, writer=self._writer())
        standing = self._write(
            self._dynamodb.put_item, Item=span.to_item(), ConditionExpression="attribute_not_exists(sk)"
        )
        if standing is None:
            return True, span
        found = Span.from_item(standing)
        return found.writer == span.writer, found

    def update(self, span: Span) -> tuple[bool, Span]:
        """Write what became of the span's chunks, unless someone has written since `span` was read.

        Returns:
            Whether it was written, and what stands there now.

        Raises:
            LedgerUnavailableError: the ledger cannot be reached, or the span has gone.
        """
        written = replace(span, version=span.version + 1, writer=self._writer())
        assignments = "SET v = :next, w = :writer, st = :state, x = :chunks"
        names: dict[str, Any] = {}
        values = {
            ":version": {"N": str(span.version)},
            ":next": {"N": str(written.version)},
            ":writer": {"S": written.writer},
            ":state": {"S": "done" if span.done else "open"},
            ":chunks": span.chunks_item(),
        }
        if span.done and not span.chunks:
            assignments += ", #ttl = :ttl"
            names = {"ExpressionAttributeNames": {"#ttl": "ttl"}}
            values[":ttl"] = {"N": str(self._expiry(SECONDS_KEPT))}
        standing = self._write(
            self._dynamodb.update_item,
            Key={"pk": {"S": span.chain}, "sk": {"S": span.after}},
            UpdateExpression=assignments,
            ConditionExpression="v = :version",
            ExpressionAttributeValues=values,
            **names,
        )
        if standing is None:
            return True, written
        if not standing:
            raise LedgerUnavailableError("the span has gone from the ledger")
        found = Span.from_item(standing)
        return found.writer == written.writer, found

    def claim(self, request_id: str, owner: str) -> bool:
        """Tell whether `owner`, a record, is the one whose rows count of all that carry this envelope; for good."""
        standing = self._write(
            self._dynamodb.put_item,
            Item={
                "pk": {"S": f"put#{request_id}"},
                "sk": {"S": "-"},
                "owner": {"S": owner},
                "ttl": {"N": str(self._expiry(SECONDS_KEPT))},
            },
            ConditionExpression="attribute_not_exists(pk) OR #owner = :owner",
            ExpressionAttributeNames={"#owner": "owner"},
            ExpressionAttributeValues={":owner": {"S": owner}},
        )
        return standing is None

    def open_breaker(self, database: str, reason: str) -> None:
        """Note that a database is sick."""
        self._put_breaker(database, reason, is_open=True)

    def close_breaker(self, database: str) -> None:
        """Note that a database is well again."""
        self._put_breaker(database, "", is_open=False)

    def breakers(self) -> Iterator[OpenBreaker]:
        """Yield all breakers that are open."""
        start: dict[str, Any] = {}
        while True:
            answer = self._call(
                self._dynamodb.query,
                KeyConditionExpression="pk = :pk",
                ExpressionAttributeValues={":pk": {"S": _BREAKERS}},
                ConsistentRead=True,
                **start,
            )
            for item in answer["Items"]:
                breaker = _breaker(item)
                if breaker is not None:
                    yield breaker
            if "LastEvaluatedKey" not in answer:
                return
            start = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}

    def _put_breaker(self, database: str, reason: str, *, is_open: bool) -> None:
        item = {
            "pk": {"S": _BREAKERS},
            "sk": {"S": database},
            "at": {"N": str(round(self._clock.now() * 1000))},
            "why": {"S": reason},
            "st": {"S": "open" if is_open else "closed"},
        }
        if not is_open:
            item["ttl"] = {"N": str(self._expiry(_BREAKER_SECONDS_KEPT))}
        self._call(self._dynamodb.put_item, Item=item)

    def _writer(self) -> str:
        return self._entropy(8).hex()

    def _expiry(self, seconds: int) -> int:
        return int(self._clock.now()) + seconds

    def _write(self, call: Callable[..., Any], **arguments: Any) -> dict[str, Any] | None:
        """Return None when it was written, else the item that stands there; empty when there is none."""
        try:
            call(TableName=self._table, ReturnValuesOnConditionCheckFailure="ALL_OLD", **arguments)
        except ClientError as error:
            if error.response["Error"]["Code"] != "ConditionalCheckFailedException":
                raise self._unavailable(error) from error
            standing: dict[str, Any] = error.response.get("Item", {})  # type: ignore[assignment]  # botocore's type lacks it
            return standing
        except BotoCoreError as error:
            raise self._unavailable(error) from error
        return None

    def _call(self, call: Callable[..., Any], **arguments: Any) -> Any:
        try:
            return call(TableName=self._table, **arguments)
        except (ClientError, BotoCoreError) as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: Exception) -> LedgerUnavailableError:
        self._journal.count("LedgerErrors")
        return LedgerUnavailableError(str(error))


def _breaker(item: dict[str, Any]) -> OpenBreaker | None:
    if item["st"]["S"] != "open":
        return None
    return OpenBreaker(item["sk"]["S"], int(item["at"]["N"]), item["why"]["S"])
