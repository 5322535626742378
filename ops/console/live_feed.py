"""The latest events of a stack, for pages that request those after a number."""

import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any

import click

from ops import personal_data, screen
from ops.background import in_background
from ops.console.refreshed import Refreshed
from ops.events.event_tail import Tail
from ops.events.seen_event import Kind, Notice, SeenEvent
from ops.failure import FORESEEN, explained
from ops.stack import Stack
from shared.clock import Clock
from shared.rows import column_name
from shared.tracking_plan import CODES, TrackingPlan, Violation

_SHOWN = ("kind", "at", "account", "table", "key_id", "event_id", "request_id", "shard", "code", "path")
_KEPT = 2000
_MOST = 500
_UNWATCHED_SECONDS = 300.0
_PATIENCE_SECONDS = 10.0


@dataclass
class LiveFeed:
    """Follows a stack while pages request its events. Threads may share it.

    `tail` returns a tail that begins at a time, UNIX seconds, and does not replace personal data; `plan` an account's tracking plan.
    """

    tail: Callable[[float], Tail]
    clock: Clock
    _: KW_ONLY
    history_seconds: float
    scrubs: bool = True
    plan: Callable[[str], TrackingPlan | None] = lambda _: None
    start: Callable[[Callable[[], None]], None] = in_background

    def __post_init__(self) -> None:
        self._since = self.clock.now() - self.history_seconds
        self._lock = threading.Lock()
        self._kept: deque[dict[str, Any]] = deque(maxlen=_KEPT)
        self._count = 0
        self._notes: dict[str, str] = {}
        self._asked_at = 0.0
        self._following = Refreshed(self._follow, _PATIENCE_SECONDS, self.clock, share=1.0, start=self.start)

    def page(self, parameters: Mapping[str, str]) -> dict[str, Any]:
        """Return the events after the number in the parameter `after`, oldest first, and the number to request next."""
        after = parameters.get("after", "")
        return self.after(int(after) if after.isdecimal() else 0)

    def after(self, number: int) -> dict[str, Any]:
        """Return the events after a number, oldest first, and the number to request next."""
        self._asked_at = self.clock.now()
        bug = self._following.latest().error
        with self._lock:
            found = [event for event in self._kept if event["number"] > number][-_MOST:]
            missed = self._count - number - len(found) if number <= self._count else 0
            notes = [*self._notes.values(), *filter(None, [bug])]
            if missed and number:
                notes.append(f"{screen.plural(missed, 'event')} arrived too fast to be shown.")
            return {"events": found, "next": self._count, "note": " ".join(notes)}

    def _follow(self) -> None:
        """Read until no page has asked for _UNWATCHED_SECONDS. If reading fails, note why; the next page's request retries."""
        try:
            for found in self.tail(self._since).events(lambda: self._asked_at + _UNWATCHED_SECONDS):
                if isinstance(found, Notice):
                    self._note(found)
                else:
                    self._add(found)
                self._since = self.clock.now()
        except (click.ClickException, *FORESEEN) as error:
            with self._lock:
                self._notes["stream"] = f"The stream cannot be read: {explained(error).message}."

    def _note(self, notice: Notice) -> None:
        with self._lock:
            if notice.is_over:
                self._notes.pop(notice.source, None)
            else:
                self._notes[notice.source] = notice.said

    def _add(self, seen: SeenEvent) -> None:
        violations = violations_of(seen, self.plan(seen.account))
        row = personal_data.scrub(seen.row) if self.scrubs else dict(seen.row)
        shown = {name: getattr(seen, name) for name in _SHOWN} | {
            "row": row,
            "differs": [one.message for one in violations],
        }
        with self._lock:
            self._notes.pop("stream", None)
            self._count += 1
            self._kept.append(shown | {"number": self._count})


def violations_of(seen: SeenEvent, plan: TrackingPlan | None) -> list[Violation]:
    """Return how an event differs from its account's plan. For an event that the plan rejected, return only the reason for that.

    Columns whose values the ingest drops or hashes are not checked, because the row no longer has the original values.
    """
    if plan is None or plan.mode_of(seen.table) == "off":
        return []
    table = plan.tables.get(seen.table)
    personal = table.personal if table else {}
    match seen.kind:
        case Kind.EVENT:
            found = plan.violations(seen.table, seen.row)
        case Kind.REJECTED if seen.code in CODES:
            row = {column_name(name): value for name, value in seen.row.items() if name != "table"}
            found = [one for one in plan.violations(seen.table, row) if one.code == seen.code]
        case _:
            return []
    return [one for one in found if one.column not in personal]


def stack_tail(stack: Stack) -> Callable[[float], Tail]:
    """Return a function that starts a tail of a stack at a time, UNIX seconds."""
    return lambda since: Tail.of(stack, since=since, scrubs=False)
