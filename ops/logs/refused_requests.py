"""Requests that the ingest refused as a whole. They never reach the stream, so they are read from the ingest's log."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from botocore.exceptions import BotoCoreError, ClientError

from ops.events.seen_event import Kind, Notice, SeenEvent, json_object
from ops.logs.log_line import group_of, seconds_of
from shared.clock import Clock
from shared.errors import error_code
from shared.rows import Code, PlanCode

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_logs import CloudWatchLogsClient

_PATIENCE_SECONDS = 5.0  # before a failed read is retried
_LOCAL_SECONDS = 0.5
_LOG_SECONDS = 2.0
_LOG_LATE_SECONDS = 60.0  # how late a line may show up in CloudWatch Logs
_LOG_BYTES = 1 << 20
_EVENT_CODES = frozenset((*get_args(Code), *get_args(PlanCode)))


@dataclass
class LocalLog:
    """Reads refused requests from the log of the local stack's ingest, from a time on (UNIX seconds), or those written from now on."""

    path: Path
    clock: Clock
    since: float | None
    due: float = 0.0

    def __post_init__(self) -> None:
        is_new = self.since is None and self.path.exists()
        self._offset = self.path.stat().st_size if is_new else 0

    def step(self) -> Sequence[SeenEvent | Notice]:
        """Return the refused requests in the complete lines."""
        self.due = self.clock.now() + _LOCAL_SECONDS
        try:
            with self.path.open("rb") as log:
                if self._offset > log.seek(0, os.SEEK_END):
                    self._offset = 0  # it was replaced
                log.seek(self._offset)
                data = log.read(_LOG_BYTES)
        except OSError:
            return []
        complete = data[: data.rfind(b"\n") + 1] or (data if len(data) == _LOG_BYTES else b"")
        self._offset += len(complete)
        if len(data) == _LOG_BYTES:
            self.due = 0.0  # there is more
        found = [refused_request(line) for line in complete.decode(errors="replace").splitlines()]
        return [one for one in found if one and (self.since is None or one.at >= self.since)]


@dataclass
class CloudWatchLog:
    """Reads refused requests from the log of a deployed stack's ingest, from a time on (UNIX seconds), or those written from now on.

    CloudWatch shows lines some seconds late and out of order, so each read looks back.
    """

    logs: "CloudWatchLogsClient"
    functions: "LambdaClient"
    function: str
    clock: Clock
    since: float | None
    due: float = 0.0

    def __post_init__(self) -> None:
        self._since = self.clock.now() if self.since is None else self.since
        self._group = ""
        self._next = ""  # continues a query that has more pages
        self._is_live = False
        self._seen: dict[str, float] = {}

    def step(self) -> Sequence[SeenEvent | Notice]:
        """Read the log once. If that is not permitted, report it and never query again."""
        now = self.clock.now()
        self.due = now + _LOG_SECONDS
        try:
            return self._read(now)
        except ClientError as error:
            code = error_code(error)
            throttled = "Throttling" in code or code == "LimitExceededException"
            self.due = now + _PATIENCE_SECONDS if throttled else float("inf")
            return [] if throttled else [_unreadable(code)]
        except BotoCoreError as error:
            self.due = now + _PATIENCE_SECONDS
            return [_unreadable(type(error).__name__)]

    def _read(self, now: float) -> list[SeenEvent]:
        """Read one page."""
        if not self._group:
            self._group = group_of(self.functions, self.function)
        if self._is_live and not self._next:
            self._since = max(self._since, now - _LOG_LATE_SECONDS)
        more = {"nextToken": self._next} if self._next else {}
        answer = self.logs.filter_log_events(
            logGroupName=self._group,
            startTime=int(self._since * 1000),
            filterPattern='{ $.message = "refused" }',
            **more,  # type: ignore[arg-type]  # the stub has no optional argument
        )
        found = []
        for event in answer["events"]:
            one = refused_request(event["message"])
            if one and event["eventId"] not in self._seen:
                found.append(one)
            self._seen[event["eventId"]] = event["timestamp"] / 1000
        self._next = answer.get("nextToken", "")
        if self._next:
            self.due = 0.0  # there is more
        else:
            self._is_live = True
            self._seen = {one: at for one, at in self._seen.items() if at >= self._since}
        return found


def _unreadable(cause: str) -> Notice:
    return Notice("log", f"refused requests are not shown: the ingest's log cannot be read ({cause}).")


def refused_request(line: str) -> SeenEvent | None:
    """Return the refused request that a line of the ingest's log reports; None if it reports something else.

    Lines with an event's code are skipped: they report a request with one rejected event, which is on the stream.
    """
    said = json_object(line)
    if said.get("message") != "refused" or said.get("code") in _EVENT_CODES:
        return None
    return SeenEvent(
        kind=Kind.REFUSED,
        at=seconds_of(str(said.get("timestamp", ""))),
        request_id=str(said.get("request", "")),
        code=str(said.get("code", "")),
        path=str(said.get("path", "")),
    )
