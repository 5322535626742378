"""The ledger's table is deleted, restored from a backup, and repaired: the operator does what docs/operations.md#restore says.

The backup's items are of different moments. Whoever was at work at the deletion is over, but function instances stay warm, and are invoked as ever.
"""

import random
from contextlib import suppress
from functools import partial
from itertools import count
from math import inf

from chaos.audit import Audit
from chaos.platform import Function
from chaos.trouble import HOUR, Kind, Window
from chaos.world import TABLE, TD_MEMORY_SECONDS, World
from ops.books.ledger_repair import LedgerRepair, is_restored
from shared.errors import LedgerUnavailableError
from shared.telemetry import NullTelemetry
from worker.ledger import Ledger
from worker.states import LEDGER_RESTORED, State

_AGES = (0.0, 1.0, 5.0, 60.0, 600.0, HOUR, 8 * HOUR)
_APART_SECONDS = 5.0
"""By how much the items of one backup may be older than others."""
_PAUSES = (1.0, 70.0, 600.0, HOUR)
_MOST_WRITES = (0, 1, 3, 10, 40, 1000)  # of a repair that is interrupted
_AGAIN_SECONDS = 100.0


class Restoring:
    """Restores the ledger of a world in whose schedule that happens, and repairs it by `kind`. `functions` use the ledger."""

    def __init__(
        self, world: World, audit: Audit, functions: tuple[Function, ...], kind: type[LedgerRepair]
    ) -> None:
        self.since = inf  # of when the backup is, UNIX seconds
        self._world, self._audit, self._functions, self._kind = world, audit, functions, kind

    def begin(self) -> None:
        """Restore the ledger when it is time."""
        for window in self._world.schedule.windows:
            if window.kind is Kind.DYNAMODB_RESTORED:
                self._world.table.keep_history(TABLE)
                self._world.simulation.at(window.end, partial(self._restore, window))

    @property
    def remapped(self) -> set[str]:
        """The accounts that were mapped to another database since the backup, whose rows may be in both."""
        acts = self._world.schedule.acts
        return {act.arguments[0] for act in acts if act.kind is Kind.REMAP and act.at >= self.since}

    @property
    def is_under_way(self) -> bool:
        """Whether the table is away, or not repaired yet."""
        return self._world.holds or self._world.trouble.active(Kind.DYNAMODB_RESTORED)

    def _restore(self, window: Window) -> None:
        world, simulation = self._world, self._world.simulation
        if not world.trouble.any_of(frozenset({Kind.DYNAMODB_RESTORED})):
            return  # everything has healed: the table was only away
        chance = random.Random(f"{world.schedule.seed}/{window.kind}/{window.begin}")
        world.bring_back()  # what is deleted: nobody could know of it
        until, skew = window.begin - chance.choice(_AGES), chance.random()
        # so that it often has only a part of what was written together with a claim
        claimed = world.table.changed(TABLE, "put#", until) + chance.random() * _APART_SECONDS
        self.since = max(until - _AGES[-1], min(until, claimed))
        items = world.table.backup(
            TABLE, lambda place: self.since - random.Random(f"{skew}/{place}").random() * _APART_SECONDS
        )
        world.table.restore(TABLE, items)
        world.table.lag_indexes(TABLE, world.schedule.setup.index_lag)
        for function in self._functions:
            for process in list(function.running):
                simulation.kill(process)
        world.holds = is_restored(self._audit.ledger, self._audit.objects)
        if world.holds:
            world.told("ledger restored")
            repair = partial(self._repair, chance, chance.choice(_MOST_WRITES))
            simulation.at(simulation.now + chance.choice(_PAUSES), repair)
        else:
            world.told("ledger repaired")  # there was nothing yet

    def _repair(self, chance: random.Random, most: int | None) -> None:
        """Do what `sluice doctor --repair-ledger` does, and repeat it if it is interrupted after so many writes, or cannot read an object."""
        world, writes = self._world, count()
        world.bring_back()  # what is damaged

        def entropy(size: int) -> bytes:
            if next(writes) == most:
                raise LedgerUnavailableError("interrupted")
            return chance.randbytes(size)

        ledger = Ledger(world.table, TABLE, world.clock, entropy, NullTelemetry())  # type: ignore[arg-type]  # a double
        parts = ledger, self._audit.objects, self._audit.bucket
        repair = self._kind(*parts, memory_seconds=TD_MEMORY_SECONDS, clock=world.clock)
        with suppress(LedgerUnavailableError):
            repair.repair()
        world.holds = is_restored(self._audit.ledger, self._audit.objects)
        if world.holds:
            world.simulation.at(world.simulation.now + _AGAIN_SECONDS, partial(self._repair, chance, None))
        else:
            world.told("ledger repaired")

    def take_out(self) -> bool:
        """Delete from Treasure Data what it has of chunks that it has in part, and that wait because of the restore; return whether any do."""
        td, found = self._world.td, False
        there = {row["n"] for taken in td.imports() for row in taken.rows} if self.since < inf else set()
        for one in self._audit.held() if there else ():
            is_waiting = one.entry.state is State.WAITING and one.entry.reason == LEDGER_RESTORED
            numbers, table = {row["n"] for row in one.values or () if is_waiting}, one.key.group.table
            if not 0 < len(numbers & there) < len(numbers):
                continue
            found = True
            for database in (name for name, tables in td.counts().items() if table in tables):
                td.delete(database, table, numbers)
        return found
