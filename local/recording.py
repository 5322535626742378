"""Recorded HTTP requests, as a browser sent them: one JSON object per line."""

import json
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from doubles.http_server import Request
from shared.errors import SluiceError

EVENTS = Path(__file__).parents[1] / "events"
REQUESTS = EVENTS / "requests.jsonl"


class RecordingError(SluiceError):
    """The file is not a recording. The message gives the line."""


@dataclass(frozen=True)
class RecordedRequest(Request):
    """One recorded request.

    Attributes:
        step: what the browser was doing.
    """

    step: str = ""

    def to_line(self) -> str:
        """Return the request as a line of a recording."""
        document = {
            "step": self.step,
            "method": self.method,
            "target": self.target,
            "headers": self.headers,
            "body": b64encode(self.body).decode(),
        }
        return json.dumps(document, ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> "RecordedRequest":
        """Return the request that a line of a recording has.

        Raises:
            ValueError, KeyError, TypeError: the line is not a recorded request.
        """
        headers = tuple((name, value) for name, value in document["headers"])
        body = b64decode(document["body"], validate=True)
        return cls(document["method"], document["target"], headers, body, step=document["step"])


def write(requests: Iterable[RecordedRequest], path: Path = REQUESTS) -> None:
    """Write a recording."""
    path.write_text("".join(f"{request.to_line()}\n" for request in requests))


def read(path: Path = REQUESTS) -> list[RecordedRequest]:
    """Return the requests of a recording.

    Raises:
        RecordingError: the file cannot be read, or a line is not a recorded request.
    """
    requests = []
    try:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            try:
                requests.append(RecordedRequest.of(json.loads(line)))
            except (ValueError, KeyError, TypeError) as error:
                raise RecordingError(f"{path}, line {number}: {error}") from None
    except OSError as error:
        raise RecordingError(f"cannot read {path}: {error.strerror}") from None
    return requests
