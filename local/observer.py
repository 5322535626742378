"""Observes the local stack from outside: reads the stream, the ledger, the bucket and the queue.

It does not ask the functions, so it also shows what they are unaware of.
"""

import json
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from itertools import takewhile
from typing import Any
from urllib.request import ProxyHandler, build_opener

from botocore.exceptions import BotoCoreError, ClientError

from local.part import Part
from local.stack import LocalStack
from ops import answers
from ops.accounting import row_count
from ops.look import Look
from ops.set_aside import chunks
from ops.stack import described
from ops.verdict import Verdict, verdicts
from shared.clock import SystemClock
from shared.errors import UnavailableError
from shared.telemetry import NullTelemetry
from worker.chain import ChainId
from worker.delivery import ASIDE
from worker.ledger import Ledger
from worker.record import START, Number, number
from worker.selection import Selection
from worker.shards import Position, Shards

_READ_SECONDS = 10.0
_ROWS_SHOWN = 60
_LOOK_SECONDS = 2.0
_DIRECT = build_opener(ProxyHandler({}))  # never use a proxy for loopback


@dataclass(slots=True)
class _Shard:
    """What is known of one shard.

    Attributes:
        chain: its chain in the ledger.
        records: number of records put on it.
        rows: number of rows in these records.
        read: sequence number of the last record read.
        waiting: sequence number and arrival time (UNIX seconds) of each record after the last settled span.
        settled: last sequence number of the settled spans at the start of the chain.
        spans: number of settled spans at the start of the chain.
        open: number of spans that are not settled.
    """

    chain: ChainId
    records: int = 0
    rows: int = 0
    read: Number = START
    waiting: deque[tuple[Number, float]] = field(default_factory=deque)
    settled: Number = START
    spans: int = 0
    open: int = 0


class Observer:
    """Observes a running stack. Threads may share it.

    Args:
        stack: the stack.
        outages: returns the outages that were ordered, with the seconds that are left of each.
    """

    def __init__(self, stack: LocalStack, outages: Callable[[], Mapping[str, float]] = dict) -> None:
        resources = stack.resources
        self._outages = outages
        self._look = Look(described(stack.describe()))
        self._said: tuple[float, list[Verdict]] = (0.0, [])
        self._stack = stack
        self._resources = resources
        self._sqs = resources.client("sqs")
        clock = SystemClock()
        self._stream = Shards(resources.client("kinesis"), resources.stream, clock)
        self._ledger = Ledger(
            resources.client("dynamodb"),
            resources.ledger_table,
            clock=clock,
            entropy=os.urandom,
            telemetry=NullTelemetry(),
        )
        self._shards: dict[str, _Shard] = {}
        self._lock = threading.Lock()

    def in_flight(self) -> dict[str, int]:
        """Return how many records, messages and spans are in flight, by kind."""
        with self._lock:
            self._update()
            return {
                "records on the stream": sum(len(shard.waiting) for shard in self._shards.values()),
                "open spans": sum(shard.open for shard in self._shards.values()),
                "messages in the queue": self._queued(),
            }

    def page_state(self, parameters: Mapping[str, str]) -> dict[str, Any]:
        """Return the state for the page's parameters."""
        after = parameters.get("after", "")
        return self.state(int(after) if after.isdecimal() else 0)

    def state(self, after: int) -> dict[str, Any]:
        """Return what the page displays, as JSON values.

        While a part is down, it is all that is told.

        Args:
            after: number of the last row that the page has already.
        """
        parts = {"parts": [_described(part) for part in self._stack.parts], "outages": dict(self._outages())}
        try:
            return self._state(after) | parts
        except (OSError, BotoCoreError, ClientError, UnavailableError) as error:
            return parts | {"error": type(error).__name__}

    def _state(self, after: int) -> dict[str, Any]:
        with self._lock:
            self._update()
            shards = list(self._shards.values())
        now = time.time()
        tables = self._get("/-/counts")
        aside = self._set_aside()
        accepted = sum(shard.rows for shard in shards)
        delivered = sum(rows for database in tables.values() for rows in database.values())
        set_aside = sum(chunk["rows"] for chunk in aside)
        return {
            "accepted": accepted,
            "delivered": delivered,
            "aside": set_aside,
            "in_flight": max(0, accepted - delivered - set_aside),
            "shards": [_displayed(shard, now) for shard in shards],
            "spans": {
                "done": sum(shard.spans for shard in shards),
                "open": sum(shard.open for shard in shards),
            },
            "aside_chunks": aside,
            "queue": self._queued(),
            "tables": [
                {"database": database, "table": table, "rows": rows}
                for database, counts in sorted(tables.items())
                for table, rows in sorted(counts.items())
            ],
            "latest": self._get(f"/-/rows?after={after}&limit={_ROWS_SHOWN}")["rows"],
            "verdicts": [asdict(verdict) | {"line": verdict.line} for verdict in self._verdicts()],
            "refused": dict(answers.read(self._stack.folder).refused),
            "addresses": {
                "Gateway": self._stack.addresses.gateway,
                "Treasure Data": self._stack.addresses.treasure_data,
                "AWS": self._stack.addresses.aws,
                "Valkey": self._stack.addresses.redis,
            },
        }

    def _verdicts(self) -> list[Verdict]:
        """Return what `sluice status` would say, as it was a moment ago."""
        with self._lock:
            at, said = self._said
            if time.monotonic() - at > _LOOK_SECONDS:
                said = verdicts(self._look.state(None, None, balanced=False), "--local")
                self._said = time.monotonic(), said
        return said

    def _update(self) -> None:
        for listed in self._stream.all():
            name = listed.shard_id
            if name not in self._shards:
                self._shards[name] = _Shard(self._stream.chain(name))
            self._read(self._shards[name])
            self._settle(self._shards[name])

    def _read(self, shard: _Shard) -> None:
        for page in filter(None, self._stream.pages(shard.chain.shard, Position(after=shard.read))):
            for record in page.records:
                shard.records += 1
                shard.rows += row_count(record["Data"])
                shard.read = number(record["SequenceNumber"])
                shard.waiting.append((shard.read, record["ApproximateArrivalTimestamp"].timestamp()))
            if page.at_tip:
                break

    def _settle(self, shard: _Shard) -> None:
        """Read the chain after the spans that are known to be settled."""
        spans = list(takewhile(lambda span: span.after >= shard.settled, self._ledger.latest(shard.chain)))
        shard.open = sum(not span.done for span in spans)
        for span in reversed(spans):
            if not span.done:
                break
            shard.spans += 1
            shard.settled = span.last
        while shard.waiting and shard.waiting[0][0] <= shard.settled:
            shard.waiting.popleft()

    def _set_aside(self) -> list[dict[str, Any]]:
        """Return the set-aside rows by kind, reason, account and table."""
        rows: Counter[tuple[str, str, str]] = Counter()
        for one in chunks(self._ledger, Selection(tuple(ASIDE))):
            what = f"{one.key.account}/{one.key.group.label}"
            rows[one.entry.state.value.replace("_", " "), one.entry.reason, what] += one.entry.rows
        return [
            {"kind": kind, "reason": reason, "what": what, "rows": count}
            for (kind, reason, what), count in sorted(rows.items())
        ]

    def _queued(self) -> int:
        names = (
            "ApproximateNumberOfMessages",
            "ApproximateNumberOfMessagesDelayed",
            "ApproximateNumberOfMessagesNotVisible",
        )
        answer = self._sqs.get_queue_attributes(
            QueueUrl=self._resources.queue_url, AttributeNames=list(names)
        )
        return sum(int(answer["Attributes"].get(name, 0)) for name in names)

    def _get(self, target: str) -> Any:
        with _DIRECT.open(f"{self._stack.addresses.treasure_data}{target}", timeout=_READ_SECONDS) as answer:
            return json.load(answer)


def _described(part: Part) -> dict[str, Any]:
    return {
        "name": part.name,
        "running": part.running,
        "paused": part.is_paused,
        "restarts": part.restarts,
        "ended": part.ended,
    }


def _displayed(shard: _Shard, now: float) -> Mapping[str, Any]:
    oldest = now - shard.waiting[0][1] if shard.waiting else 0.0
    return {
        "id": shard.chain.shard,
        "records": shard.records,
        "rows": shard.rows,
        "waiting": len(shard.waiting),
        "oldest_seconds": max(0.0, oldest),
    }
