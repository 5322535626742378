"""Probe rows: they measure how long Treasure Data remembers an id, and how soon it shows rows.

They go to a table of their own and say what they are; nothing else can be written this way.
"""

import re
from hashlib import sha256
from typing import Any

import msgpack

from worker.chunk import compress
from worker.deadline import Deadline
from worker.question import Presence
from worker.treasure_data import Meaning, Reply, TreasureDataClient

MEASURE_TABLE = "sluice_measure"
"""Where they go."""

_MARK = re.compile(r"[a-z0-9-]{1,64}")
_SECONDS = 15.0
_ASK_SECONDS = 40.0


class ProbeRows:
    """Sends probe rows and asks for them."""

    def __init__(self, treasure_data: TreasureDataClient) -> None:
        self._treasure_data = treasure_data

    def send(self, database: str, mark: str, of_id: str, time: int) -> dict[str, Any]:
        """Import the row of a mark, with a time in UNIX seconds, under the id that another mark, or the same, stands for.

        Raises:
            ValueError: it is not a mark.
        """
        unique_id = sha256(f"sluice measures by {_checked(of_id)}".encode()).hexdigest()[:32]
        body = compress(msgpack.packb(_row(mark, time)))
        answer = self._import(database, unique_id, body)
        if answer.meaning is Meaning.NO_TABLE:
            if self._treasure_data.create_table(database, MEASURE_TABLE, _SECONDS) == 404:
                self._treasure_data.create_database(database, _SECONDS)
                self._treasure_data.create_table(database, MEASURE_TABLE, _SECONDS)
            answer = self._import(database, unique_id, body)
        return {"taken": answer.meaning is Meaning.ACCEPTED, "reason": answer.reason}

    def ask(self, database: str, mark: str, time: int, deadline: Deadline) -> dict[str, Any]:
        """Return whether a query finds the row of a mark.

        Returns:
            `shown`, null where it cannot be told, and then the `reason`: `forbidden` where the API key may not query, else
            `undecided`.

        Raises:
            ValueError: it is not a mark.
        """
        rows = [_row(mark, time)]
        presence = self._treasure_data.ask(database, MEASURE_TABLE, rows, deadline.within(_ASK_SECONDS))
        if presence in (Presence.PRESENT, Presence.ABSENT):
            return {"shown": presence is Presence.PRESENT, "reason": ""}
        return {"shown": None, "reason": "forbidden" if presence is Presence.UNASKABLE else "undecided"}

    def _import(self, database: str, unique_id: str, body: bytes) -> Reply:
        return self._treasure_data.send(database, MEASURE_TABLE, unique_id, body, _SECONDS)


def _row(mark: str, time: int) -> dict[str, Any]:
    return {"time": time, "event_id": f"sluice-measure-{_checked(mark)}", "received_at": time * 1000}


def _checked(mark: str) -> str:
    if not _MARK.fullmatch(mark):
        raise ValueError(f"{mark!r} cannot be a mark")
    return mark
