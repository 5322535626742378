"""The worker's door: Kinesis → `handler`."""

from functools import cache
from typing import Any

from worker.sandbox import Sandbox


@cache
def _sandbox() -> Sandbox:
    return Sandbox()


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Carry out a batch of the stream's records; Lambda delivers again from the sequence number that is returned."""
    sandbox = _sandbox()
    try:
        return sandbox.worker.run(event, context.get_remaining_time_in_millis())
    finally:
        sandbox.journal.flush()
