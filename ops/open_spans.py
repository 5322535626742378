"""Spans that were planned long ago and are not settled: what a replay left that was broken off, or what is held for long."""

import re
import shlex
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from shared.clock import Clock
from worker.forced import FORCED
from worker.record import sequence_number
from worker.span import Span, State

LEFT_SECONDS = 900.0
"""A span that is open for longer is no longer being worked on: several invocations have ended since."""
MOST = 100
"""More are not listed."""

_CHAIN = re.compile(
    rf"(?P<root>.+?@\d+#(?P<shard>[^#]+))(?:{FORCED}(?P<tag>[^/]+)/(?P<account>[^/]+)/(?P<table>[^/#]+))?(?:#.*)?"
)


@dataclass(frozen=True, slots=True)
class OpenSpan:
    """A span that is not settled.

    Attributes:
        root: the chain of its shard.
        shard: its shard.
        planned_at: UNIX seconds.
        rows: that are neither delivered nor set aside.
        first: sequence number of its first record.
        last: sequence number of its last record.
        tag: of the forced replay that planned it; empty for any other.
        account: that the forced replay concerns alone, or empty.
        table: likewise.
    """

    root: str
    shard: str
    planned_at: float
    rows: int
    first: str
    last: str
    tag: str = ""
    account: str = ""
    table: str = ""

    @classmethod
    def of(cls, span: Span) -> "OpenSpan | None":
        """Return what is to be known of a span; None where its chain is no shard's."""
        named = _CHAIN.fullmatch(span.chain)
        if named is None:
            return None
        settled = sum(
            entry.rows
            for entry in span.chunks.values()
            if entry.state is not State.PENDING and not entry.split
        )
        return cls(
            named["root"],
            named["shard"],
            span.planned_at / 1000,
            sum(span.counts.values()) - settled,
            sequence_number(span.first),
            sequence_number(span.last),
            named["tag"] or "",
            (named["account"] or "").replace("*", ""),
            (named["table"] or "").replace("*", ""),
        )

    def command(self, option: str) -> str:
        """Return the command line that settles it.

        Args:
            option: names the stack.
        """
        words = ["sluice", "replay", *option.split(), "--shard", self.shard]
        words += ["--from", self.first, "--to", self.last]
        if self.tag:
            words += ["--force", "--tag", self.tag]
            words += ["--account", self.account] if self.account else []
            words += ["--table", self.table] if self.table else []
        return shlex.join(words)


@dataclass(frozen=True, slots=True)
class Found:
    """Open spans, the oldest first; `is_complete` tells whether the whole ledger was looked through."""

    spans: tuple[OpenSpan, ...] = ()
    is_complete: bool = True


def find(
    dynamodb: Any, table: str, clock: Clock, *, seconds: float, beside: Collection[tuple[str, str]] = ()
) -> Found:
    """Look the ledger through for spans that have been open for long; one read unit per 8 KB.

    Args:
        dynamodb: a boto3-shaped client.
        table: the ledger's.
        clock: tells the time.
        seconds: for how long, at most.
        beside: chain and `after` of those that are known already.

    Raises:
        ClientError: DynamoDB refuses.
        BotoCoreError: it cannot be reached.
    """
    now = clock.now()
    request: dict[str, Any] = {
        "FilterExpression": "st = :open AND #at < :before",
        "ExpressionAttributeNames": {"#at": "at"},
        "ExpressionAttributeValues": {
            ":open": {"S": "open"},
            ":before": {"N": str(round((now - LEFT_SECONDS) * 1000))},
        },
    }
    found: list[OpenSpan] = []
    while True:
        page = dynamodb.scan(TableName=table, **request)
        for item in page["Items"]:
            if "g" in item and (item["pk"]["S"], item["sk"]["S"]) not in beside:  # a breaker is open too
                found += filter(None, [OpenSpan.of(Span.from_item(item))])
        is_complete = "LastEvaluatedKey" not in page
        if is_complete or len(found) >= MOST or clock.now() - now >= seconds:
            return Found(tuple(sorted(found, key=lambda span: span.planned_at)[:MOST]), is_complete)
        request["ExclusiveStartKey"] = page["LastEvaluatedKey"]
