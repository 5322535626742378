"""The Lambda entry points of the delivery functions."""

from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache
from gzip import BadGzipFile, decompress
from typing import Any

import msgpack

from shared.errors import EditRefusedError
from worker.deadline import Deadline
from worker.delivery import ASIDE, State
from worker.ledger import Place
from worker.selection import Selection
from worker.span import ChunkKey
from worker.wiring import Wiring


@cache
def _wiring() -> Wiring:
    return Wiring.from_environment()


@contextmanager
def _invocation(context: Any) -> Iterator[tuple[Wiring, Deadline]]:
    wiring = _wiring()
    with wiring.effects.telemetry.invocation(context):
        yield wiring, wiring.deadline(context)


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Deliver a batch of the stream's records; Lambda redelivers from the sequence number that this returns."""
    with _invocation(context) as (wiring, deadline):
        return wiring.worker.run(event, deadline)


def drain(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Handle a batch of the overflow queue's messages; Lambda deletes those that this does not return."""
    with _invocation(context) as (wiring, deadline):
        return wiring.drain.run(event, deadline)


def redrive(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Send set-aside chunks: those that the event selects, or, on schedule, those that are parked or in doubt.

    Other members of the event ask for something else:

    - `edit` (`chain`, `after` and `chunk`, and `rows`: gzip of MessagePack maps in Base64) replaces a dead letter's rows and
      sends only this chunk.
    - `repair` (also `chain`, `after` and `chunk`, and `events`: gzip of MessagePack `[[received_at, JSON], …]` in Base64) puts
      repaired events on the stream in place of rejected ones.
    - `sweep` sweeps the bucket, `watermark` writes watermarks.

    If an edit or a repair is refused, the response has `error`, one word, and `message`.
    """
    with _invocation(context) as (wiring, deadline):
        return redrive_with(wiring, event, deadline)


def redrive_with(wiring: Wiring, event: dict[str, Any], deadline: Deadline) -> dict[str, Any]:
    """Do what an event asks of the redrive."""
    if event.get("sweep"):
        sweep = wiring.sweeper.run(deadline)
        return {"deleted": sweep.deleted, "needed": sweep.needed, "unknown": sweep.unknown}
    if event.get("watermark"):
        return wiring.watermark_rows.write(deadline)
    selection = Selection.from_event(event)
    for wish in ("repair", "edit"):
        if asked := event.get(wish):
            try:
                place, key = Place.parse(asked["chain"], asked["after"]), ChunkKey.parse(asked["chunk"])
                if wish == "repair":
                    events = msgpack.unpackb(decompress(b64decode(asked["events"])))
                    return {"repaired": wiring.returns.events(place, key, events)}
                wiring.edits.make(place, key, decompress(b64decode(asked["rows"])))
            except (EditRefusedError, ValueError, BadGzipFile) as refused:
                return {"error": f"{wish}_refused", "message": str(refused)}
            selection = Selection(tuple(ASIDE), place=place, chunk=key)
    wiring.markers.put()
    returned = 0
    if State.DEAD_LETTER in selection.states and selection.decision is None and selection.place is None:
        returned = wiring.returns.run(selection, deadline)
    return asdict(wiring.redrive.run(deadline, selection)) | {"returned": returned}


def admin(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Answer a request of the `sluice` command."""
    with _invocation(context) as (wiring, deadline):
        return wiring.admin.run(event, deadline)
