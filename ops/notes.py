"""The warnings and errors that the functions have logged lately."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from ops.stack import Stack
from worker.record import Number, number

SERVICES = {
    "IngestFunction": "ingest",
    "WorkerFunction": "worker",
    "RedriveFunction": "redrive",
    "DrainFunction": "drain",
    "ScaleFunction": "scale",
}
"""The functions whose logs are read, by the outputs that name them."""

UPLOAD_FAILED = "an upload failed"
"""What the worker logs when Treasure Data begins to fail, before it gives up."""

_LOCAL_BYTES = 256 * 1024
_PAGES = 20  # of up to 1 MB or 10,000 events; the answer has pages without any
_LEVELS = ("WARNING", "ERROR", "CRITICAL")
_ENDED_ILL = ("timeout", "error", "failure")


@dataclass(frozen=True, slots=True)
class Note:
    """A warning or an error in a function's log.

    Attributes:
        function: which one, as `worker`.
        at: when, as ISO 8601 in UTC.
        what: happened.
        why: the reason or error that it gives; empty without one.
        reason: the reason alone.
        error: the type of the error alone.
        shard: whose records it concerns, if it concerns any.
        first: sequence number of the first of them.
    """

    function: str
    at: str
    what: str
    why: str = ""
    reason: str = ""
    error: str = ""
    shard: str = ""
    first: str = ""

    @property
    def seconds(self) -> float:
        """When, in UNIX seconds; 0 if the line does not say."""
        try:
            return datetime.fromisoformat(self.at).replace(tzinfo=UTC).timestamp()
        except ValueError:
            return 0.0

    def is_about_after(self, settled: Number) -> bool:
        """Tell whether it reports that a record behind `settled` is held."""
        return self.first.isdecimal() and number(self.first) > settled


def troubles(stack: Stack, seconds: float) -> tuple[list[Note], list[str]]:
    """Return warnings and errors, the oldest first, and which logs could not be read, each with the cause.

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
        answers = list(threads.map(read, [one for one in SERVICES if one in stack.outputs]))
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
    levels = [f'($.level = "{level}")' for level in _LEVELS]
    ends = [f'($.record.status = "{status}")' for status in _ENDED_ILL]
    request: dict[str, Any] = {
        "logGroupName": settings["LoggingConfig"]["LogGroup"],
        "startTime": int(since * 1000),
        "filterPattern": f"{{ {' || '.join([*levels, *ends])} }}",
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
    """Return what a line says; None unless it is a warning, an error, or a report of an invocation that ended badly."""
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
    if said.get("level") not in _LEVELS:
        return None
    if said.get("errorType"):  # an exception that Lambda caught
        return Note(service, at, str(said["errorType"]), str(said.get("errorMessage", "")))
    why = said.get("reason") or said.get("error") or _exception(said) or said.get("code")
    parts = (said.get("database"), why)
    texts = (str(said.get(name) or "") for name in ("reason", "error", "shard", "sequence_number"))
    return Note(service, at, str(said.get("message")), ": ".join(str(part) for part in parts if part), *texts)


def _exception(said: dict[str, Any]) -> str:
    """Return the type of the exception that a line reports, and where it was raised; empty where there is none."""
    frames = said.get("frames")
    places = frames[-1:] if isinstance(frames, list) else []
    return " at ".join(str(part) for part in (said.get("exception_name"), *places) if part)
