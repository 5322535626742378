"""A local double of API Gateway's HTTP API: it turns a request into an event, and a function's result into a response.

It uses payload format 2.0. Where AWS's documentation is silent, it follows what was captured from live APIs: paths are
decoded twice and cut at a question mark that the first decoding reveals; repeated headers are joined by a comma alone;
only `text/*`, JSON, XML and JavaScript bodies travel as text. It was not captured, and is a guess, that text that is not UTF-8 and
anything with a content encoding travel in base64. Of AWS's limits of size, only
that of the request line and the header values applies here, because pages run into it.
"""

import json
import logging
import re
import secrets
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from operator import itemgetter
from typing import Any
from urllib.parse import parse_qsl, quote, unquote

from doubles.http_server import HttpServer, RejectedError, Request, Response
from doubles.lambda_context import Context
from shared.clock import SystemClock

_log = logging.getLogger("doubles.gateway")

_FUNCTION_SECONDS = 60
_MAX_HEAD_BYTES = 10_240
_TEXT_TYPES = frozenset({"application/json", "application/javascript", "application/xml"})
_HOP_BY_HOP = frozenset({"connection", "content-length", "keep-alive", "te", "transfer-encoding", "upgrade"})
_NOT_PASSED_ON = _HOP_BY_HOP | {"cookie"}  # request headers; cookies have their own member
_BROKEN_ESCAPE = re.compile("%(?![0-9A-Fa-f]{2})")
_PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))

Record = Callable[[str, str, list[tuple[str, str]], bytes, dict[str, Any] | None], None]
"""Called with each request: method, target, headers as sent, body, and the event; None if the gateway rejected the request."""


class Gateway(HttpServer):
    """Serves a Lambda handler over HTTP.

    Args:
        record: called with each request before it is handled, in the thread that serves it.
        answered: called with each request and its response before it is sent, in the same thread.
    """

    def __init__(
        self,
        handler: Callable[[dict[str, Any], Any], Any],
        *,
        record: Record = lambda *_: None,
        answered: Callable[[Request, Response], None] = lambda *_: None,
        port: int = 0,
    ) -> None:
        self._handler = handler
        self._record = record
        self._clock = SystemClock()
        self._answered = answered
        super().__init__(self._respond, port=port)

    def _respond(self, request: Request) -> Response:
        request_id = _new_request_id()
        event = None
        try:
            event = event_of(request, request_id=request_id, now=self._clock.now())
        except RejectedError as rejected:
            answer = _message(rejected.status, rejected.message)
        self._record(request.method, request.target, list(request.headers), request.body, event)
        if event is not None:
            answer = self._invoke(event)
        self._answered(request, answer)
        return replace(answer, headers=(*answer.headers, ("Apigw-Requestid", request_id)))

    def _invoke(self, event: dict[str, Any]) -> Response:
        deadline = self._clock.now() + _FUNCTION_SECONDS
        context = Context(function_name="IngestFunction", deadline=deadline, now=self._clock.now)
        try:
            # event and result pass through JSON, as in Lambda
            return answer_of(json.loads(json.dumps(self._handler(json.loads(json.dumps(event)), context))))
        except (Exception, SystemExit):  # noqa: BLE001 -- Lambda survives whatever a function raises
            _log.exception("the function failed")
            return _message(500, "Internal Server Error")


def event_of(request: Request, *, request_id: str, now: float) -> dict[str, Any]:
    """Return the event for a request to the `$default` route.

    Raises:
        RejectedError: the path cannot be decoded (400), or request line and header values are too long (414).
    """
    line = f"{request.method} {request.target} HTTP/1.1"
    if len(line) + sum(len(value) for _, value in request.headers) > _MAX_HEAD_BYTES:
        raise RejectedError(414, "URI Too Long")
    path, _, query = quote(request.target.encode("latin-1"), safe=_PRINTABLE).partition("?")
    raw_path = _decoded(_decoded(path).partition("?")[0])
    sent = sorted(((name.lower(), value) for name, value in request.headers), key=itemgetter(0))
    headers = _joined(pair for pair in sent if pair[0] not in _NOT_PASSED_ON)
    parts = ";".join(value for name, value in sent if name == "cookie").split(";")
    cookies = [part.strip() for part in parts if part.strip()]
    host = headers.get("host", "localhost").partition(":")[0]
    parameters = _joined(parse_qsl(query, keep_blank_values=True, errors="replace"))
    event: dict[str, Any] = {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": raw_path,
        "rawQueryString": query,
        **({"cookies": cookies} if cookies else {}),
        "headers": headers | _added_headers(request, headers, now),
        **({"queryStringParameters": parameters} if parameters else {}),
        "requestContext": {
            "accountId": "123456789012",
            "apiId": "local",
            "domainName": host,
            "domainPrefix": host.partition(".")[0],
            "http": {
                "method": request.method,
                "path": raw_path,
                "protocol": "HTTP/1.1",
                "sourceIp": request.source_ip,
                "userAgent": headers.get("user-agent", ""),
            },
            "requestId": request_id,
            "routeKey": "$default",
            "stage": "$default",
            "time": datetime.fromtimestamp(now, UTC).strftime("%d/%b/%Y:%H:%M:%S +0000"),
            "timeEpoch": int(now * 1000),
        },
        "isBase64Encoded": False,
    }
    if request.body:
        event["body"], event["isBase64Encoded"] = _body(request.body, headers)
    return event


def answer_of(result: Mapping[str, Any]) -> Response:
    """Return the response for a function's result.

    Raises:
        Exception: the result is malformed.
    """
    data = (result.get("body") or "").encode("utf-8", "replace")
    data = b64decode(data, validate=True) if result.get("isBase64Encoded") else data
    headers = result.get("headers") or {}
    kept = {name: value for name, value in headers.items() if name.lower() not in _HOP_BY_HOP}
    if "content-type" not in map(str.lower, kept):
        kept["Content-Type"] = "text/plain; charset=utf-8"
    cookies = (("Set-Cookie", cookie) for cookie in result.get("cookies") or ())
    return Response(result["statusCode"], data, (*kept.items(), *cookies))


def _decoded(path: str) -> str:
    if not path.startswith("/") or _BROKEN_ESCAPE.search(path):
        raise RejectedError(400, "Bad Request")
    return unquote(path, errors="replace")


def _joined(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    joined: dict[str, list[str]] = {}
    for name, value in pairs:
        joined.setdefault(name, []).append(value)
    return {name: ",".join(values) for name, values in joined.items()}


def _added_headers(request: Request, headers: Mapping[str, str], now: float) -> dict[str, str]:
    forwarded = headers.get("x-forwarded-for")
    added = {
        "content-length": str(len(request.body)),
        "x-amzn-trace-id": headers.get("x-amzn-trace-id") or f"Root=1-{int(now):08x}-{secrets.token_hex(12)}",
        "x-forwarded-for": f"{forwarded}, {request.source_ip}" if forwarded else request.source_ip,
        "x-forwarded-port": "443",
        "x-forwarded-proto": "https",
    }
    says_empty = not request.body and any(name.lower() == "content-length" for name, _ in request.headers)
    if says_empty and "content-type" not in headers:
        added["content-type"] = "text/plain; charset=utf-8"
    return added


def _body(body: bytes, headers: Mapping[str, str]) -> tuple[str, bool]:
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    is_text = media_type.startswith("text/") or media_type in _TEXT_TYPES
    if is_text and "content-encoding" not in headers:
        with suppress(UnicodeDecodeError):
            return body.decode(), False
    return b64encode(body).decode(), True


def _message(status: int, text: str) -> Response:
    """Return a response of the gateway itself."""
    body = json.dumps({"message": text}, separators=(",", ":")).encode()
    return Response(status, body, (("Content-Type", "application/json"),))


def _new_request_id() -> str:
    """Return an id like the gateway's: 16 characters, the last one `=`."""
    return b64encode(secrets.token_bytes(11), altchars=b"-_").decode()
