"""The Lambda entry points of the delivery functions."""

from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache
from typing import Any

import msgpack

from shared.errors import EditRefusedError, HeldError
from worker.deadline import Deadline
from worker.forced_replay import Wanted
from worker.rows import decompress
from worker.selection import Selection
from worker.span import ChunkKey, Place, Span, milliseconds
from worker.states import State
from worker.wiring import Wiring

MARKED_SECONDS = 60.0
"""A shard gets a marker if its chain has nothing that arrived within this time."""


@cache
def _wiring() -> Wiring:
    return Wiring.from_environment()


@contextmanager
def _invocation(context: Any) -> Iterator[tuple[Wiring, Deadline]]:
    wiring = _wiring()
    with wiring.effects.telemetry.invocation(context):
        yield wiring, wiring.deadline(context)


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Take a batch of the stream's records; Lambda delivers again from the sequence number that this returns."""
    with _invocation(context) as (wiring, deadline):
        return wiring.worker.run(event, deadline)


def drain(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Handle a batch of the overflow queue's messages; Lambda deletes those that this does not return."""
    with _invocation(context) as (wiring, deadline):
        return wiring.drain.run(event, deadline)


def send(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Send what waits: the chunks that the event selects, or, on schedule, all that wait.

    Other members of the event ask for something else:

    - `edit` (`chain`, `after` and `chunk`, and `rows`: gzip of MessagePack maps in Base64) replaces a dead chunk's rows and sends them.
    - `repair` (also `chain`, `after` and `chunk`, and `events`: gzip of MessagePack `[[received_at, JSON], …]` in Base64) replaces
      rejected events with repaired ones and sends them.
    - `force` (`tag`, and optionally `account`, `table`, `database`, `since` and `until`; and `places`: `[[chain, after], …]`) appends
      delivered rows of these spans once more.
    - `mark` puts a marker on each shard that has received nothing for a minute, and notes whether the overflow queue is empty, so that
      watermarks advance.
    - `forget` (see `Forget.run`) finds and forgets persons.
    - `sweep` sweeps the bucket and goes on with searches for persons to forget, `watermark` does as `mark` and writes watermarks.

    If that is refused, the response has `error`, one word, and `message`.
    """
    with _invocation(context) as (wiring, deadline):
        return send_with(wiring, event, deadline)


def send_with(wiring: Wiring, event: dict[str, Any], deadline: Deadline) -> dict[str, Any]:
    """Do what an event asks of the sender; nothing while the ledger is one that was restored from a backup."""
    try:
        wiring.guard.check()
    except HeldError as reason:
        return {"error": "held", "message": str(reason)}
    if event.get("sweep"):
        try:
            return asdict(wiring.sweeper.run(deadline.within(deadline.left() / 2)))
        finally:  # a sweep that fails must not keep persons from being forgotten
            wiring.forget.run_due(deadline)
    if asked := event.get("forget"):
        return wiring.forget.run(asked, deadline)
    if event.get("watermark") or event.get("mark"):
        wiring.passing.mark(milliseconds(wiring.effects.clock.now() - MARKED_SECONDS))
        wiring.watermarks.note()
        return wiring.watermark_rows.write(deadline) if event.get("watermark") else {}
    if asked := event.get("force"):
        return _force(wiring, asked, deadline)
    for wish in ("repair", "edit"):
        if asked := event.get(wish):
            try:
                span = _replace(wiring, wish, asked)
            except (EditRefusedError, ValueError) as refused:
                return {"error": f"{wish}_refused", "message": str(refused)}
            return asdict(wiring.sender.run(deadline, Selection(chunks={span.place: frozenset(span.chunks)})))
    selection = Selection.from_event(event)
    replaced = 0
    if State.DEAD in selection.states and selection.decision is None:
        replaced = wiring.replacements.resend_all(selection, deadline)
    return asdict(wiring.sender.run(deadline, selection)) | {"replaced": replaced}


def _replace(wiring: Wiring, wish: str, asked: dict[str, Any]) -> Span:
    place, key = Place.parse(asked["chain"], asked["after"]), ChunkKey.parse(asked["chunk"])
    if wish == "repair":
        events = msgpack.unpackb(decompress(b64decode(asked["events"])))
        return wiring.replacements.repair(place, key, events)
    return wiring.replacements.edit(place, key, decompress(b64decode(asked["rows"])))


def _force(wiring: Wiring, asked: dict[str, Any], deadline: Deadline) -> dict[str, Any]:
    try:
        places = [Place.parse(chain, after) for chain, after in asked["places"]]
        outcome, done = wiring.forced_replays.run(Wanted.from_event(asked), places, deadline)
    except ValueError as refused:
        return {"error": "force_refused", "message": str(refused)}
    counts: dict[str, Any] = {"appended": {}, "repeated": {}, "left_out": {}, "done": done}
    for (kind, table), rows in (+outcome).items():
        counts[kind][table] = rows
    return counts


def admin(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Answer a request of the `sluice` command."""
    with _invocation(context) as (wiring, deadline):
        return wiring.admin.run(event, deadline)
