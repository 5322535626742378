"""Lambda's Invoke API in front of one function, so that AWS's own clients can invoke it on this machine."""

import json
import logging
import traceback
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, Self

_log = logging.getLogger("doubles.invocation_api")

REQUEST_BYTES = 6 * 1024 * 1024
"""The largest event of a synchronous invocation."""


class InvocationApi:
    """Serves `POST /2015-03-31/functions/NAME/invocations` on a free port; a context manager.

    Args:
        name: the function's.
        invoke: the handler, called with an event.
    """

    def __init__(self, name: str, invoke: Callable[[dict[str, Any]], Any]) -> None:
        path = f"/2015-03-31/functions/{name}/invocations"

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", "0")))
                if self.path != path:
                    self._answer(
                        404, {"Message": f"Function not found: {self.path}"}, "ResourceNotFoundException"
                    )
                elif len(body) > REQUEST_BYTES:
                    message = f"{len(body)} byte payload is too large for the RequestResponse invocation type"
                    self._answer(413, {"Message": message}, "RequestTooLargeException")
                else:
                    self._invoke(body)

            def _invoke(self, body: bytes) -> None:
                try:
                    self._answer(200, invoke(json.loads(body or b"{}")))
                except Exception as error:  # noqa: BLE001 -- Lambda survives whatever a function raises
                    _log.exception("an invocation failed")
                    failure = {
                        "errorMessage": str(error),
                        "errorType": type(error).__name__,
                        "stackTrace": traceback.format_exc().splitlines(),
                    }
                    self._answer(200, failure, function_error=True)

            def _answer(
                self, status: int, content: Any, code: str = "", *, function_error: bool = False
            ) -> None:
                payload = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(payload)))
                if code:
                    self.send_header("x-amzn-errortype", code)
                if function_error:
                    self.send_header("x-amz-function-error", "Unhandled")
                self.end_headers()
                self.wfile.write(payload)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = Thread(target=self._server.serve_forever, name="invocation api", daemon=True)

    @property
    def url(self) -> str:
        """Where it is; what a client is given as endpoint."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def start(self) -> Self:
        """Begin to serve, in threads."""
        self._thread.start()
        return self

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
