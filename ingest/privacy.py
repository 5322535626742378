"""What a stack keeps about its visitors, depending on its settings and on the browser's privacy signals.

Rows are screened before they are encoded, so removed data never reaches the stream or a log.
"""

import re
from collections.abc import Callable, Container, Mapping
from ipaddress import IPv4Network, IPv6Network
from typing import Any, NamedTuple

from ingest import cookie
from ingest.proxies import address_of
from ingest.request import Request, unquoted
from ingest.user_agent import bot_name
from shared.person_hash import hashed_column
from shared.rows import column_name
from shared.settings import IngestSettings
from shared.tracking_plan import Personal

IDENTIFYING = {
    "td_ip",
    "td_client_id",
    "td_session_id",
    "td_global_id",
    "td_ssc_id",
    *("gclid", "gbraid", "wbraid", "dclid", "_gcl", "_gl", "_ga", "msclkid", "ttclid", "td_maid"),
    *("fbclid", "_fbp", "_fbc", "twclid", "_twclid", "yclid", "epik", "_epik"),
    *("sccid", "_ttp", "_mkto_trk", "ly_c", "ly_r", "ly_su", "__lt_cid", "__lt_sid", "ldtag_cl", "shbid"),
    *("shbts", "ds_user_id", "ig_did", "utag_main", "yj_r", "_ycl_yjad", "_yjr_yjad", "_yjsu_yjad"),
    *("li_fat_id", "rdt_cid", "irclickid", "mc_eid", "mkt_tok", "vero_id", "_hsenc"),
    *("oly_anon_id", "oly_enc_id"),
}
"""Columns removed from the rows of visitors who asked not to be identified: addresses, ids, ad click ids. `_gcl` stands for
all columns whose names begin like that: td-js-sdk sends every cookie of Google's with such a name."""

MAX_USER_AGENT_BYTES = 512
"""Maximum length of a stored User-Agent."""

Screen = Callable[[dict[str, Any]], None]
"""Removes or changes columns of a row, in place."""

_ADDRESSES = ("td_url", "td_referrer", "href", "ping_to")
"""Columns with URLs, whose parameters may be such ids too."""
_GOOGLE_CLICKS = "_gcl"
_SEPARATOR = re.compile("([?#&]|%(?:25)*(?:3f|23|26))", re.IGNORECASE)
_EQUALS = re.compile("=|%(?:25)*3d", re.IGNORECASE)
_IPV4_BITS = 24
_IPV6_BITS = 48


class Visitor(NamedTuple):
    """The sender of a request, as far as the stack may know.

    Attributes:
        ip: the address, perhaps empty. The screen reduces it to what is kept.
        user_agent: as sent, up to MAX_USER_AGENT_BYTES.
        anonymous: whether the visitor asked not to be identified.
        bot: the name of a known bot, else empty.
        global_id: the id in this collector's cookie, else empty.
    """

    ip: str
    user_agent: str
    anonymous: bool
    bot: str
    global_id: str

    @property
    def columns(self) -> dict[str, Any]:
        """Columns for rows whose events do not have them."""
        columns = {"td_ip": self.ip} if self.ip else {}
        return columns | {"td_user_agent": self.user_agent} if self.user_agent else columns


class Privacy:
    """The privacy rules of one stack.

    Args:
        settings: this stack's settings.
        hash_key: returns the key for hashed columns, None if there is none.
    """

    def __init__(self, settings: IngestSettings, hash_key: Callable[[], bytes | None]) -> None:
        signals = {"sec-gpc": settings.honor_gpc, "dnt": settings.honor_dnt}
        self._signals = [header for header, setting in signals.items() if setting == "on"]
        self._ip = settings.visitor_ip
        self._bots = settings.bots
        self._cookies = settings.visitor_cookies == "on"
        self._dropped = frozenset(settings.dropped_columns)
        self._dropped |= {"td_ip"} if self._ip == "drop" else set()
        self._hashed = frozenset(settings.hashed_columns)
        self._hash_key = hash_key
        self._keeps_all = not (self._dropped or self._hashed or self._ip == "truncate")

    def visitor(self, request: Request) -> Visitor:
        """Return the sender of a request."""
        headers = request.headers
        anonymous = any(map(_is_one, [headers[name] for name in self._signals if name in headers]))
        sent = headers.get("user-agent", "").encode(errors="replace")
        user_agent = sent[:MAX_USER_AGENT_BYTES].decode(errors="ignore")
        return Visitor(
            ip=request.ip,
            user_agent=user_agent,
            anonymous=anonymous,
            bot=bot_name(user_agent) if self._bots != "keep" else "",
            global_id=cookie.read(request, cookie.GLOBAL) if self._cookies and not anonymous else "",
        )

    def accepts(self, visitor: Visitor) -> bool:
        """Return whether this stack accepts the visitor's events."""
        return not (visitor.bot and self._bots == "drop")

    def may_set_cookies(self, visitor: Visitor) -> bool:
        """Return whether responses to the visitor may set a cookie."""
        return self._cookies and not visitor.anonymous

    def screen(self, visitor: Visitor, personal: Mapping[str, Personal] | None = None) -> Screen | None:
        """Return a function that screens the visitor's rows in place, None if there is nothing to do.

        Args:
            visitor: the rows' sender.
            personal: the rules of the account's tracking plan for further columns, by name.
        """
        if self._keeps_all and not visitor.anonymous and not personal:
            return None
        dropped, hashed = self._dropped, self._hashed
        if personal:
            dropped |= {name for name, handling in personal.items() if handling == "drop"}
            hashed |= {name for name, handling in personal.items() if handling == "hash"}
        if visitor.anonymous:
            dropped |= {*IDENTIFYING, *filter(_is_identifying, hashed)}
        key = self._hash_key() if hashed else None
        if key is None:  # without a key, drop the columns rather than store them unhashed
            dropped, hashed = dropped | hashed, frozenset()
        rules: dict[str, Callable[[Any], Any] | None] = {}
        if key is not None:
            rules |= dict.fromkeys(hashed, lambda value: hashed_column(value, key))
        if self._ip == "truncate":
            hash_of = rules.get("td_ip") or str
            rules["td_ip"] = lambda address: (network := _network(address)) and hash_of(network)
        if visitor.anonymous:
            rules |= {name: _address_rule(rules.get(name)) for name in _ADDRESSES}
        rules |= dict.fromkeys(dropped)
        return lambda row: _screen(row, rules)


def _is_one(header: str) -> bool:
    """Return whether a header's value is `1`; the gateway joins the values of a repeated header with commas."""
    return "1" in [value.strip() for value in header.split(",")]


def _screen(row: dict[str, Any], rules: Mapping[str, Callable[[Any], Any] | None]) -> None:
    """Apply the rules to a row's columns, including those numbered because their name was repeated (`td_ip_2`)."""
    for column in list(row):
        name = _name_among(rules, column)
        if name not in rules:
            continue
        rule = rules[name]
        if rule is None:
            del row[column]
        elif row[column] is not None:
            row[column] = rule(row[column])


def _name_among(names: Container[str], column: str) -> str:
    """Return the one of the names that a column has, perhaps with numbers; otherwise any other name."""
    name = column
    while name not in names and (parts := name.rpartition("_"))[2].isdigit():
        name = parts[0]
    return _GOOGLE_CLICKS if name not in names and name.startswith(_GOOGLE_CLICKS) else name


def _address_rule(then: Callable[[Any], Any] | None) -> Callable[[Any], Any]:
    """Return a rule that removes identifying parameters from a URL, and then applies another rule, if any."""

    def change(value: Any) -> Any:
        address = _without_identifying(value) if isinstance(value, str) else value
        return then(address) if then is not None else address

    return change


def _without_identifying(address: str) -> str:
    """Return a URL without the parameters that identify the visitor, also of its fragment and of URLs in its parameters."""
    kept, *rest = _SEPARATOR.split(address)
    removed = ""  # the separator of the parameter that was removed last
    for separator, parameter in zip(rest[::2], rest[1::2], strict=True):
        if removed and len(separator) > len(removed):  # encoded more often: it belongs to the removed value
            continue
        if len(separator) == len(removed) and separator.endswith(("&", "26")):
            separator = removed  # noqa: PLW2901 -- the next parameter takes the place of the removed one
        removed = separator if _is_identifying(_EQUALS.split(parameter, 1)[0]) else ""
        if not removed:
            kept += separator + parameter
    return kept


def _is_identifying(parameter: str) -> bool:
    if len(parameter) < 3:  # no such name is so short, and a URL may have a million parameters
        return False
    name = unquoted(parameter) if "%" in parameter else parameter
    return _name_among(IDENTIFYING, column_name(name)) in IDENTIFYING


def _network(address: Any) -> Any:
    """Return an address's network; anything that is not an address becomes None."""
    try:
        parsed = address_of(str(address).strip())
    except ValueError:
        return None
    number = int(parsed)
    if parsed.version == 4:
        return str(IPv4Network((number, _IPV4_BITS), strict=False).network_address)
    return str(IPv6Network((number, _IPV6_BITS), strict=False).network_address)
