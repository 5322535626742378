"""What a function has noted lately, from its log."""

import json
import time
from collections.abc import Iterator
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from ops.stack import Stack

_LOCAL_BYTES = 256 * 1024
_SERVICES = {"WorkerFunction": "worker", "RedriveFunction": "redrive", "DrainFunction": "drain"}


def notes(stack: Stack, function: str, message: str, seconds: float) -> list[dict[str, Any]]:
    """Return a function's notes of one kind, the oldest first; none where its log cannot be read.

    Args:
        stack: whose.
        function: the output that names it.
        message: what the note is about.
        seconds: how far to look back.
    """
    since = time.time() - seconds
    try:
        lines = list(
            _local(stack, function) if stack.is_local else _deployed(stack, function, message, since)
        )
    except (ClientError, BotoCoreError, OSError):
        return []
    found = []
    for line in lines:
        try:
            note = json.loads(line)
        except ValueError:
            continue
        if isinstance(note, dict) and note.get("message") == message:
            found.append(note)
    return found


def _local(stack: Stack, function: str) -> Iterator[str]:
    if stack.folder is None:
        return
    with (stack.folder / f"{_SERVICES[function]}.log").open("rb") as log:
        log.seek(max(0, log.seek(0, 2) - _LOCAL_BYTES))
        yield from log.read().decode(errors="replace").splitlines()


def _deployed(stack: Stack, function: str, message: str, since: float) -> Iterator[str]:
    settings = stack.client("lambda").get_function_configuration(FunctionName=stack.outputs[function])
    answer = stack.client("logs").filter_log_events(
        logGroupName=settings["LoggingConfig"]["LogGroup"],
        startTime=int(since * 1000),
        filterPattern=f'{{ $.message = "{message}" }}',
        limit=200,
    )
    for event in answer["events"]:
        yield event["message"]
