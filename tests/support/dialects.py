"""Every dialect: the routes that record events, and an event as its clients send it."""

from typing import Any

from doubles.http_server import Request, Response
from ingest.app import ROUTES
from local.result import NO_EVENTS, answer_line
from ops.deploy.certify import request_steps
from ops.deploy.certify.request_steps import Dialect
from ops.logs import answers
from tests.support.ingest import KEY, Answer, http_event

EVENT_ROUTES = tuple(
    (route.method, route.path.replace("{database}", "shop").replace("{table}", "pageviews"))
    for route in ROUTES
    if route.method != "HEAD" and route.path not in NO_EVENTS
)
"""Method and path of each route that records events."""

DIALECTS = tuple(request_steps.dialects("shop", KEY, str))
"""One event in each dialect, with a valid key."""


def event_of(dialect: Dialect) -> dict[str, Any]:
    """Return the payload 2.0 event of a dialect's request."""
    path, _, query = dialect.target.partition("?")
    body = dialect.body.encode() if isinstance(dialect.body, str) else dialect.body
    return http_event(dialect.method, path, query, dialect.headers, body)


def accepted(event: dict[str, Any], answer: Answer) -> int:
    """Return how many events a response calls accepted; of the request, only the method and the path matter."""
    found = answers.Answers()
    method, headers = event["requestContext"]["http"]["method"], list(answer.headers.items())
    response = Response(answer.status, answer.body, headers)
    found.add([answer_line(Request(method, event["rawPath"]), response).decode()])
    return found.accepted
