"""The events that the local stack has received, good and bad, for end-to-end tests of a site.

Good events were accepted. They are read from the stream on request, so a client that has a 2xx finds its events. Bad ones were
refused or rejected.
"""

import json
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from operator import attrgetter
from pathlib import Path
from typing import Any

from local.bad import FILE
from ops.console.server import Data, Doing, RefusedError
from ops.events.seen_event import Kind, SeenEvent, events_of, text_of
from ops.stream.readable_shards import Position, ReadableShards, from_stream
from shared.clock import Clock
from shared.errors import UnavailableError
from worker.record import START, Number

MOST_EVENTS = 10_000
"""The most events of each kind to keep. Beyond that, the oldest are dropped."""
MOST_WAIT_SECONDS = 30.0
WAIT_SECONDS = 5.0
"""How long a query with `count` waits by default."""

_AGAIN_SECONDS = 0.1
_PARAMETERS = frozenset(("account", "table", "code", "match", "count", "wait"))


class Received:
    """The good and bad events since the last reset. Threads may share it.

    Args:
        shards: the stream.
        folder: the local stack's folder.
        clock: waits for events.
    """

    def __init__(self, shards: ReadableShards, folder: Path, clock: Clock) -> None:
        self._shards = shards
        self._file = folder / FILE
        self._clock = clock
        self._lock = threading.Lock()
        self._read: dict[str, Number] = {}
        self._requests: set[str] = set()
        self._offset = 0
        self._good: deque[dict[str, Any]] = deque(maxlen=MOST_EVENTS)
        self._bad: deque[dict[str, Any]] = deque(maxlen=MOST_EVENTS)

    def data(self) -> Data:
        """Return the queries, by path."""
        return {
            "/good": lambda asked: self._matching(asked, self.good),
            "/bad": lambda asked: self._matching(asked, self.bad),
        }

    def actions(self) -> Doing:
        """Return the actions, by path."""
        return {"/reset": lambda _: self.reset()}

    def good(self) -> list[dict[str, Any]]:
        """Return the accepted events, oldest first.

        Raises:
            ShardUnreadableError: the stream is down.
        """
        with self._lock:
            new: list[SeenEvent] = []
            try:
                for shard in self._shards.all():
                    for seen in self._read_shard(shard.shard_id):
                        new.append(seen)  # noqa: PERF402 -- what was read before an error is kept
            finally:
                self._good.extend(map(_good, sorted(new, key=attrgetter("at"))))
            return list(self._good)

    def bad(self) -> list[dict[str, Any]]:
        """Return the rejected events and refused requests, oldest first."""
        with self._lock:
            try:
                with self._file.open("rb") as file:
                    file.seek(self._offset)
                    lines = file.read()
            except FileNotFoundError:
                lines = b""
            complete = lines[: lines.rfind(b"\n") + 1]
            self._offset += len(complete)
            self._bad.extend(json.loads(line) for line in complete.splitlines())
            return list(self._bad)

    def reset(self) -> dict[str, int]:
        """Forget everything so far; return how many there were of each kind.

        Raises:
            RefusedError: the stream is down.
        """
        try:
            counts = {"good": len(self.good()), "bad": len(self.bad())}
        except UnavailableError as error:
            raise _down(error) from error
        with self._lock:
            self._good.clear()
            self._bad.clear()
        return counts

    def _read_shard(self, shard: str) -> Iterator[SeenEvent]:
        """Yield the events of the new records. If an envelope is there twice, only the first copy counts."""
        position = Position(after=self._read[shard]) if shard in self._read else Position()
        for page in self._shards.pages(shard, position):
            for record in from_stream(page.records, shard):
                if record.number <= self._read.get(shard, START):
                    continue
                self._read[shard] = record.number
                if record.request_id and record.request_id in self._requests:
                    continue
                self._requests.add(record.request_id)
                yield from (one for one in events_of(record, shard) if one.kind is Kind.EVENT)

    def _matching(self, asked: Mapping[str, str], get: Callable[[], list[dict[str, Any]]]) -> dict[str, Any]:
        """Return the events that match a query, once there are `count` of them or the wait is over.

        Raises:
            RefusedError: the query is invalid, or the stream is down.
        """
        if unknown := sorted(asked.keys() - _PARAMETERS):
            known = ", ".join(sorted(_PARAMETERS))
            raise RefusedError(400, f"unknown parameter {unknown[0]!r}: the parameters are {known}")
        if "=" not in asked.get("match", "="):
            raise RefusedError(400, "match must be COLUMN=VALUE, such as order_id=4711")
        count = _number(asked, "count", 0.0)
        until = self._clock.now() + min(
            MOST_WAIT_SECONDS, _number(asked, "wait", WAIT_SECONDS if count else 0.0)
        )
        while True:
            try:
                found = [event for event in get() if _has(event, asked)]
            except UnavailableError as error:
                raise _down(error) from error
            if len(found) >= count or self._clock.now() >= until:
                return {"count": len(found), "events": found}
            self._clock.sleep(_AGAIN_SECONDS)


def _good(seen: SeenEvent) -> dict[str, Any]:
    return {
        "account": seen.account,
        "table": seen.table,
        "key_id": seen.key_id,
        "event_id": seen.event_id,
        "request_id": seen.request_id,
        "row": dict(seen.row),
    }


def _has(event: Mapping[str, Any], asked: Mapping[str, str]) -> bool:
    """Return whether an event matches a query."""
    column, _, value = asked.get("match", "").partition("=")
    values = event.get("row", event.get("original"))
    is_match = not column or (
        isinstance(values, dict) and column in values and text_of(values[column]) == value
    )
    named = ("account", "table", "code")
    return is_match and all(asked[name] == event.get(name) for name in named if name in asked)


def _number(asked: Mapping[str, str], name: str, otherwise: float) -> float:
    try:
        found = float(asked.get(name, otherwise))
    except ValueError:
        found = -1.0
    if not 0 <= found < float("inf"):
        raise RefusedError(400, f"{name} must be a number, 0 or more")
    return found


def _down(error: UnavailableError) -> RefusedError:
    return RefusedError(503, f"the local stack's stream does not answer: {error}")
