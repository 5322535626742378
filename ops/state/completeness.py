"""The time up to which rows are complete, and how to wait for one."""

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from threading import Lock
from typing import Any

from ops import screen
from ops.background import in_background, within
from ops.failure import FORESEEN, Failure, explained, is_denied, is_lasting
from shared.clock import Clock
from worker.watermark import Completeness, Watermarks

_SHORTEST_PAUSE, _LONGEST_PAUSE = 2.0, 15.0
_FIRST_SECONDS, _LONGEST_SECONDS = 5.0, 60.0  # what the first look gets at least, and any look at most
_GRACE_SECONDS = 0.5  # for a look that ends just in time
_ADVANCE = (
    "These times are some seven minutes behind, and advance while `sluice wait` runs, or with WatermarkTable"
)
_UNMARKED = "Without it, `sluice wait` works only if WatermarkTable is set"


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
        rows.append((account, table, _utc(before) or "unknown", ago, found.dead.get((account, table), 0)))
    others = "" if found.horizon is None else screen.lasting(found.at - found.horizon / 1000)
    rows.append(("others", "", _utc(found.horizon) or "unknown", others, ""))
    return title, columns, rows


def document(found: Completeness) -> dict[str, Any]:
    """Return the watermarks as a JSON object."""
    return {
        "at": screen.utc(round(found.at, 3)),
        "before": _utc(found.horizon),
        "unknown": found.obstacle or None,
        "tables": [table_document(found, *table) for table in sorted(found.tables)],
    }


@dataclass(frozen=True, slots=True)
class Wait:
    """Waits until a table is complete.

    Attributes:
        tell: called with the reason for waiting whenever that changes.
        mark: has markers put on idle shards, so that watermarks advance. Nobody waits for it, because it may take long. If AWS denies it,
            waiting ends, unless watermarks have come far enough.
        needs_mark: whether watermarks advance only so. Without WatermarkTable, they do.
        start: runs a job in the background.
        within: runs a job, but waits only so many seconds for its result.
    """

    watermarks: Watermarks
    clock: Clock
    tell: Callable[[str], None]
    mark: Callable[[], object] = lambda: None
    _: KW_ONLY
    needs_mark: bool = True
    start: Callable[[Callable[[], None]], None] = in_background
    within: Callable[[float, Callable[[], Completeness]], Completeness | None] = within
    _marking: Lock = field(default_factory=Lock)
    _denied: list[Exception] = field(default_factory=list)

    def until(self, account: str, table: str, moment: float, deadline: float | None) -> Completeness:
        """Wait until all of a table's rows that were received before a moment are complete, and return the watermarks.

        The moment and the deadline are in UNIX seconds. At the deadline, waiting stops after at least one look of a few seconds.

        Raises:
            Failure: the caller may not have watermarks advance, and they have not come to the moment.
        """
        said, best = "", None
        while True:
            left = float("inf") if deadline is None else deadline - self.clock.now()
            if best is not None and left <= 0:
                return best
            found = self._take(min(_LONGEST_SECONDS, left if best else max(left, _FIRST_SECONDS)))
            best = best if best and found.horizon is None else found
            before = found.before(account, table)
            if before is not None and before >= moment * 1000:
                if (account, table) not in found.tables:
                    self.tell(
                        f"no rows of {account}.{table} arrived in the last ten minutes, and none wait: is its name right?"
                    )
                return found
            if self._denied and (found.horizon is None or found.horizon < moment * 1000):
                raise Failure(f"{explained(self._denied[0]).message}. {_UNMARKED}")
            reason = found.obstacle or ("rows wait" if (account, table) in found.pending else "")
            if reason and reason != said:
                self.tell(f"waiting: {reason}")
            said = reason
            away = _SHORTEST_PAUSE if before is None else moment - before / 1000
            pause = min(_LONGEST_PAUSE, max(_SHORTEST_PAUSE, away))
            now = self.clock.now()
            self.clock.sleep(pause if deadline is None else max(0.0, min(pause, deadline - now)))

    def _take(self, seconds: float) -> Completeness:
        """Take the watermarks within some seconds. Treat a temporary error as a reason to wait."""
        if self._marking.acquire(blocking=False):
            self.start(self._mark_once)
        try:
            found = self.within(seconds + _GRACE_SECONDS, lambda: self.watermarks.take(seconds))
        except FORESEEN as error:
            if is_lasting(error):
                raise
            return Completeness(self.clock.now(), None, obstacle=explained(error).message)
        return found or Completeness(self.clock.now(), None, obstacle="the stack does not answer in time")

    def _mark_once(self) -> None:
        try:
            self.mark()
        except (Failure, *FORESEEN) as error:
            if self.needs_mark and is_denied(error):
                self._denied.append(error)
        finally:
            self._marking.release()


def table_document(found: Completeness, account: str, table: str) -> dict[str, Any]:
    """Return one table's watermark as a JSON object."""
    before = found.before(account, table)
    return {
        "account": account,
        "table": table,
        "before": _utc(before),
        "lag_seconds": None if before is None else round(found.at - before / 1000, 3),
        "dead": found.dead.get((account, table), 0),
        "unknown": found.obstacle or None,
    }


def _utc(milliseconds: int | None) -> str | None:
    return None if milliseconds is None else screen.utc(milliseconds / 1000)
