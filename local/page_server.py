"""Serves the page of the local stack: a demo site, and what becomes of its events."""

import json
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Self
from wsgiref.types import StartResponse, WSGIEnvironment

from werkzeug.exceptions import NotFound
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.wrappers import Request, Response

from local.website import Website
from ops import browser_sdk
from shared.errors import InvalidError

FOLDER = Path(__file__).parent / "page"


class LivePage:
    """A WSGI application: the page at `/`, the demo site at `/site/…`, the state of the stack at `/state.json`.

    The browser SDK is at `/sdk/VERSION/…`, as in a deployed stack; any origin may load it.

    Args:
        site: the demo site.
        state: returns the state of the stack; its argument is the number of the last row that the page has.
        order: breaks a part for so many seconds and returns what is broken; called for `POST /break` with {"target", "seconds"}.
        sdk: the folder of the built SDK.
    """

    def __init__(
        self,
        site: Website,
        state: Callable[[int], Mapping[str, Any]],
        order: Callable[[str, float], Mapping[str, Any]] = lambda *_: {},
        sdk: Path = browser_sdk.FOLDER,
    ) -> None:
        self._site = site
        self._files = Website("", {}, FOLDER)
        self._sdk = Website("", {}, sdk)
        self._state = state
        self._order = order

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        return self._answer(Request(environ))(environ, start_response)

    def _answer(self, request: Request) -> Response:
        if request.path == "/state.json":
            state = self._state(request.args.get("after", 0, int))
            return Response(
                json.dumps(state), content_type="application/json", headers={"cache-control": "no-store"}
            )
        if request.path == "/break" and request.method == "POST":
            return self._break(request)
        if request.path.startswith("/site/"):
            return self._site.answer(request.path.removeprefix("/site"))
        if request.path.startswith("/sdk/"):
            answer = self._sdk.answer(request.path.rpartition("/")[2])
            answer.access_control_allow_origin = "*"
            return answer
        if request.path == "/config.js":
            return NotFound().get_response()
        return self._files.answer("/index.html" if request.path == "/" else request.path)

    def _break(self, request: Request) -> Response:
        # browsers send JSON across sites only after a preflight request, which is not answered here
        if request.mimetype != "application/json":
            return Response("send JSON", 415)
        try:
            order = request.get_json()
            under_way = self._order(str(order["target"]), float(order["seconds"]))
        except (InvalidError, KeyError, TypeError, ValueError) as error:
            return Response(json.dumps({"error": str(error)}), 400, content_type="application/json")
        return Response(json.dumps(under_way), content_type="application/json")


class Server:
    """Serves a WSGI application on the loopback interface. A context manager that stops it.

    Args:
        application: the application.
        port: the port, or 0 for any free port.
    """

    def __init__(self, application: Callable[..., Iterable[bytes]], port: int = 0) -> None:
        self._server = make_server("127.0.0.1", port, application, threaded=True, request_handler=_Silent)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="page", daemon=True
        )
        self._thread.start()

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self._server.port

    @property
    def url(self) -> str:
        """The address, without a trailing slash."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Silent(WSGIRequestHandler):
    def log(self, *_: Any) -> None:
        """Do not log requests."""
