"""The cookies that identify a returning visitor, if the stack sets any."""

import re

from ingest.request import Request

GLOBAL = "_td_global"
SITE = "_td_ssc_id"
MAX_AGE_SECONDS = 63_072_000
"""Two years, as long as Treasure Data's SDKs keep their own id."""

_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_DOMAIN = re.compile(r"[a-z0-9-]{1,63}(\.[a-z0-9-]{1,63})+")


def read(request: Request, name: str) -> str:
    """Return the id in a cookie, empty if there is none."""
    pairs = (text.partition("=") for text in request.cookies)
    value = {found.strip(): value for found, _, value in pairs}.get(name, "")
    return value if _ID.fullmatch(value) else ""


def for_all_sites(visitor_id: str) -> str:
    """Return a `Set-Cookie` header for the global id, which browsers send to this collector from pages of every site."""
    return f"{GLOBAL}={visitor_id}; Max-Age={MAX_AGE_SECONDS}; Path=/; Secure; HttpOnly; SameSite=None"


def for_site(visitor_id: str, domain: str) -> str:
    """Return a `Set-Cookie` header for one domain; its scripts can read the cookie, as the SDK expects."""
    return f"{SITE}={visitor_id}; Domain={domain}; Max-Age={MAX_AGE_SECONDS}; Path=/; Secure; SameSite=Lax"


def domain_of(request: Request) -> str:
    """Return the cookie domain that the page asks for if the collector's host is in it, else an empty string."""
    domain = (request.parameter("cookie_domain") or "").strip().lower().removeprefix(".")
    host = request.headers.get("host", "").partition(":")[0].lower()
    belongs = _DOMAIN.fullmatch(domain) is not None and (host == domain or host.endswith(f".{domain}"))
    return domain if belongs else ""
