"""What `sluice find` looks for."""

from dataclasses import dataclass
from uuid import UUID

from ops.events.event_tail import EventFilter, SeenEvent
from shared.envelope import request_of

INACCURACY_SECONDS = 300.0
"""How far off arrival times, and the clocks of clients that make ids, may be."""


@dataclass(frozen=True, slots=True)
class EventQuery(EventFilter):
    """A filter that also selects by id. Without ids, it selects as `EventFilter` does.

    Attributes:
        ids: event ids, or request ids, with or without `#` and the number of an envelope.
    """

    ids: frozenset[str] = frozenset()

    def is_about(self, seen: SeenEvent) -> bool:
        """Return whether the query selects an event."""
        is_known = not self.ids or seen.event_id in self.ids or self.has_request(seen.request_id)
        return is_known and self.has(seen)

    def has_request(self, request_id: str) -> bool:
        """Return whether the query names a request."""
        return bool(request_id) and (request_id in self.ids or request_of(request_id) in self.ids)

    def ids_of(self, seen: SeenEvent) -> frozenset[str]:
        """Return the ids of the query that an event answers."""
        return self.ids & {seen.event_id, seen.request_id, request_of(seen.request_id)}

    def may_be_in(self, rows: bytes) -> bool:
        """Return whether rows may contain one of the event ids, without decoding them."""
        return not self.ids or any(one.encode(errors="replace") in rows for one in self.ids)

    @property
    def began(self) -> float | None:
        """The earliest time in the ids that are UUIDv7s, in UNIX seconds; None if there are none."""
        times = [_moment(one) for one in self.ids]
        return min((one for one in times if one is not None), default=None)


def _moment(name: str) -> float | None:
    try:
        value = UUID(request_of(name))
    except ValueError:
        return None
    return (value.int >> 80) / 1000 if value.version == 7 else None
