"""Which databases get rows in one run of the sender.

A database gets rows once it has answered a probe, or has accepted rows of this function instance. One span probes it while others wait. An
import that fails for a reason that may concern others closes it for the rest of the run; a 429 halves how many spans may send to it at once.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from functools import partial
from threading import Lock

from worker.deadline import Deadline
from worker.executor import Executors, run_parallel
from worker.health import SENDER_PROBE_SECONDS, DatabaseHealth
from worker.treasure_data.client import UNSENT, Outcome
from worker.upload import Upload

MOST_VAIN_PROBES = 32
"""After so many, and no success, a run probes no other database that has failed here."""
SPANS_AT_ONCE = 32
"""How many spans have their turns at once."""

_SHARE = 3
"""A database gets at most so many times as many spans as there are turns left: one gets 24, two slow ones get 14 each. So spans that do not need
slow databases do not wait behind all that do."""
_PROBES_AT_ONCE = 16  # for one span
_PROBING_SECONDS = 5.0  # after which no more begin in a turn: rows do not wait for hundreds that hang
_SLOW_SECONDS = 2.0  # for an import
_THROTTLED = "http_429"


@dataclass(slots=True)
class _Database:
    """What one run knows of a database.

    Attributes:
        closed: why it gets no more rows in this run; empty while it may, None until it has answered a probe or accepted rows.
        limit: how many spans may send to it at once, if no other is slow.
        under_way: how many do.
        is_slow: an import has taken long.
    """

    closed: str | None = None
    limit: int = _SHARE * SPANS_AT_ONCE // (_SHARE + 1)
    under_way: int = 0
    is_slow: bool = False


@dataclass(eq=False)
class Admission:
    """Admits the spans of one run to databases. Safe to use from several threads."""

    _health: DatabaseHealth
    _executors: Executors
    _deadline: Deadline
    _bits: dict[str, int] = field(default_factory=dict)  # of databases in a mask; other runs use the same
    _databases: defaultdict[str, _Database] = field(
        default_factory=partial(defaultdict, _Database), init=False
    )
    _closed: int = field(default=0, init=False)  # the mask of those that are closed
    _probed: int = field(default=0, init=False)  # and of those that a span is probing
    _spans: int = field(default=0, init=False)  # that are admitted to a database
    _vain_probes: int = field(default=0, init=False)  # without an answer, while no database has answered one
    _lock: Lock = field(default_factory=Lock, init=False)

    def closed(self) -> list[str]:
        """Return the names of all databases that are closed."""
        return sorted(name for name, one in self._databases.items() if one.closed)

    def reason(self, database: str) -> str:
        """Return why a database is closed; empty if it is not."""
        with self._lock:
            return self._databases[database].closed or ""

    def close(self, name: str, reason: str) -> None:
        """Close a database, or what stands for one that is unknown."""
        with self._lock:
            self._set(name, self._databases[name].closed or reason)

    def is_busy(self, database: str) -> bool:
        """Return whether a span must wait for a database, because others are using it."""
        with self._lock:
            known = self._databases[database]
            return not known.closed and (self._is_probed(database) or not self._has_room(known))

    def mask(self, databases: Iterable[str]) -> int:
        """Return databases as a number with a bit for each: a set of 500 names takes 32 KB, and very many spans wait in an outage."""
        with self._lock:
            return sum(self._bit(name) for name in set(databases))

    def awaited(self, mask: int) -> str | None:
        """Return one of the databases that is being probed, or an empty string if all are closed; None if another may get rows."""
        with self._lock:
            probed = mask & self._probed
            if mask & ~self._closed & ~probed:
                return None
            return next(name for name, bit in self._bits.items() if bit & probed) if probed else ""

    def probe_untried(self, databases: Iterable[str]) -> None:
        """Probe the databases that nobody has tried in this run, side by side: those that answer wait for no others for long.

        Those that have failed here are the last. They count as being probed at once, so that in an outage few are. Until the probe of another
        begins, any span may make it. For what no time is left, the span's next turn does.
        """
        begin_by = self._deadline.within(_PROBING_SECONDS)
        with self._lock:
            untried = [name for name in databases if name and self._is_untried(name)]
            failing = {name for name in untried if self._health.reason(name)}
            ours = sum(map(self._bit, failing))
            self._probed |= ours
        untried.sort(key=failing.__contains__)
        jobs = [partial(self._try, name, begin_by, is_ours=name in failing) for name in untried]
        try:
            run_parallel(self._executors, jobs, _PROBES_AT_ONCE)
        finally:  # a surprise may have kept some from being probed: another span does that
            with self._lock:
                self._probed &= ~ours

    def admit(self, database: str, admitted: set[str]) -> bool:
        """Admit a span to a database, and add it to those that the span is `admitted` to; return whether it may send to it now.

        If not, and the database is not closed, others are sending to it or probing it, or nobody has probed it yet.
        """
        with self._lock:
            known = self._databases[database]
            if known.closed == "" and database not in admitted and self._has_room(known):
                self._spans += not admitted
                known.under_way += 1
                admitted.add(database)
            return known.closed == "" and database in admitted

    def release(self, admitted: Collection[str]) -> None:
        """Note that a span sends no more to the databases that it was admitted to."""
        with self._lock:
            self._spans -= bool(admitted)
            for database in admitted:
                self._databases[database].under_way -= 1

    def _has_room(self, known: _Database) -> bool:
        """Return whether another span may send to a database."""
        left = SPANS_AT_ONCE - self._spans
        return known.under_way < max(1, min(known.limit, _SHARE * left))

    def probe(self, database: str) -> str:
        """Return why a database does not take rows now; empty if it does."""
        if self._deadline.near:  # others were probed meanwhile
            return UNSENT.reason
        return self._health.probe(database, min(SENDER_PROBE_SECONDS, self._deadline.left()))

    def next_of(self, uploads: list[Upload], admitted: set[str]) -> Upload:
        """Take a span's next upload, those to slow databases last. Once only these are left, other spans get its place at all other databases."""
        with self._lock:
            found = min(uploads, key=lambda one: self._databases[one.database].is_slow)
            uploads.remove(found)
            if self._databases[found.database].is_slow:
                for name in [name for name in admitted if not self._databases[name].is_slow]:
                    admitted.remove(name)
                    self._databases[name].under_way -= 1
            return found

    def note(self, database: str, outcome: Outcome, seconds: float) -> None:
        """Note the outcome of an import, which took so long."""
        with self._lock:
            known = self._databases[database]
            known.is_slow |= seconds >= _SLOW_SECONDS
            if outcome.reason == _THROTTLED and outcome.surely_not:
                known.limit = max(1, known.limit // 2)
            elif self._health.note(database, outcome):
                self._set(database, outcome.reason)

    def _bit(self, name: str) -> int:
        return self._bits.setdefault(name, 1 << len(self._bits))

    def _set(self, name: str, closed: str) -> None:
        """Note why a database is closed; empty if it is not."""
        bit = self._bit(name)
        self._databases[name].closed = closed
        self._closed = self._closed & ~bit | bit * bool(closed)

    def _is_probed(self, name: str) -> bool:
        return bool(self._probed & self._bit(name))

    def _is_untried(self, database: str) -> bool:
        """Return whether a database must be probed before it gets rows; note if it need not be."""
        known = self._databases[database]
        if self._is_probed(database):
            return False
        if known.closed is None and self._health.works(database):
            known.closed = ""
        return known.closed is None

    def _try(self, database: str, begin_by: Deadline, *, is_ours: bool) -> None:
        """Probe a database, unless another span does by now, or so many others have failed since that this would be in vain."""
        if begin_by.near:
            return
        failure = "unforeseen"
        with self._lock:
            if not is_ours and not self._is_untried(database):
                return
            self._probed |= self._bit(database)
            failed = self._health.reason(database) if self._vain_probes >= MOST_VAIN_PROBES else ""
        try:
            failure = failed or self.probe(database)
        finally:
            with self._lock:
                self._probed &= ~self._bit(database)
                self._set(database, failure)
                self._vain_probes = self._vain_probes + 1 if failure and self._vain_probes >= 0 else -1
