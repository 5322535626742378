"""Which pages may read responses (the Fetch standard's CORS protocol).

CORS does not control who may send events: browsers send pixels and beacons from any page, and the write key decides whether
they are accepted. A request from a foreign origin is handled like any other, but its page cannot read the response.
"""

from collections.abc import Mapping, Sequence

from ingest.request import Request
from ingest.response import Response

MAX_AGE_SECONDS = 86_400
"""How long a browser may cache a preflight response; browsers have lower caps (Chromium: two hours)."""
ALLOWED_METHODS = "GET, HEAD, POST"
ALLOWED_HEADERS = (
    "accept, authorization, content-encoding, content-type, idempotency-key, user-agent, x-td-fetch-api,"
    " x-td-write-key, x-write-key"
)
_EXPOSED_HEADERS = "retry-after, x-sluice-error"


class Cors:
    """The CORS rules of one stack.

    Args:
        allowed_origins: exact origins, or `*` for any origin without credentials.
    """

    def __init__(self, allowed_origins: Sequence[str]) -> None:
        self._any = "*" in allowed_origins
        self._allowed = frozenset(allowed_origins)

    def headers(self, origin: str | None) -> Mapping[str, str]:
        """Return the headers for any response to this origin."""
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
        """Answer OPTIONS on a path that supports the methods `allow`. Foreign origins get no permission."""
        headers = {"allow": allow}
        origin = request.headers.get("origin")
        if self._any or origin in self._allowed:
            headers |= {
                "access-control-allow-methods": ALLOWED_METHODS,
                "access-control-allow-headers": ALLOWED_HEADERS,
                "access-control-max-age": str(MAX_AGE_SECONDS),
            }
        return Response(204, headers)
