"""What `sluice find` looks for."""

import json
from collections.abc import Collection
from dataclasses import dataclass
from uuid import UUID

from ops.events.seen_event import EventFilter, SeenEvent
from shared.envelope import request_of

INACCURACY_SECONDS = 300.0
"""How far off arrival times, and the clocks of clients that make ids, may be."""


@dataclass(frozen=True, slots=True)
class EventQuery(EventFilter):
    """A filter that also selects by id, if it has any: event ids, or request ids, with or without `#` and the number of an envelope."""

    ids: frozenset[str] = frozenset()

    def is_about(self, seen: SeenEvent) -> bool:
        """Return whether the query selects an event."""
        is_known = not self.ids or seen.event_id in self.ids or self.has_request(seen.request_id)
        return is_known and self.has(seen)

    def has_request(self, request_id: str) -> bool:
        """Return whether the query names a request."""
        return bool(request_id) and bool(self.requests_of(request_id))

    def requests_of(self, request_id: str) -> frozenset[str]:
        """Return the ids of the query that name a request."""
        return self.ids & {request_id, request_of(request_id)}

    def ids_of(self, seen: SeenEvent) -> frozenset[str]:
        """Return the ids of the query that an event answers."""
        return self.ids & {seen.event_id} | self.requests_of(seen.request_id)

    def has_event_in(self, rows: bytes, requests: Collection[str] = ()) -> bool:
        """Return whether rows may have one of the ids as an event's, without decoding them. `requests` are ids of requests."""
        return not self.ids or any(
            one.encode(errors="replace") in rows for one in self.ids if one not in requests
        )

    def has_values_in(self, rows: bytes) -> bool:
        """Return whether rows may have the columns' values, without decoding them."""
        return all(
            value.encode(errors="replace") in rows for value in self.columns.values() if _is_text(value)
        )

    @property
    def began(self) -> float | None:
        """The earliest time in the ids that are UUIDv7s, in UNIX seconds; None if there are none."""
        times = [_moment(one) for one in self.ids]
        return min((one for one in times if one is not None), default=None)


def _is_text(value: str) -> bool:
    """Return whether only a text is written like this, which is then in a row's bytes as it is."""
    try:
        json.loads(value)
    except ValueError:
        return True
    return False


def _moment(name: str) -> float | None:
    try:
        value = UUID(request_of(name))
    except ValueError:
        return None
    return (value.int >> 80) / 1000 if value.version == 7 else None
