"""The test event of `sluice doctor`: sent through the stack, and looked for in the ledger."""

import time
from dataclasses import replace
from uuid import uuid4

import requests

from ops.stack import Stack
from ops.state.causes import PUT_AGAIN, wait_cause
from ops.state.checks import TEST_TABLE
from ops.state.finding import Finding, fault, ok
from ops.stream.readable_shards import Position
from worker.chain import ChainId
from worker.record import Number, number
from worker.span import Span
from worker.states import UNSETTLED, State

_CLOCK_SECONDS = 30.0
_FOUND_SECONDS = 60.0


def send_test_event(stack: Stack, key: str) -> Finding:
    """Send one test event with a write key, and wait until the ledger has settled it."""
    url, mark = stack.outputs["ApiUrl"], f"sluice-doctor-{uuid4()}"
    event = {"table": TEST_TABLE, "event_id": mark}
    try:
        answer = stack.http().post(
            f"{url}/v1/events", json={"events": [event]}, headers={"x-write-key": key}, timeout=_CLOCK_SECONDS
        )
    except requests.RequestException as error:
        return fault("test event", f"it could not be sent: {type(error).__name__}")
    if answer.status_code != 200:
        return fault("test event", f"{url} answered {answer.status_code}: {answer.text[:200]}")
    started, patience = time.time(), _FOUND_SECONDS + stack.window_seconds
    place = None
    while time.time() - started < patience:
        place = place or _find(stack, mark, started - _CLOCK_SECONDS, started + patience)
        span = None if place is None else stack.membership().locate(*place)
        if isinstance(span, Span) and span.settled:
            return outcome(span, time.time() - started, stack.option)
        time.sleep(1)
    return fault(
        "test event",
        f"accepted, but not settled after {patience:.0f} s: `sluice status {stack.option}` shows why",
    )


def _find(stack: Stack, mark: str, since: float, until: float) -> tuple[ChainId, Number] | None:
    """Return where the test event is on the stream: its shard's chain and its record's number."""
    stream = stack.shards()
    for shard in stream.all():
        for page in stream.pages(shard.shard_id, Position(moment=since), until):
            for record in page.records:
                if mark.encode() in record["Data"]:
                    return shard.chain, number(record["SequenceNumber"])
    return None


def outcome(span: Span, seconds: float, option: str) -> Finding:
    """Return the result of the test event: it passes only if the event was delivered. What it waits for is no fault of its own."""
    left = [
        entry
        for key, entry in span.all_leaves()
        if key.group.table == TEST_TABLE and entry.state in UNSETTLED | {State.DEAD}
    ]
    if not left:
        return ok("test event", f"delivered (according to the ledger) after {seconds:.1f} s")
    state, reason = left[0].state.value, left[0].reason
    if left[0].state in UNSETTLED:
        reason = PUT_AGAIN if left[0].state is State.AGAIN else reason
        cause = wait_cause(reason, "the database of its account", option)
        said = f"accepted, but {state} after {seconds:.1f} s: {cause.said}"
        is_usual = cause.fault == "rows_wait"  # after so short a time
        return replace(cause, what="test event", said=said, state="unknown" if is_usual else cause.state)
    return fault(
        "test event",
        f"accepted, but {state} after {seconds:.1f} s ({reason}): `sluice status {option}` shows what to do",
    )
