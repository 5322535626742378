"""What the functions have noted lately that a person should know of, from their logs."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from ops.stack import Stack

TROUBLE = (
    "a message could not be set aside",
    "accounts cannot be asked for",
    "ambiguous: sent again although Treasure Data may have it",
    "breaker could not be written",
    "breaker opened",
    "held",
    "redrive could not go on",
    "rows that were planned are not on the shard",
    "set aside, but not in the ledger",
    "the stream could not be searched",
)
"""Messages that tell of trouble, though their lines are information; what is a warning or an error does so anyway."""
SERVICES = {
    "IngestFunction": "ingest",
    "WorkerFunction": "worker",
    "RedriveFunction": "redrive",
    "DrainFunction": "drain",
}
"""The functions whose logs are read, by the outputs that name them."""

_LOCAL_BYTES = 256 * 1024
_PAGES = 20  # of up to 1 MB or 10,000 events; the answer has pages without any
_LEVELS = ("WARNING", "ERROR", "CRITICAL")
_ENDED_ILL = ("timeout", "error", "failure")


@dataclass(frozen=True, slots=True)
class Note:
    """A line of a function's log.

    Attributes:
        function: which one, as `worker`.
        at: when, as ISO 8601 in UTC.
        what: it is about.
        why: the reason or error that it gives; empty without one.
    """

    function: str
    at: str
    what: str
    why: str = ""


def troubles(stack: Stack, seconds: float) -> tuple[list[Note], list[str]]:
    """Return what the functions have noted, the oldest first, and which logs could not be read, each with the cause.

    Args:
        stack: whose.
        seconds: how far to look back.
    """
    since = time.time() - seconds

    def read(function: str) -> list[Note] | str:
        try:
            lines = _local(stack, function) if stack.is_local else _deployed(stack, function, since)
            return [note for line in lines if (note := _note(SERVICES[function], line)) is not None]
        except ClientError as error:
            return f"{SERVICES[function]}: {error.response['Error']['Code']}"
        except (BotoCoreError, OSError) as error:
            return f"{SERVICES[function]}: {type(error).__name__}"

    with ThreadPoolExecutor(len(SERVICES)) as threads:
        answers = list(threads.map(read, SERVICES))
    notes = [note for answer in answers if not isinstance(answer, str) for note in answer]
    return sorted(notes, key=lambda note: note.at), [one for one in answers if isinstance(one, str)]


def _local(stack: Stack, function: str) -> Iterator[str]:
    if stack.folder is None:
        return
    with (stack.folder / f"{SERVICES[function]}.log").open("rb") as log:
        log.seek(max(0, log.seek(0, 2) - _LOCAL_BYTES))
        yield from log.read().decode(errors="replace").splitlines()


def _deployed(stack: Stack, function: str, since: float) -> Iterator[str]:
    settings = stack.client("lambda").get_function_configuration(FunctionName=stack.outputs[function])
    messages = [f'($.message = "{message}")' for message in TROUBLE if function != "IngestFunction"]
    levels = [f'($.level = "{level}")' for level in _LEVELS]
    ends = [f'($.record.status = "{status}")' for status in _ENDED_ILL]
    request: dict[str, Any] = {
        "logGroupName": settings["LoggingConfig"]["LogGroup"],
        "startTime": int(since * 1000),
        "filterPattern": f"{{ {' || '.join([*messages, *levels, *ends])} }}",
    }
    logs = stack.client("logs")
    for _ in range(_PAGES):
        answer = logs.filter_log_events(**request)
        for event in answer["events"]:
            yield event["message"]
        if "nextToken" not in answer:
            return
        request["nextToken"] = answer["nextToken"]


def _note(service: str, line: str) -> Note | None:
    """Return what a line says; None where it tells of no trouble."""
    try:
        said = json.loads(line)
    except ValueError:
        return None
    if not isinstance(said, dict):
        return None
    record = said.get("record")
    record = record if isinstance(record, dict) else {}
    status = record.get("status")
    at = str(said.get("timestamp") or said.get("time") or "?")[:19].replace(" ", "T")
    if status in _ENDED_ILL:  # Lambda's own word on an invocation
        return Note(service, at, f"an invocation ended with {status}", str(record.get("errorType") or ""))
    message = said.get("message")
    if message not in TROUBLE and said.get("level") not in _LEVELS:
        return None
    why = said.get("reason") or said.get("error") or said.get("code")
    if said.get("errorType"):
        return Note(service, at, str(said["errorType"]), str(said.get("errorMessage", "")))
    return Note(
        service, at, str(message), ": ".join(str(part) for part in (said.get("database"), why) if part)
    )
