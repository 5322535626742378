"""Which databases are sick, as this sandbox knows and as all sandboxes tell each other.

The ordinary path reads nothing: a database is looked up in the ledger's table only once it has failed here, and from
then on, until it is well again, before it is tried.
"""

from dataclasses import dataclass

from shared.clock import Clock
from worker.journal import Journal
from worker.ledger import Ledger, LedgerUnavailableError

BELIEVED_SECONDS = 30.0
"""For how long an open breaker is not looked up again."""
REMEMBERED_SECONDS = 300.0
"""A failure longer ago than this has nothing to do with the next one."""


@dataclass(slots=True)
class _Health:
    last_success: float = float("-inf")
    failing_since: float | None = None
    last_failure: float = float("-inf")
    open_until: float | None = None  # believed open until then; looked up again afterwards


class Breakers:
    """What is known of databases.

    Args:
        ledger: where sandboxes tell each other.
        clock: times successes and failures.
        journal: told of breakers that open.
    """

    def __init__(self, ledger: Ledger, clock: Clock, journal: Journal) -> None:
        self._ledger = ledger
        self._clock = clock
        self._journal = journal
        self._health: dict[str, _Health] = {}

    def is_open(self, database: str) -> bool:
        """Tell whether the database is known to be sick; asks nobody about one that is well."""
        health = self._health.get(database)
        if health is None or health.open_until is None:
            return False
        return self._clock.now() < health.open_until or self.consult(database)

    def consult(self, database: str) -> bool:
        """Tell whether another sandbox has found the database sick; when nobody can say, it is not."""
        health = self._of(database)
        try:
            is_open = self._ledger.breaker(database) is not None
        except LedgerUnavailableError:
            is_open = False
        if health.open_until is not None and not is_open:
            health.failing_since = None
        health.open_until = self._clock.now() + BELIEVED_SECONDS if is_open else None
        return is_open

    def open(self, database: str, reason: str) -> None:
        """Tell everybody that the database is sick; if they cannot be told now, they find out."""
        self._of(database).open_until = self._clock.now() + BELIEVED_SECONDS
        self._journal.count("BreakersOpened")
        self._journal.note("breaker opened", database=database, reason=reason)
        try:
            self._ledger.open_breaker(database, reason)
        except LedgerUnavailableError:
            self._journal.note("breaker could not be written", database=database)

    def close(self, database: str) -> None:
        """Tell everybody that the database is well again."""
        self._of(database).open_until = None
        self._ledger.close_breaker(database)
        self._journal.note("breaker closed", database=database)

    def succeeded(self, database: str) -> None:
        """Note that an import was answered well."""
        health = self._of(database)
        health.last_success = self._clock.now()
        health.failing_since = None

    def failed(self, database: str, began: float) -> float:
        """Note that an import, which began at `began`, failed; return since when all have failed here (UNIX seconds)."""
        health, now = self._of(database), self._clock.now()
        if health.failing_since is None or now - health.last_failure > REMEMBERED_SECONDS:
            health.failing_since = began
        health.last_failure = now
        return health.failing_since

    def is_healthy(self, database: str) -> bool:
        """Tell whether the last import that was heard of went well."""
        health = self._health.get(database)
        return health is not None and health.failing_since is None and health.last_success > float("-inf")

    def others_succeeded(self, database: str, since: float) -> bool:
        """Tell whether an import to another database went well since then, UNIX seconds."""
        return any(health.last_success >= since for name, health in self._health.items() if name != database)

    def _of(self, database: str) -> _Health:
        return self._health.setdefault(database, _Health())
