"""Which pages may read the answers (the Fetch standard's CORS protocol).

CORS does not decide on who may send: browsers deliver pixels and beacons of any page, and the write key decides on
them. So a request of a foreign origin is handled like any other, and its page cannot read the answer.
"""

from collections.abc import Mapping, Sequence

from ingest.request import Request
from ingest.response import Response

MAX_AGE_SECONDS = 86_400
"""How long a browser may remember a preflight's answer; browsers cap it further (Chromium: two hours)."""
ALLOWED_METHODS = "GET, HEAD, POST"
ALLOWED_HEADERS = (
    "accept, authorization, content-encoding, content-type, idempotency-key, user-agent, x-sluice-repeat,"
    " x-td-fetch-api, x-td-write-key, x-write-key"
)
_EXPOSED_HEADERS = "retry-after, x-sluice-error"


class Cors:
    """The rules of one stack.

    Args:
        allowed_origins: exact origins, or `*` for any; any excludes credentials.
    """

    def __init__(self, allowed_origins: Sequence[str]) -> None:
        self._any = "*" in allowed_origins
        self._allowed = frozenset(allowed_origins)

    def headers(self, origin: str | None) -> Mapping[str, str]:
        """Return the headers of every answer, refusals too."""
        if self._any:
            return {"access-control-allow-origin": "*", "access-control-expose-headers": _EXPOSED_HEADERS}
        if origin is None or origin not in self._allowed:
            return {"vary": "origin"}
        return {
            "access-control-allow-origin": origin,
            "access-control-allow-credentials": "true",
            "access-control-expose-headers": _EXPOSED_HEADERS,
            "vary": "origin",
        }

    def preflight(self, request: Request, allow: str) -> Response:
        """Return the answer to OPTIONS on any path, whose methods are `allow`; a foreign page gets no permission."""
        headers = {"allow": allow}
        origin = request.headers.get("origin")
        if self._any or origin in self._allowed:
            headers |= {
                "access-control-allow-methods": ALLOWED_METHODS,
                "access-control-allow-headers": ALLOWED_HEADERS,
                "access-control-max-age": str(MAX_AGE_SECONDS),
            }
        return Response(204, headers)
