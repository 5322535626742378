"""Which databases fail, as far as this function instance knows.

A database that has failed gets no rows until it has answered a probe: a request as much like an import as one without rows can be, because
a listing may answer while imports fail. A database that keeps others waiting twice is left to the sender for a while in any case.
If a span's sends to many databases fail and none succeeds, Treasure Data seems to be away, and no database gets rows until one has answered
a probe.
Nothing of this is shared: each instance finds out for itself, and forgets it when it ends.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from zlib import crc32

from shared.clock import Clock
from shared.telemetry import Telemetry
from worker.rows import compress
from worker.span import milliseconds
from worker.states import Event
from worker.treasure_data.client import UNSENT, Outcome, TreasureDataClient

PROBE_TABLE = "sluice_probe"
"""A table that need not exist: the response to an import into it shows what the API key may do."""
PROBE_EVERY_SECONDS = 30.0
"""How often the worker probes a failing database."""
WORKER_PROBE_SECONDS = 1.0
"""How long the worker waits for a probe's answer."""
SENDER_PROBE_SECONDS = 10.0
"""How long the sender waits for it."""
SLOW = "slow"
"""The reason of rows that are left to the sender because their database is slow."""
AWAY = "outage"
"""The reason of rows that are left to the sender because Treasure Data seems to be away."""
SLOW_SECONDS = 300.0
"""How long a slow database is left to the sender."""


@dataclass(slots=True)
class _Health:
    """What is known of a database.

    Attributes:
        failure: why it has failed, in one word; empty once it has answered a probe since.
        probed_at: UNIX seconds of the last failure or probe.
        late_at: UNIX seconds at which others last had to wait for it.
        slow_until: UNIX seconds until which it is left to the sender.
    """

    failure: str = ""
    works: bool = False
    probed_at: float = float("-inf")
    late_at: float = float("-inf")
    slow_until: float = float("-inf")


@dataclass(eq=False)
class DatabaseHealth:
    """The health of databases. Safe to use from several threads: each call changes one database, or the one flag that all are away."""

    _treasure_data: TreasureDataClient
    _clock: Clock
    _telemetry: Telemetry
    _of: dict[str, _Health] = field(default_factory=dict, init=False)
    _is_away: bool = field(default=False, init=False)

    def reason(self, database: str) -> str:
        """Return why a database may get no rows from the worker now; empty if it may."""
        found = self._get(database)
        if found.failure:
            return found.failure
        if self._clock.now() < found.slow_until:
            return SLOW
        return AWAY if self._is_away else ""

    def works(self, database: str) -> bool:
        """Return whether a database has accepted rows here, and none have failed since."""
        return self._get(database).works

    def due(self, databases: Iterable[str]) -> list[str]:
        """Return those of the databases that it is time for the worker to probe, first those whose last probe is the longest ago."""
        latest = self._clock.now() - PROBE_EVERY_SECONDS
        due = [
            (known.probed_at, crc32(database.encode()), database)
            for database in databases
            if ((known := self._get(database)).failure or self._is_away) and known.probed_at <= latest
        ]
        return [database for *_, database in sorted(due)]  # those that fail together may have similar names

    def away(self) -> None:
        """Note that imports to many databases failed at once, and none succeeded."""
        if not self._is_away:
            self._telemetry.warning("Treasure Data seems to be away")
        self._is_away = True

    def note(self, database: str, outcome: Outcome) -> bool:
        """Note the outcome of an import; return whether it failed for a reason that may concern all others to this database.

        While the database fails, an import that succeeds settles nothing: it was sent before that.
        """
        found = self._get(database)
        if outcome.event is Event.ACCEPTED:
            found.works = not found.failure
        if outcome.event is not Event.UNANSWERED or outcome.reason == UNSENT.reason:
            return False
        if not found.failure:
            self._telemetry.warning("a database fails", database=database, reason=outcome.reason)
        found.failure, found.works, found.probed_at = outcome.reason, False, self._clock.now()
        return True

    def late(self, database: str) -> None:
        """Note that a span's other databases have waited for one. The second time, the sender has it for a while, even if it answers probes."""
        found, now = self._get(database), self._clock.now()
        if now - found.late_at < SLOW_SECONDS:
            found.slow_until = now + SLOW_SECONDS
            self._telemetry.warning("a database is slow", database=database, seconds=SLOW_SECONDS)
        found.late_at = now

    def probe(self, database: str, seconds: float) -> str:
        """Send an import without rows; return why the database may not get rows yet, or an empty string if it may."""
        found = self._get(database)
        found.probed_at = self._clock.now()
        unique_id = f"{milliseconds(self._clock.now()):032x}"
        outcome = self._treasure_data.send(database, PROBE_TABLE, unique_id, compress(b""), seconds)
        if outcome.event is Event.ACCEPTED or outcome.lacks_table:
            found.failure, self._is_away = "", False
        else:
            found.failure, found.works = outcome.reason, False
        return found.failure

    def _get(self, database: str) -> _Health:
        return self._of.get(database) or self._of.setdefault(database, _Health())
