"""The warnings and errors that the functions have logged recently."""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from ops import screen
from ops.events.seen_event import json_object
from ops.logs.log_line import group_of, seconds_of
from ops.stack import Stack
from ops.template import sluice_template
from shared.errors import error_code
from worker.record import Number, number

_LOCAL_BYTES = 32 * 1024 * 1024  # of each function's log; an hour of a busy local stack
_PAGES = 20  # of up to 1 MB or 10,000 events; some pages are empty
_LATE_SECONDS = 60.0  # by which a function's clock may be ahead of this machine's
_FIRST_SECONDS = 300.0  # the latest part of the log; each earlier part is four times as long
_LEVELS = ("WARNING", "ERROR", "CRITICAL")
type _Lines = tuple[list[tuple[str, str]], list[str]]
"""Lines, each with the service that wrote it, and the logs that could not be read, each with the cause."""

_FAILED = ("timeout", "error", "failure")
_MARKED = re.compile("|".join(f'"{word}"' for word in (*_LEVELS, *_FAILED)).encode())
"""What every line of interest contains; parsing all lines of an hour takes too long."""


@dataclass(frozen=True, slots=True)
class Note:
    """A warning or an error in a function's log.

    Attributes:
        at: when, as ISO 8601 in UTC.
        why: the reason or error in the line; empty without one.
        error: the error's type alone.
        first: sequence number of the first of these records.
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
        """The time in UNIX seconds; 0 if the line has none."""
        return seconds_of(self.at)

    def is_about_after(self, settled: Number) -> bool:
        """Return whether it reports that a record after `settled` is held."""
        return self.first.isdecimal() and number(self.first) > settled


def troubles(stack: Stack, seconds: float) -> tuple[list[Note], list[str]]:
    """Return warnings and errors of the last seconds, oldest first, and the logs that could not be read, each with the cause."""
    now = time.time()
    found, unreadable = _local(stack) if stack.is_local else _deployed(stack, now, seconds)
    notes = (note for service, line in found if (note := _note(service, line)) is not None)
    recent = (note for note in notes if not stack.is_local or note.seconds >= now - seconds)
    return sorted(recent, key=lambda note: note.at), unreadable


def _local(stack: Stack) -> _Lines:
    lines: list[tuple[str, str]] = []
    unreadable = []
    for function, service in sluice_template().services().items():
        if function not in stack.outputs or stack.folder is None:
            continue
        try:
            with (stack.folder / f"{service}.log").open("rb") as log:
                log.seek(max(0, log.seek(0, 2) - _LOCAL_BYTES))
                lines += [(service, line.decode(errors="replace")) for line in log if _MARKED.search(line)]
        except OSError as error:
            unreadable.append(f"{service}: {type(error).__name__}")
    return lines, unreadable


def _deployed(stack: Stack, now: float, seconds: float) -> _Lines:
    """Return the relevant lines of the log group that all functions share.

    CloudWatch returns a part's oldest lines first, so the latest part is read first: it says what is wrong now.
    """
    lines: list[tuple[str, str]] = []
    levels = [f'($.level = "{level}")' for level in _LEVELS]
    ends = [f'($.record.status = "{status}")' for status in _FAILED]
    request: dict[str, Any] = {"filterPattern": f"{{ {' || '.join([*levels, *ends])} }}"}
    try:
        request["logGroupName"] = group_of(stack.client("lambda"), stack.outputs["WorkerFunction"])
        logs = stack.client("logs")
        pages = 0
        for begin, end in _parts(now, seconds):
            part: dict[str, Any] = {"startTime": int(begin * 1000), "endTime": int(end * 1000) - 1}
            while True:
                if pages >= _PAGES:
                    return lines, [f"the functions, before {screen.utc(int(end))}: there is too much to read"]
                pages += 1
                answer = logs.filter_log_events(**request, **part)
                lines += [
                    (_service(stack, event.get("logStreamName", "")), event["message"])
                    for event in answer["events"]
                ]
                if "nextToken" not in answer:
                    break
                part["nextToken"] = answer["nextToken"]
    except (ClientError, BotoCoreError) as error:
        return lines, [f"the functions: {error_code(error)}"]
    return lines, []


def _parts(now: float, seconds: float) -> Iterator[tuple[float, float]]:
    """Yield the parts of the last `seconds` to read, latest first, as beginnings and ends in UNIX seconds."""
    end, length, since = now + _LATE_SECONDS, _FIRST_SECONDS + _LATE_SECONDS, now - seconds
    while end > since:
        begin = max(since, end - length)
        yield begin, end
        end, length = begin, 4 * length


def _service(stack: Stack, log_stream: str) -> str:
    """Return the service that writes to a log stream: the stream's name contains the function's."""
    services = sluice_template().services()  # the outputs that name the functions are named like them
    names = (service for output, service in services.items() if stack.outputs.get(output, "?") in log_stream)
    return next(names, "")


def _note(service: str, line: str) -> Note | None:
    """Parse a log line. Return None unless it is a warning, an error, or Lambda's report of a failed invocation.

    Sluice's own lines name their service, which counts if the log does not name the function.
    """
    said = json_object(line)
    service = service or str(said.get("service") or "?")
    record = said.get("record")
    record = record if isinstance(record, dict) else {}
    status = record.get("status")
    at = str(said.get("timestamp") or said.get("time") or "?")[:19].replace(" ", "T")
    if status in _FAILED:  # Lambda's own report
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
    """Return the type of the exception in a line, and where it was raised; empty if there is none."""
    frames = said.get("frames")
    places = frames[-1:] if isinstance(frames, list) else []
    return " at ".join(str(part) for part in (said.get("exception_name"), *places) if part)
