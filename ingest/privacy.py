"""What a stack keeps of its visitors, by its settings and by what their browsers ask for.

Rows are changed before they are encoded, so what is not kept is nowhere: neither on the stream nor in a log.
"""

import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Any

from ingest import bots, cookie
from ingest.request import Request
from shared.settings import IngestSettings

IDENTIFYING = (
    "td_ip",
    "td_client_id",
    "td_session_id",
    "td_global_id",
    "td_ssc_id",
    *("gclid", "wbraid", "fbclid", "_fbp", "_fbc", "_ga", "twclid", "_twclid", "yclid", "epik", "_epik"),
    *("sccid", "_ttp", "_mkto_trk", "ly_c", "ly_r", "ly_su", "__lt_cid", "__lt_sid", "ldtag_cl", "shbid"),
    *("shbts", "ds_user_id", "ig_did", "utag_main", "yj_r", "_ycl_yjad", "_yjr_yjad", "_yjsu_yjad"),
)
"""Columns that rows of a visitor who asked not to be identified do not have: addresses, ids, advertisers' click ids."""

MAX_USER_AGENT_BYTES = 512
"""Bytes of a User-Agent that are kept."""

_HASH_BYTES = 16
_IPV4_BITS = 24
_IPV6_BITS = 48


@dataclass(frozen=True, slots=True)
class Visitor:
    """Whom a request came from, as far as the stack may know.

    Attributes:
        ip: the address, or its network; empty where it is not kept.
        user_agent: as it was sent, up to MAX_USER_AGENT_BYTES.
        anonymous: asked not to be identified.
        bot: what tells a known bot, else empty.
        global_id: the id that a cookie of this collector holds, else empty.
    """

    ip: str
    user_agent: str
    anonymous: bool
    bot: str
    global_id: str

    @property
    def columns(self) -> dict[str, Any]:
        """What a row says of its visitor, unless the event says it itself."""
        columns = {"td_ip": self.ip} if self.ip else {}
        return columns | {"td_user_agent": self.user_agent} if self.user_agent else columns


class Privacy:
    """The rules of one stack.

    Args:
        settings: say them.
        hash_key: returns the key of the hashed columns, None where there is none.
    """

    def __init__(self, settings: IngestSettings, hash_key: Callable[[], bytes | None]) -> None:
        self._gpc = settings.honor_gpc == "on"
        self._dnt = settings.honor_dnt == "on"
        self._ip = settings.visitor_ip
        self._bots = settings.bots
        self._cookies = settings.visitor_cookies == "on"
        self._dropped = frozenset(settings.dropped_columns)
        self._dropped |= {"td_ip"} if self._ip == "drop" else set()
        self._hashed = frozenset(settings.hashed_columns)
        self._hash_key = hash_key

    def visitor(self, request: Request) -> Visitor:
        """Return whom a request came from."""
        headers = request.headers
        anonymous = (self._gpc and headers.get("sec-gpc", "").strip() == "1") or (
            self._dnt and headers.get("dnt", "").strip() == "1"
        )
        sent = headers.get("user-agent", "").encode(errors="replace")
        user_agent = sent[:MAX_USER_AGENT_BYTES].decode(errors="ignore")
        return Visitor(
            ip="" if anonymous or self._ip == "drop" else self._kept_address(request.ip),
            user_agent=user_agent,
            anonymous=anonymous,
            bot=bots.name(user_agent) if self._bots != "keep" else "",
            global_id=cookie.read(request, cookie.GLOBAL) if self._cookies and not anonymous else "",
        )

    def accepts(self, visitor: Visitor) -> bool:
        """Tell whether the visitor's events are wanted."""
        return not (visitor.bot and self._bots == "drop")

    def may_set_cookies(self, visitor: Visitor) -> bool:
        """Tell whether the visitor may be given a cookie."""
        return self._cookies and not visitor.anonymous

    def screen(self, visitor: Visitor) -> Callable[[dict[str, Any]], None] | None:
        """Return what is to be done with each of the visitor's rows; None where it is nothing."""
        dropped, hashed = self._dropped, self._hashed
        if visitor.anonymous:
            dropped |= set(IDENTIFYING)
        key = self._hash_key() if hashed else None
        if key is None:  # better no value than one that is plain
            dropped, hashed = dropped | hashed, frozenset()
        rules: dict[str, Callable[[Any], Any] | None] = {}
        if self._ip == "truncate":
            rules["td_ip"] = self._kept_address
        if key is not None:
            rules |= dict.fromkeys(hashed, lambda value: _hash(value, key))
        rules |= dict.fromkeys(dropped)
        return (lambda row: _screen(row, rules)) if rules else None

    def _kept_address(self, address: Any) -> Any:
        return _network(address) if self._ip == "truncate" else address


def _screen(row: dict[str, Any], rules: Mapping[str, Callable[[Any], Any] | None]) -> None:
    """Change a row's columns, those too that were numbered because a name came twice (`td_ip_2`)."""
    for column in list(row):
        name = column
        if name not in rules and name[-1:].isdigit():
            name = name.rstrip("0123456789").removesuffix("_")
        if name not in rules:
            continue
        rule = rules[name]
        if rule is None:
            del row[column]
        elif row[column] is not None:
            row[column] = rule(row[column])


def _network(address: Any) -> Any:
    """Return the network of an address; what is no address stays nobody's, so it becomes None."""
    try:
        parsed = ip_address(str(address).strip())
    except ValueError:
        return None
    number = int(parsed)
    if parsed.version == 4:
        return str(IPv4Network((number, _IPV4_BITS), strict=False).network_address)
    return str(IPv6Network((number, _IPV6_BITS), strict=False).network_address)


def _hash(value: Any, key: bytes) -> str:
    """Return 128 bits of HMAC-SHA256 over the value's text, in hex."""
    text = value if isinstance(value, str) else repr(value)
    return hmac.digest(key, text.encode(errors="replace"), "sha256")[:_HASH_BYTES].hex()
