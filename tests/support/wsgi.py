"""A handler behind the gateway as a WSGI application, so that HTTP testing tools can call it in process."""

from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from doubles.gateway import answer_of, event_of
from doubles.http_server import Request
from tests.support.ingest import START

Application = Callable[[Mapping[str, Any], Callable[..., Any]], Iterable[bytes]]


def wsgi(handler: Callable[[Mapping[str, Any], Any], Mapping[str, Any]]) -> Application:
    """Return an application that calls the handler as the gateway does.

    The application raises RejectedError for a request that the gateway would reject without calling the handler.
    """

    def application(environ: Mapping[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        target = quote(environ["PATH_INFO"].encode("latin-1")) + f"?{environ.get('QUERY_STRING', '')}"
        headers = tuple(
            (name.removeprefix("HTTP_").replace("_", "-"), text)
            for name, text in environ.items()
            if name.startswith("HTTP_") or (name in ("CONTENT_TYPE", "CONTENT_LENGTH") and text)
        )
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        request = Request(environ["REQUEST_METHOD"], target, headers, body, "192.0.2.7")
        answer = answer_of(handler(event_of(request, request_id="JKJaXmPLvHcESHA=", now=START), None))
        start_response(f"{answer.status} {HTTPStatus(answer.status).phrase}", list(answer.headers))
        return [] if request.method == "HEAD" else [answer.body]

    return application
