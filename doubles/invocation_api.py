"""Lambda's Invoke API in front of one function, so that AWS's own clients can invoke it locally."""

import json
import logging
import traceback
from collections.abc import Callable
from typing import Any

from doubles.http_server import HttpServer, Request, Response

_log = logging.getLogger("doubles.invocation_api")


class InvocationApi(HttpServer):
    """Serves `POST /2015-03-31/functions/NAME/invocations` by calling a handler with an event."""

    def __init__(self, name: str, invoke: Callable[[dict[str, Any]], Any], *, port: int = 0) -> None:
        self._path = f"/2015-03-31/functions/{name}/invocations"
        self._invoke = invoke
        super().__init__(self._respond, port=port)

    def _respond(self, request: Request) -> Response:
        if (request.method, request.target) != ("POST", self._path):
            text = f"Function not found: {request.target}"
            return _reply(404, {"Message": text}, {"x-amzn-errortype": "ResourceNotFoundException"})
        try:
            return _reply(200, self._invoke(json.loads(request.body or b"{}")))
        except Exception as error:  # noqa: BLE001 -- Lambda survives whatever a function raises
            _log.exception("an invocation failed")
            failure = {
                "errorMessage": str(error),
                "errorType": type(error).__name__,
                "stackTrace": traceback.format_exc().splitlines(),
            }
            return _reply(200, failure, {"x-amz-function-error": "Unhandled"})


def _reply(status: int, content: Any, headers: dict[str, str] | None = None) -> Response:
    fields = {"content-type": "application/json"} | (headers or {})
    return Response(status, json.dumps(content).encode(), tuple(fields.items()))
