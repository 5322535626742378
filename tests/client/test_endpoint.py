"""What the client concludes from each response to a batch."""

import json

import pytest

from sluice_client.endpoint import Answer, Refused, Settled, Unacceptable, Unknown, meaning

NOW = 1_764_000_000.0
ELSEWHERE = "https://collect.example.com/v1/events"
ERROR = b'{"error": {"code": "c", "message": "text"}}'


def accepted(count: int, *rejected: object) -> bytes:
    """Return the body of a response of the events API."""
    return json.dumps({"accepted": count, "rejected": rejected}).encode()


def foreign(status: int, more: str = "") -> Unknown:
    """Return what a response means that is not from Sluice."""
    message = f"the response is not from Sluice: HTTP status {status}{more}"
    return Unknown(f"http_{status}", message, needs_operator=True)


REJECTED = {"index": 1, "code": "too_deep", "message": "m"}


@pytest.mark.parametrize(
    ("status", "headers", "body", "expected"),
    [
        (200, {}, accepted(2), Settled([])),
        (200, {}, accepted(1, REJECTED), Settled([Refused(1, "too_deep", "m")])),
        (400, {}, accepted(0, {**REJECTED, "index": 0}, REJECTED), Settled([Refused(0, "too_deep", "m"), Refused(1, "too_deep", "m")])),
        # not every event is accounted for, or one is accounted for twice
        (200, {}, accepted(1), foreign(200)),
        (200, {}, accepted(0, REJECTED, REJECTED), foreign(200)),
        (200, {}, accepted(1, {**REJECTED, "index": 2}), foreign(200)),
        # not from Sluice
        (200, {}, b"<html>", foreign(200)),
        (200, {}, b"", foreign(200)),
        (202, {}, accepted(2), foreign(202)),
        (301, {"location": ELSEWHERE}, b"", foreign(301, f" {ELSEWHERE}")),
        (413, {}, b"<html>", foreign(413)),
        # rejected as a whole
        (400, {"x-sluice-error": "invalid_json"}, ERROR, Unacceptable("invalid_json", "text")),
        (413, {"x-sluice-error": "body_too_large"}, b"<html>", Unacceptable("body_too_large", "HTTP status 413")),
        # until an operator changes something, perhaps a proxy
        (400, {"x-sluice-error": "unreadable_body"}, ERROR, Unknown("unreadable_body", "text", needs_operator=True)),
        (400, {"x-sluice-error": "unsupported_encoding"}, ERROR, Unknown("unsupported_encoding", "text", needs_operator=True)),
        (401, {"x-sluice-error": "invalid_key"}, ERROR, Unknown("invalid_key", "text", needs_operator=True)),
        (403, {"x-sluice-error": "unwanted_bot"}, ERROR, Unknown("unwanted_bot", "text", needs_operator=True)),
        (404, {"x-sluice-error": "not_found"}, ERROR, Unknown("not_found", "text", needs_operator=True)),
        # temporary
        (429, {"retry-after": "7"}, b"", Unknown("http_429", "HTTP status 429", 7.0)),
        (503, {"x-sluice-error": "stream_unavailable", "retry-after": "5"}, ERROR, Unknown("stream_unavailable", "text", 5.0)),
        (503, {"retry-after": "Mon, 24 Nov 2025 16:01:00 GMT"}, b"", Unknown("http_503", "HTTP status 503", 60.0)),
        (503, {"retry-after": "Mon, 24 Nov 2025 15:59:00 GMT"}, b"", Unknown("http_503", "HTTP status 503")),
        (503, {"retry-after": "99999999999"}, b"", Unknown("http_503", "HTTP status 503", 3600.0)),
        (503, {"retry-after": "soon"}, b"", Unknown("http_503", "HTTP status 503")),
    ],
)  # fmt: skip
def test_only_a_documented_response_settles_a_batch(
    status: int, headers: dict[str, str], body: bytes, expected: Answer
) -> None:
    """Any other response leaves the batch as it is, to be sent again."""
    assert expected == meaning(status, headers, body, 2, NOW)
