"""Tracks which databases are failing, in this function instance and, through the ledger, in all others.

As long as no database fails here, this reads nothing from the ledger. When one fails, the ledger says whether other instances have
found it failing. An open breaker is looked up again after BELIEVED_SECONDS.
"""

from dataclasses import dataclass

from shared.clock import Clock
from shared.errors import LedgerUnavailableError
from shared.telemetry import Telemetry
from worker.ledger import Ledger

BELIEVED_SECONDS = 30.0
"""How long an open breaker is believed before it is looked up again."""
CONSULTED_SECONDS = 5.0
"""Databases that fail within this time of each other are looked up together, once."""
REMEMBERED_SECONDS = 300.0
"""A failure longer ago than this is unrelated to the next one."""
FORGIVEN_SHARE = 0.01
"""The share of the time for which a database may delay others without counting as slow."""
SLOW = "slow"


@dataclass(slots=True)
class _Health:
    last_success: float = float("-inf")
    failing_since: float | None = None
    last_failure: float = float("-inf")
    delay: float = 0.0  # seconds that others have waited for it, less what was forgiven since
    delayed_at: float = 0.0


class Breakers:
    """The health of databases, as far as this function instance knows it.

    Attributes:
        found_open: the databases with an open breaker, as this function instance last read or changed it.
    """

    def __init__(self, ledger: Ledger, clock: Clock, telemetry: Telemetry) -> None:
        self._ledger = ledger
        self._clock = clock
        self._telemetry = telemetry
        self._health: dict[str, _Health] = {}
        self.found_open: set[str] = set()
        self._read_at = float("-inf")

    def is_open(self, database: str) -> bool:
        """Return whether the database's breaker is open. This reads nothing unless it was open at the last look."""
        if database not in self.found_open:
            return False
        self._read(BELIEVED_SECONDS)
        return database in self.found_open

    def consult(self, database: str) -> bool:
        """Ask the ledger whether any function instance has opened the database's breaker."""
        self._read(CONSULTED_SECONDS)
        return database in self.found_open

    def open(self, database: str, reason: str) -> None:
        """Tell all function instances that the database fails. If the ledger cannot be written, they find out themselves."""
        self.found_open.add(database)
        self._telemetry.warning("breaker opened", database=database, reason=reason)
        try:
            self._ledger.open_breaker(database, reason)
        except LedgerUnavailableError:
            self._telemetry.warning("breaker could not be written", database=database)

    def close(self, database: str) -> None:
        """Tell all function instances that the database works again.

        Raises:
            LedgerUnavailableError: the ledger cannot be written.
        """
        self._ledger.close_breaker(database)
        self.found_open.discard(database)
        self._telemetry.info("breaker closed", database=database)

    def _read(self, age: float) -> None:
        """Read all open breakers at once, unless they were read less than `age` seconds ago."""
        if self._clock.now() - self._read_at < age:
            return
        try:
            is_open = {breaker.database for breaker in self._ledger.breakers()}
        except LedgerUnavailableError:
            return  # what is known still counts: parking is safe
        for database in self.found_open - is_open:
            health = self._of(database)
            health.failing_since, health.delay = None, 0.0
        self.found_open = is_open
        self._read_at = self._clock.now()

    def succeeded(self, database: str) -> None:
        """Note that an import was accepted."""
        health = self._of(database)
        health.last_success = self._clock.now()
        health.failing_since = None

    def failed(self, database: str, began: float) -> float:
        """Note that an import that began at `began` failed; return since when every import has failed here (UNIX seconds)."""
        health, now = self._of(database), self._clock.now()
        if health.failing_since is None or now - health.last_failure > REMEMBERED_SECONDS:
            health.failing_since = began
        health.last_failure = now
        return health.failing_since

    def delayed(self, database: str, seconds: float) -> float:
        """Note that others waited for the database; return their total wait in seconds, less FORGIVEN_SHARE of the time since."""
        health, now = self._of(database), self._clock.now()
        forgiven = (now - health.delayed_at) * FORGIVEN_SHARE
        health.delay = max(0.0, health.delay - forgiven) + seconds
        health.delayed_at = now
        return health.delay

    def is_healthy(self, database: str) -> bool:
        """Return whether the database has accepted an import here, and none has failed since."""
        health = self._health.get(database)
        return health is not None and health.failing_since is None and health.last_success > float("-inf")

    def others_succeeded(self, database: str, since: float) -> bool:
        """Return whether another database has accepted an import since a time (UNIX seconds)."""
        return any(health.last_success > since for name, health in self._health.items() if name != database)

    def _of(self, database: str) -> _Health:
        return self._health.setdefault(database, _Health())
