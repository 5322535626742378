"""Probe rows, which measure how long Treasure Data remembers an id, and how soon a query finds rows.

They go to a table of their own and are recognizable by their event_id. Nothing else can be written this way.
"""

import re
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import msgpack

from worker.deadline import Deadline
from worker.rows import compress
from worker.states import Presence
from worker.treasure_data.client import Meaning, Reply, TreasureDataClient

MEASURE_TABLE = "sluice_measure"
"""The table of probe rows."""

_MARK = re.compile(r"[a-z0-9-]{1,64}")
_SECONDS = 15.0
_ASK_SECONDS = 40.0


@dataclass(eq=False)
class ProbeRows:
    """Sends probe rows and queries them."""

    _treasure_data: TreasureDataClient

    def send(self, database: str, mark: str, of_id: str, time: int) -> dict[str, Any]:
        """Import the row of `mark`, with a time in UNIX seconds, under the unique_id of the mark `of_id`, which may be the same.

        Returns:
            `taken`, whether Treasure Data accepted it, and the `reason` if it did not.

        Raises:
            ValueError: a mark is invalid.
        """
        unique_id = sha256(f"sluice measures by {_checked(of_id)}".encode()).hexdigest()[:32]
        body = compress(msgpack.packb(_row(mark, time)))
        answer = self._import(database, unique_id, body)
        if answer.meaning is Meaning.NO_TABLE:
            if self._treasure_data.create_table(database, MEASURE_TABLE, _SECONDS).status == 404:
                self._treasure_data.create_database(database, _SECONDS)
                self._treasure_data.create_table(database, MEASURE_TABLE, _SECONDS)
            answer = self._import(database, unique_id, body)
        return {"taken": answer.meaning is Meaning.ACCEPTED, "reason": answer.reason}

    def ask(self, database: str, mark: str, time: int, deadline: Deadline) -> dict[str, Any]:
        """Return whether a query finds the row of a mark.

        Returns:
            `shown`, which is null if no answer settles it. Then `reason` is `forbidden` if the API key may not query, else
            `undecided`.

        Raises:
            ValueError: the mark is invalid.
        """
        rows = [[_row(mark, time)]]
        [presence] = self._treasure_data.ask(database, MEASURE_TABLE, rows, deadline.within(_ASK_SECONDS))
        if presence in (Presence.PRESENT, Presence.ABSENT):
            return {"shown": presence is Presence.PRESENT, "reason": ""}
        return {"shown": None, "reason": "forbidden" if presence is Presence.UNASKABLE else "undecided"}

    def _import(self, database: str, unique_id: str, body: bytes) -> Reply:
        return self._treasure_data.send(database, MEASURE_TABLE, unique_id, body, _SECONDS)


def _row(mark: str, time: int) -> dict[str, Any]:
    return {"time": time, "event_id": f"sluice-measure-{_checked(mark)}", "received_at": time * 1000}


def _checked(mark: str) -> str:
    if not _MARK.fullmatch(mark):
        raise ValueError(f"{mark!r} is not a mark: use 1 to 64 of a-z, 0-9 and -")
    return mark
