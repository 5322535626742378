"""The ingest as a WSGI application, so that tools which speak HTTP can be pointed at it without a socket."""

import base64
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Any

from tests.support.ingest import http_event

Application = Callable[[Mapping[str, Any], Callable[..., Any]], Iterable[bytes]]


def wsgi(handler: Callable[[Mapping[str, Any], Any], Mapping[str, Any]]) -> Application:
    """Return an application that asks the handler, as the gateway does."""

    def application(environ: Mapping[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        headers = {
            name.removeprefix("HTTP_").replace("_", "-").lower(): text
            for name, text in environ.items()
            if name.startswith("HTTP_") or (name in ("CONTENT_TYPE", "CONTENT_LENGTH") and text)
        }
        length = int(environ.get("CONTENT_LENGTH") or 0)
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        body = environ["wsgi.input"].read(length) if length else None
        answer = handler(http_event(method, path, environ.get("QUERY_STRING", ""), headers, body), None)
        status = answer["statusCode"]
        content = base64.b64decode(answer["body"]) if answer["isBase64Encoded"] else answer["body"].encode()
        start_response(f"{status} {HTTPStatus(status).phrase}", list(answer["headers"].items()))
        return [] if method == "HEAD" else [content]

    return application
