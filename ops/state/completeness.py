"""The time up to which rows are complete, and how to wait for one."""

from collections.abc import Callable
from datetime import UTC, datetime
from threading import Lock
from typing import Any

from ops import screen
from ops.background import in_background, within
from ops.failure import FORESEEN, explained, is_lasting
from shared.clock import Clock
from worker.watermark import Completeness, Watermarks

_SHORTEST_PAUSE, _LONGEST_PAUSE = 2.0, 15.0
_FIRST_SECONDS, _LONGEST_SECONDS = 5.0, 60.0  # what the first look gets at least, and any look at most
_GRACE_SECONDS = 0.5  # for a look that ends just in time
_UNKNOWN = "unknown"
_ADVANCE = (
    "These times are some seven minutes behind, and advance while `sluice wait` runs, or with WatermarkTable"
)


def section(found: Completeness) -> tuple[str, tuple[str, ...], list[tuple[object, ...]]]:
    """Return the watermarks as a table: its title, columns and rows."""
    title = "Complete: all rows received before this time are in Treasure Data or dead"
    if found.obstacle:
        title = f"Complete: {found.obstacle}. {_ADVANCE}"
    columns = ("account", "table", "complete before", "ago", "dead")
    rows: list[tuple[object, ...]] = []
    for account, table in sorted(found.tables):
        before = found.before(account, table)
        ago = "" if before is None else screen.lasting(found.at - before / 1000)
        rows.append((account, table, utc_of(before) or _UNKNOWN, ago, found.dead.get((account, table), 0)))
    others = "" if found.horizon is None else screen.lasting(found.at - found.horizon / 1000)
    rows.append(("others", "", utc_of(found.horizon) or _UNKNOWN, others, ""))
    return title, columns, rows


def document(found: Completeness) -> dict[str, Any]:
    """Return the watermarks as a JSON object."""
    return {
        "at": screen.utc(round(found.at, 3)),
        "before": utc_of(found.horizon),
        "unknown": found.obstacle or None,
        "tables": [table_document(found, *table) for table in sorted(found.tables)],
    }


class Wait:
    """Waits until a table is complete.

    Args:
        watermarks: the source of watermarks.
        clock: the time, and sleep.
        tell: called with the reason for waiting whenever that changes.
        mark: has markers put on idle shards, so that watermarks advance.
        start: runs a job in the background; nobody waits for `mark`, which may take long.
        within: runs a job, but waits only so many seconds for its result.
    """

    def __init__(
        self,
        watermarks: Watermarks,
        clock: Clock,
        tell: Callable[[str], None],
        mark: Callable[[], object] = lambda: None,
        *,
        start: Callable[[Callable[[], None]], None] = in_background,
        within: Callable[[float, Callable[[], Completeness]], Completeness | None] = within,
    ) -> None:
        self._mark = mark
        self._marking = Lock()
        self._start = start
        self._within = within
        self._watermarks = watermarks
        self._clock = clock
        self._tell = tell

    def until(self, account: str, table: str, moment: float, deadline: float | None) -> Completeness:
        """Wait until all of a table's rows that were received before a moment are complete, and return the watermarks.

        Args:
            account: the account.
            table: its table.
            moment: UNIX seconds.
            deadline: UNIX seconds at which to stop waiting, after at least one look of a few seconds; None for never.
        """
        said, best = "", None
        while True:
            left = float("inf") if deadline is None else deadline - self._clock.now()
            if best is not None and left <= 0:
                return best
            found = self._take(min(_LONGEST_SECONDS, left if best else max(left, _FIRST_SECONDS)))
            best = best if best and found.horizon is None else found
            before = found.before(account, table)
            if before is not None and before >= moment * 1000:
                if (account, table) not in found.tables:
                    self._tell(f"no rows of {account}.{table} were received recently. Check the name.")
                return found
            reason = found.obstacle or ("rows wait" if (account, table) in found.pending else "")
            if reason and reason != said:
                self._tell(f"waiting: {reason}")
            said = reason
            away = _SHORTEST_PAUSE if before is None else moment - before / 1000
            pause = min(_LONGEST_PAUSE, max(_SHORTEST_PAUSE, away))
            now = self._clock.now()
            self._clock.sleep(pause if deadline is None else max(0.0, min(pause, deadline - now)))

    def _take(self, seconds: float) -> Completeness:
        """Take the watermarks within some seconds. Treat a temporary error as a reason to wait."""
        if self._marking.acquire(blocking=False):
            self._start(self._mark_once)
        try:
            found = self._within(seconds + _GRACE_SECONDS, lambda: self._watermarks.take(seconds))
        except FORESEEN as error:
            if is_lasting(error):
                raise
            return Completeness(self._clock.now(), None, obstacle=explained(error).message)
        return found or Completeness(self._clock.now(), None, obstacle="the stack does not answer in time")

    def _mark_once(self) -> None:
        try:
            self._mark()
        finally:
            self._marking.release()


def table_document(found: Completeness, account: str, table: str) -> dict[str, Any]:
    """Return one table's watermark as a JSON object."""
    before = found.before(account, table)
    return {
        "account": account,
        "table": table,
        "before": utc_of(before),
        "lag_seconds": None if before is None else round(found.at - before / 1000, 3),
        "dead": found.dead.get((account, table), 0),
        "unknown": found.obstacle or None,
    }


def utc_of(milliseconds: int | None) -> str | None:
    """Return UNIX milliseconds as ISO 8601; None if they are unknown."""
    if milliseconds is None:
        return None
    moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
