"""Promise 6: the balance that operators see, taken while everything goes on, and when it has come to rest."""

from typing import Any

import msgpack

from ops.accounting import Accounting, Balance
from tests.chaos.world import BUCKET, STREAM, TABLE, World
from worker import aside


class _Impatient:
    """A clock at which no time passes: the balance is one moment's."""

    def __init__(self, world: World) -> None:
        self._world = world

    def now(self) -> float:
        return self._world.simulation.now

    def sleep(self, seconds: float) -> None:
        pass


def rows_of(stored: bytes) -> list[dict[str, Any]]:
    """Return the rows of an object of what is set aside; none where it holds what could not become rows."""
    chunk = aside.decode(stored)
    return _unpacked(chunk.payload) if chunk.payload_form == "rows" else []


def originals_of(stored: bytes) -> list[bytes]:
    """Return what an object holds of what could not become rows."""
    chunk = aside.decode(stored)
    return _unpacked(chunk.payload) if chunk.payload_form == "original" else []


def _unpacked(payload: bytes) -> list[Any]:
    unpacker = msgpack.Unpacker(max_buffer_size=max(1, len(payload)))
    unpacker.feed(payload)
    return list(unpacker)


class Audit:
    """Takes balances of a world, past its troubles.

    Args:
        world: the services.

    Attributes:
        faults: what was wrong with balances.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self.faults: list[str] = []

    def balance(self) -> Balance:
        """Return the balance of this moment."""
        world = self._world
        return Accounting(
            dynamodb=world.table,
            table=TABLE,
            kinesis=world.stream,
            stream_name=STREAM,
            aside=aside.Aside(world.bucket, BUCKET),
            sqs=world.queue,
            queue_url=world.queue_url,
            clock=_Impatient(world),
        ).take()

    def look(self) -> None:
        """Note what does not add up in the balance of this moment."""
        for place, rows in self.balance().tables.items():
            if not rows.adds_up:
                self.faults.append(f"{place} does not add up: {rows}")
