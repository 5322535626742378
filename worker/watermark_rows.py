"""Writes watermarks to a table of each account's database, so that jobs in Treasure Data can wait for them.

A row says that all rows of its table that were received before `complete_before` are in Treasure Data, or dead. This stays true,
so readers take the greatest value, and a row that is lost, late or duplicated does no harm. The rows of one period have one unique_id.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

import msgpack

from shared import names
from shared.accounts import Account
from shared.clock import Clock
from shared.errors import UnavailableError, aws_errors
from shared.telemetry import Telemetry
from worker.account_cache import AccountCache
from worker.deadline import Deadline
from worker.executor import Executors, run_parallel
from worker.ledger import Ledger
from worker.rows import compress
from worker.span import milliseconds
from worker.states import Event
from worker.treasure_data.client import READ_SECONDS, TreasureDataClient
from worker.watermark import ALL_TABLES, Completeness, Watermarks

MOST_TABLES = 200
"""The most tables of an account that get rows of their own."""
PERIOD_SECONDS = 300
"""How often template.yaml has rows written."""


@dataclass(eq=False)
class WatermarkRows:
    """Takes a watermark and writes its rows to a table, or none if the table's name is empty."""

    _ledger: Ledger
    _watermarks: Watermarks
    _accounts: AccountCache
    _treasure_data: TreasureDataClient
    _table: str
    _executors: Executors
    _clock: Clock
    _telemetry: Telemetry

    def write(self, deadline: Deadline) -> dict[str, Any]:
        """Write the watermark that can be proved now.

        The result has `written`, the number of accounts with rows that their database accepted, and `unknown`, why there is no watermark.
        """
        if not self._table:
            return {"written": 0, "unknown": "no table is set"}
        try:
            found = self._watermarks.take(max(0.0, deadline.left() / 2))
            of_account = self._ledger.watch([one for one in found.tables if names.is_table(one[1])])
        except aws_errors(UnavailableError) as error:
            found, of_account = Completeness(self._clock.now(), None, obstacle=type(error).__name__), {}
        if found.horizon is None:
            self._telemetry.info("no watermark", reason=found.obstacle)
            return {"written": 0, "unknown": found.obstacle}
        jobs = []
        for account, destination in self._accounts.resolve(of_account).items():
            if isinstance(destination, Account):
                rows = _rows_of(found, account, of_account[account])
                jobs.append(partial(self._send, account, destination.database, rows, deadline))
        # if the time does not suffice for all, it is not for the same ones each time
        Random(self._clock.now()).shuffle(jobs)  # noqa: S311 -- the order is no secret
        written = sum(run_parallel(self._executors, jobs))
        self._telemetry.info("watermarks", written=written, accounts=len(of_account))
        return {"written": written}

    def _send(self, account: str, database: str, rows: Iterable[dict[str, Any]], deadline: Deadline) -> bool:
        if deadline.near:
            return False
        period = int(self._clock.now()) // PERIOD_SECONDS
        unique_id = hashlib.sha256(
            f"sluice watermark of {account}\n{database}\n{period}".encode()
        ).hexdigest()[:32]
        body = compress(b"".join(map(msgpack.packb, rows)))
        for _ in range(2):
            seconds = deadline.left_for(READ_SECONDS)
            outcome = self._treasure_data.send(database, self._table, unique_id, body, seconds)
            if not outcome.lacks_table:
                break
            self._treasure_data.create_table(database, self._table, deadline.left_for(READ_SECONDS))
        is_taken = outcome.event is Event.ACCEPTED
        if not is_taken:
            self._telemetry.warning("a watermark was not written", account=account, reason=outcome.reason)
        return is_taken


def _rows_of(found: Completeness, account: str, tables: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Yield the watermark rows of an account: one for all its tables, and one for each."""
    for table in (ALL_TABLES, *sorted(tables)[:MOST_TABLES]):
        before = found.before(account, table) or 0
        yield {
            "time": int(found.at),
            "received_at": milliseconds(found.at),
            "event_id": f"{account}/{table}/{before}",
            "account": account,
            "table_name": table,
            "complete_before": before,
            "dead": found.dead.get((account, table), 0),
        }
