"""Serves the console's page on the loopback interface, only to the person who opened it.

Pages of other sites in the same browser must not reach it. So requests need this server's own name in `Host`, because other
names may resolve to this machine too, and its own origin, if the browser sends one. For a deployed stack, each request for data
also needs the token. It follows the `#` in the printed address, so browsers never send it on their own.
"""

import hmac
import json
import mimetypes
import socketserver
import threading
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self, override
from urllib.parse import parse_qsl
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from shared.errors import SluiceError

FOLDER = Path(__file__).parent / "page"

Data = Mapping[str, Callable[[Mapping[str, str]], Mapping[str, Any]]]
Doing = Mapping[str, Callable[[Mapping[str, Any]], Mapping[str, Any]]]

_SECTIONS = b"<!-- sections -->"
_SAME_ORIGIN = ("same-origin", "none")
_MOST_BYTES = 100_000


class RefusedError(SluiceError):
    """A request that is refused; the message says why."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


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
        path = environ["PATH_INFO"]
        try:
            if path in self._data or path in self._actions:
                check_host(environ)
                check_origin(environ)
                self._check_token(environ)
                return self._send(start_response, 200, _json(self._answer(environ)), "application/json")
            if path in self._files:
                check_host(environ)
                return self._send(start_response, 200, self._file(path), _kind(self._files[path].name))
        except RefusedError as error:
            body = _json({"error": str(error)})
            return self._send(start_response, error.status, body, "application/json")
        if self._beside is not None:
            return self._beside(environ, start_response)
        return self._send(start_response, 404, b"not found", "text/plain")

    def _check_token(self, environ: WSGIEnvironment) -> None:
        given = environ.get("HTTP_AUTHORIZATION", "").removeprefix("Bearer ").encode()
        if self._token and not hmac.compare_digest(given, self._token.encode()):
            raise RefusedError(401, "open the address that `sluice console` printed: it contains the token")

    def _answer(self, environ: WSGIEnvironment) -> Mapping[str, Any]:
        path = environ["PATH_INFO"]
        if path in self._actions:
            return self._actions[path](_document(environ))
        if environ["REQUEST_METHOD"] != "GET":
            raise RefusedError(405, "use GET")
        return self._data[path](dict(parse_qsl(environ.get("QUERY_STRING", ""))))

    def _file(self, path: str) -> bytes:
        data = self._files[path].read_bytes()
        return data.replace(_SECTIONS, self._sections.encode()) if path == "/" else data

    def _send(self, start_response: StartResponse, status: int, body: bytes, kind: str) -> Iterable[bytes]:
        more = [("content-type", kind), ("content-length", str(len(body)))]
        start_response(f"{status} {HTTPStatus(status).phrase}", self._headers + more)
        return [body]


def check_host(environ: WSGIEnvironment) -> None:
    """Check that a request names this server, not another name that resolves to this machine.

    Raises:
        RefusedError: it names another host.
    """
    host, port = environ.get("HTTP_HOST", ""), environ["SERVER_PORT"]
    if host not in (f"127.0.0.1:{port}", f"localhost:{port}"):
        raise RefusedError(403, f"the host {host} is not this server: use http://127.0.0.1:{port}")


def check_origin(environ: WSGIEnvironment) -> None:
    """Check that a request does not come from a page of another site.

    Raises:
        RefusedError: it does.
    """
    host = environ.get("HTTP_HOST", "")
    origin = environ.get("HTTP_ORIGIN", f"http://{host}")
    if origin != f"http://{host}" or environ.get("HTTP_SEC_FETCH_SITE", "none") not in _SAME_ORIGIN:
        raise RefusedError(403, "pages of other sites may not send requests here")


def _document(environ: WSGIEnvironment) -> dict[str, Any]:
    """Return the JSON object in a request's body; an empty one without a body.

    Raises:
        RefusedError: the request is not a POST with a JSON object.
    """
    if environ["REQUEST_METHOD"] != "POST":
        raise RefusedError(405, "use POST")
    length = environ.get("CONTENT_LENGTH") or "0"
    if length == "0":
        return {}
    # Browsers send JSON to other sites only after a preflight request, which this server refuses.
    if environ.get("CONTENT_TYPE", "").partition(";")[0].strip() != "application/json":
        raise RefusedError(415, "send JSON")
    if not length.isdecimal() or int(length) > _MOST_BYTES:
        raise RefusedError(413, "the body is too long")
    try:
        found = json.loads(environ["wsgi.input"].read(int(length)))
    except ValueError:
        raise RefusedError(400, "the body is not JSON") from None
    if not isinstance(found, dict):
        raise RefusedError(400, "send a JSON object")
    return found


def _policy(connects: str) -> str:
    """Return a content security policy that allows only the page's own files and connections."""
    allowed = {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": connects,
        "connect-src": connects,
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in allowed.items())


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, default=str).encode()


def _kind(name: str) -> str:
    return f"{mimetypes.guess_type(name)[0] or 'application/octet-stream'}; charset=utf-8"


class Server:
    """Serves a WSGI application on the loopback interface. A context manager that stops it.

    Args:
        application: the application.
        port: the port, or 0 for any free port.

    Raises:
        OSError: the port is in use.
    """

    def __init__(self, application: WSGIApplication, port: int = 0) -> None:
        self._server = _Threaded(("127.0.0.1", port), _Silent)
        self._server.set_app(application)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="page", daemon=True
        )
        self._thread.start()

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self._server.server_port

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


class _Threaded(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True

    @override
    def server_bind(self) -> None:
        """Bind the address without the base class's DNS lookup of its name."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "127.0.0.1", self.server_address[1]
        self.setup_environ()


class _Silent(WSGIRequestHandler):
    @override
    def log_message(self, *_: Any) -> None:
        """Do not log requests."""
