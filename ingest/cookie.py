"""The cookies by which a visitor is known again, where the stack sets any."""

import re

from ingest.request import Request

GLOBAL = "_td_global"
SITE = "_td_ssc_id"
MAX_AGE_SECONDS = 63_072_000
"""Two years, as long as Treasure Data's SDKs keep the id that they make."""

_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_DOMAIN = re.compile(r"[a-z0-9-]{1,63}(\.[a-z0-9-]{1,63})+")


def read(request: Request, name: str) -> str:
    """Return the id that a cookie holds, empty where it holds none."""
    value = request.cookies.get(name, "")
    return value if _ID.fullmatch(value) else ""


def for_all_sites(visitor_id: str) -> str:
    """Return the header that makes every page's requests to this collector bring the id."""
    return f"{GLOBAL}={visitor_id}; Max-Age={MAX_AGE_SECONDS}; Path=/; Secure; HttpOnly; SameSite=None"


def for_site(visitor_id: str, domain: str) -> str:
    """Return the header that makes one domain's pages know the id, their scripts too, as the SDK expects."""
    return f"{SITE}={visitor_id}; Domain={domain}; Max-Age={MAX_AGE_SECONDS}; Path=/; Secure; SameSite=Lax"


def domain_of(request: Request) -> str:
    """Return the domain that the page names, if the collector's own name lies in it, else nothing."""
    domain = (request.parameter("cookie_domain") or "").strip().lower().removeprefix(".")
    host = request.headers.get("host", "").partition(":")[0].lower()
    belongs = _DOMAIN.fullmatch(domain) is not None and (host == domain or host.endswith(f".{domain}"))
    return domain if belongs else ""
