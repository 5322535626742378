"""Observes the local stack from outside: reads the stream, the ledger, the bucket and the queue.

It does not ask the functions, so it also shows what they are unaware of.
"""

import json
import os
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.request import ProxyHandler, build_opener

from botocore.exceptions import BotoCoreError, ClientError

from local.part import Part
from local.stack import LocalStack
from ops.books.accounting import row_count
from ops.books.chunks import chunks
from ops.logs import answers
from shared.clock import SystemClock
from shared.errors import UnavailableError
from shared.telemetry import NullTelemetry
from worker.chain import ChainId
from worker.ledger import Ledger
from worker.record import START, Number, number
from worker.selection import Selection
from worker.shards import Position, Shards
from worker.states import UNSETTLED, State

if TYPE_CHECKING:
    from mypy_boto3_sqs.literals import QueueAttributeNameType

_READ_SECONDS = 10.0
_DIRECT = build_opener(ProxyHandler({}))  # never use a proxy for loopback


@dataclass(slots=True)
class _Shard:
    """What is known of one shard.

    Attributes:
        chain: its chain in the ledger.
        rows: number of rows in the records put on it.
        read: sequence number of the last record read.
        waiting: sequence number of each record after the last span.
    """

    chain: ChainId
    rows: int = 0
    read: Number = START
    waiting: deque[Number] = field(default_factory=deque)


class Observer:
    """Observes a running stack. Threads may share it.

    Args:
        stack: the stack.
        outages: returns the outages in progress, with the seconds left of each.
    """

    def __init__(self, stack: LocalStack, outages: Callable[[], Mapping[str, float]] = dict) -> None:
        resources = stack.resources
        self._outages = outages
        self._stack = stack
        self._resources = resources
        self._sqs = resources.client("sqs")
        clock = SystemClock()
        self._stream = Shards(resources.client("kinesis"), resources.stream, clock)
        self._ledger = Ledger(
            resources.client("dynamodb"), resources.ledger_table, clock, os.urandom, NullTelemetry()
        )
        self._shards: dict[str, _Shard] = {}
        self._lock = threading.Lock()

    def in_flight(self) -> dict[str, int]:
        """Return how many records and messages are in flight, by kind."""
        with self._lock:
            self._update()
            return {
                "records on the stream": sum(len(shard.waiting) for shard in self._shards.values()),
                "messages in the queue": self._queued(),
            }

    def state(self) -> dict[str, Any]:
        """Return what the page shows only for a local stack, as JSON values.

        The counts of events by state are left out while a part is down.
        """
        addresses = self._stack.addresses
        told: dict[str, Any] = {
            "parts": [_described(part) for part in self._stack.parts],
            "outages": dict(self._outages()),
            "refused": dict(answers.read(self._stack.folder).refused),
            "addresses": {
                "Gateway": addresses.gateway,
                "Treasure Data": addresses.treasure_data,
                "AWS": addresses.aws,
                "Valkey": addresses.redis,
            },
        }
        try:
            return told | {"flow": self._flow()}
        except (OSError, BotoCoreError, ClientError, UnavailableError):
            return told

    def _flow(self) -> dict[str, int]:
        """Return the number of events by state, counted on the stream, in Treasure Data and in the ledger."""
        with self._lock:
            self._update()
            accepted = sum(shard.rows for shard in self._shards.values())
        delivered = sum(rows for tables in self._get("/-/counts").values() for rows in tables.values())
        waiting = dead = 0
        for one in chunks(self._ledger, Selection((*UNSETTLED, State.DEAD))):
            if one.entry.state is State.DEAD:
                dead += one.rows
            elif one.span.settled:
                waiting += one.rows
        in_flight = max(0, accepted - delivered - waiting - dead)
        return {
            "accepted": accepted,
            "in_flight": in_flight,
            "delivered": delivered,
            "waiting": waiting,
            "dead": dead,
        }

    def _update(self) -> None:
        for listed in self._stream.all():
            name = listed.shard_id
            if name not in self._shards:
                self._shards[name] = _Shard(self._stream.chain(name))
            self._read(self._shards[name])
            self._plan(self._shards[name])

    def _read(self, shard: _Shard) -> None:
        for page in filter(None, self._stream.pages(shard.chain.shard, Position(after=shard.read))):
            for record in page.records:
                shard.rows += row_count(record["Data"])
                shard.read = number(record["SequenceNumber"])
                shard.waiting.append(shard.read)
            if page.at_tip:
                break

    def _plan(self, shard: _Shard) -> None:
        """Drop the records up to the end of the chain."""
        end = self._ledger.end(shard.chain)
        while shard.waiting and end is not None and shard.waiting[0] <= end.last:
            shard.waiting.popleft()

    def _queued(self) -> int:
        names: Sequence[QueueAttributeNameType] = (
            "ApproximateNumberOfMessages",
            "ApproximateNumberOfMessagesDelayed",
            "ApproximateNumberOfMessagesNotVisible",
        )
        answer = self._sqs.get_queue_attributes(
            QueueUrl=self._resources.queue_url, AttributeNames=list(names)
        )
        return sum(int(answer["Attributes"].get(name, "0")) for name in names)

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
