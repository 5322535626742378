"""API Gateway's HTTP API on one machine: a server that calls a handler with events of payload format 2.0."""

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from doubles.http_api import MAX_PAYLOAD_BYTES, answer_of, event_of, message, new_request_id
from doubles.http_server import HttpServer, RejectedError, Request, Response
from doubles.lambda_context import Context
from shared.clock import SystemClock

_log = logging.getLogger("doubles.gateway")

_FUNCTION_SECONDS = 60

Handler = Callable[[dict[str, Any], Any], Any]
Record = Callable[[str, str, list[tuple[str, str]], bytes, dict[str, Any] | None], None]
"""Gets each request: method, target, headers as sent, body, and its event, None if the gateway rejected it."""


class Gateway(HttpServer):
    """Serves a handler, as Lambda calls it, over HTTP.

    Args:
        record: is told of each request before it is handled, by the thread that serves it.
        answered: is told of each response before it is sent, likewise.
    """

    def __init__(
        self,
        handler: Handler,
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
        request_id = new_request_id()
        event = None
        try:
            event = event_of(request, request_id=request_id, now=self._clock.now())
        except RejectedError as rejected:
            answer = message(rejected.status, rejected.message)
        self._record(request.method, request.target, list(request.headers), request.body, event)
        if event is not None:
            answer = self._invoke(event)
        self._answered(request, answer)
        return replace(answer, headers=(*answer.headers, ("Apigw-Requestid", request_id)))

    def _invoke(self, event: dict[str, Any]) -> Response:
        deadline = self._clock.now() + _FUNCTION_SECONDS
        context = Context(function_name="IngestFunction", deadline=deadline, now=self._clock.now)
        try:
            # both ways through JSON, as in Lambda
            result = json.dumps(self._handler(json.loads(json.dumps(event)), context), ensure_ascii=False)
        except BaseException:  # noqa: BLE001 -- Lambda survives whatever a function raises
            _log.exception("the function failed")
            return message(500, "Internal Server Error")
        if len(result.encode("utf-8", "surrogatepass")) > MAX_PAYLOAD_BYTES:
            return message(500, "Internal Server Error")
        return answer_of(json.loads(result))
