"""Recorded HTTP requests, as a browser sent them: one JSON object a line."""

import json
from base64 import b64decode, b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from shared.errors import SluiceError

EVENTS = Path(__file__).parents[1] / "events"
REQUESTS = EVENTS / "requests.jsonl"


class RecordingError(SluiceError):
    """The file holds no recording; the message says where it breaks."""


@dataclass(frozen=True, slots=True)
class RecordedRequest:
    """One request.

    Attributes:
        step: what the browser was doing.
        method: such as `GET`.
        target: path and query, as they stood in the request line.
        headers: name and value, in their order.
        body: as it was sent, compressed where `content-encoding` says so.
    """

    step: str
    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""

    def header(self, name: str) -> str:
        """Return a header's value, empty where there is none; `name` in lower case."""
        return next((value for header, value in self.headers if header.lower() == name), "")

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]

    def to_line(self) -> str:
        """Return its line."""
        document = {
            "step": self.step,
            "method": self.method,
            "target": self.target,
            "headers": self.headers,
            "body": b64encode(self.body).decode(),
        }
        return json.dumps(document, ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_line(cls, line: str) -> "RecordedRequest":
        """Return the request of a line.

        Raises:
            ValueError, KeyError, TypeError: the line holds none.
        """
        document = json.loads(line)
        headers = tuple((name, value) for name, value in document["headers"])
        body = b64decode(document["body"], validate=True)
        return cls(document["step"], document["method"], document["target"], headers, body)


def write(requests: Iterable[RecordedRequest], path: Path = REQUESTS) -> None:
    """Write a recording."""
    path.write_text("".join(f"{request.to_line()}\n" for request in requests))


def read(path: Path = REQUESTS) -> list[RecordedRequest]:
    """Return the requests of a recording.

    Raises:
        RecordingError: there is no such file, or a line holds no request.
    """
    requests = []
    try:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            try:
                requests.append(RecordedRequest.from_line(line))
            except (ValueError, KeyError, TypeError) as error:
                raise RecordingError(f"{path}, line {number}: {error}") from None
    except OSError as error:
        raise RecordingError(f"{path} cannot be read: {error.strerror}") from None
    return requests
