"""Serves the console's page on the loopback interface, only to the person who opened it.

Pages of other sites in the same browser must not reach it. So requests need this server's own name in `Host`, because other
names may resolve to this machine too, and its own origin, if the browser sends one. For a deployed stack, each request for data
also needs the token. It follows the `#` in the printed address, so browsers never send it on their own.
"""

import hmac
import json
import mimetypes
import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Self, override
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from werkzeug import Request, Response
from werkzeug.exceptions import HTTPException
from werkzeug.serving import WSGIRequestHandler, make_server

FOLDER = Path(__file__).parent / "page"

Data = Mapping[str, Callable[[Mapping[str, str]], Mapping[str, Any]]]
Doing = Mapping[str, Callable[[Mapping[str, Any]], Mapping[str, Any]]]

_SECTIONS = b"<!-- sections -->"
_SAME_ORIGIN = ("same-origin", "none")


class RefusedError(HTTPException):
    """A request that is refused; the message says why."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.code = status


class _Request(Request):
    max_content_length = 100_000


class ConsolePage:
    """A WSGI application: the page at `/`, its data and its actions.

    Args:
        data: the page's data by path: each takes the parameters of a GET and returns a JSON object.
        actions: the page's actions by path: each takes the JSON object of a POST and returns another.
        token: the token that requests for data and actions need in the header `authorization: Bearer TOKEN`; empty for none.
        beside: answers every other path.
        sections: HTML for the page's first column.
        connects: other origins that the page may send requests to.
    """

    def __init__(
        self,
        data: Data,
        actions: Doing | None = None,
        *,
        token: str = "",
        beside: WSGIApplication | None = None,
        sections: str = "",
        connects: Iterable[str] = (),
    ) -> None:
        self._data = data
        self._actions = actions or {}
        self._token = token
        self._beside = beside
        self._sections = sections
        self._files = {f"/{path.name}": path for path in FOLDER.iterdir()}
        self._files["/"] = self._files.pop("/index.html")
        self._headers = [
            ("cache-control", "no-store"),
            ("content-security-policy", _policy(" ".join(["'self'", *connects]))),
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-resource-policy", "same-origin"),
            ("referrer-policy", "no-referrer"),
            ("x-content-type-options", "nosniff"),
        ]

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        return self._response(_Request(environ))(environ, start_response)

    def _response(self, request: Request) -> WSGIApplication:
        path = request.path
        try:
            if path in self._data or path in self._actions:
                _check_host(request)
                _check_origin(request)
                self._check_token(request)
                return self._made(_json(self._answer(request)), "application/json")
            if path in self._files:
                _check_host(request)
                return self._made(self._file(path), mimetypes.guess_type(self._files[path].name)[0])
        except HTTPException as error:
            return self._made(_json({"error": error.description}), "application/json", error.code)
        return self._beside or self._made(b"not found", "text/plain", 404)

    def _check_token(self, request: Request) -> None:
        given = request.headers.get("authorization", "").removeprefix("Bearer ").encode()
        if self._token and not hmac.compare_digest(given, self._token.encode()):
            raise RefusedError(401, "open the address that `sluice console` printed: it contains the token")

    def _answer(self, request: Request) -> Mapping[str, Any]:
        wanted = "POST" if request.path in self._actions else "GET"
        if request.method != wanted:
            raise RefusedError(405, f"use {wanted}")
        if wanted == "GET":
            return self._data[request.path](request.args.to_dict())
        # Browsers send JSON to other sites only after a preflight request, which this server refuses.
        document = request.get_json() if request.content_length else {}
        if not isinstance(document, dict):
            raise RefusedError(400, "send a JSON object")
        return self._actions[request.path](document)

    def _file(self, path: str) -> bytes:
        data = self._files[path].read_bytes()
        return data.replace(_SECTIONS, self._sections.encode()) if path == "/" else data

    def _made(self, body: bytes, kind: str | None, status: int | None = 200) -> Response:
        return Response(body, status, self._headers, content_type=f"{kind or 'text/plain'}; charset=utf-8")


def _check_host(request: Request) -> None:
    """Refuse a request that names another host: another name may resolve to this machine."""
    host, port = request.headers.get("host"), request.environ["SERVER_PORT"]
    if host not in (f"127.0.0.1:{port}", f"localhost:{port}"):
        raise RefusedError(403, f"the host {host} is not this server: use http://127.0.0.1:{port}")


def _check_origin(request: Request) -> None:
    """Refuse a request of a page of another site."""
    here = f"http://{request.headers.get('host')}"
    is_ours = request.headers.get("sec-fetch-site", "none") in _SAME_ORIGIN
    if request.headers.get("origin", here) != here or not is_ours:
        raise RefusedError(403, "pages of other sites may not send requests here")


def _policy(connects: str) -> str:
    """Return a content security policy that allows only the page's own files and connections."""
    return (
        f"default-src 'none'; script-src 'self'; style-src 'self'; img-src {connects}; connect-src {connects}; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, default=str).encode()


class Server:
    """Serves a WSGI application on the loopback interface, at a port, or at any free one (0). A context manager that stops it.

    Raises:
        OSError: the port is in use.
    """

    def __init__(self, application: WSGIApplication, port: int = 0) -> None:
        with socket.create_server(
            ("127.0.0.1", port)
        ) as listening:  # werkzeug would end the process if it is in use
            self._server = make_server(
                "127.0.0.1",
                listening.getsockname()[1],
                application,
                threaded=True,
                request_handler=_Silent,
                fd=listening.fileno(),
            )
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="page", daemon=True
        )
        self._thread.start()

    @property
    def url(self) -> str:
        """The address, without a trailing slash."""
        return f"http://127.0.0.1:{self._server.port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Silent(WSGIRequestHandler):
    @override
    def log(self, type: str, message: str, *args: Any) -> None:
        """Do not log requests."""
