"""Privacy settings decide what a stack stores about its visitors."""

import hmac
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest import privacy
from ingest import user_agent as user_agents
from local import functions
from local.resources import Resources
from shared.errors import SettingsError
from shared.settings import IngestSettings
from tests.support.ingest import KEY, Site, http_event

IDS = {"td_client_id": "c", "td_global_id": "g", "td_ssc_id": "s", "gclid": "1", "_fbp": "2", "ScCid": "3"}
IDS |= {"_gcl_aw": "GCL.1.1", "_gcl_au": "1.1.1", "gbraid": "4", "td_maid": "5", "mc_eid": "6"}
PIXEL_PATHS = ["/pixel.gif", "/postback/v3/event/shop/pageviews"]
CHROME = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36"
)


def row(site: Site, event: dict[str, Any], **headers: str) -> dict[str, Any]:
    """Send one event and return its columns."""
    assert 200 == site.post([{"table": "pageviews", **event}], **headers).status
    return site.row()


@pytest.mark.parametrize(
    ("settings", "headers", "is_honored"),
    [
        ({}, {"sec_gpc": "1"}, True),
        ({}, {"sec_gpc": "0, 1"}, True),
        ({}, {"sec_gpc": "0,11"}, False),
        ({"honor_gpc": "off"}, {"sec_gpc": "1"}, False),
        ({}, {"dnt": "1"}, False),
        ({"honor_dnt": "on"}, {"dnt": "1,1"}, True),
        ({"honor_dnt": "on"}, {"dnt": "0"}, False),
        ({"honor_dnt": "on", "honor_gpc": "off"}, {"dnt": "1", "sec_gpc": "1"}, True),
    ],
)
def test_privacy_signals_remove_identifying_columns(
    settings: dict[str, str], headers: dict[str, str], is_honored: bool
) -> None:
    """By default GPC is honored and DNT is not; either counts only if it is 1. URLs lose such parameters too, also in URLs within them."""
    sent = {
        "td_url": "https://a.example/?FBCLID=1%26x&b=2&%5Fgcl_aw=3&c=4#_gl=1*5&d",
        "td_referrer": "https://b.example/?u=https%3A%2F%2Fc.example%2F%3fgclid%3D1%2526x%26e%3D2%26_ga%3D3&f=%2523gbraid%253D1",
    }
    kept = {
        "td_url": "https://a.example/?b=2&c=4#d",
        "td_referrer": "https://b.example/?u=https%3A%2F%2Fc.example%2F%3fe%3D2&f=",
    }
    sent["href"], kept["href"] = sent["td_url"], kept["td_url"]
    found = row(Site(**settings), {"td_ip": "192.0.2.9", **sent, **IDS}, user_agent="UA", **headers)

    identifying = set() if is_honored else {"td_ip", *map(str.lower, IDS)}
    assert {"time", "event_id", "received_at", "td_user_agent", *sent} | identifying == set(found)
    assert (kept if is_honored else sent) == {name: found[name] for name in sent}


@pytest.mark.parametrize("path", ["/", "/get_cookie_id"])
def test_privacy_signals_disable_cookies(path: str) -> None:
    """Routes that set cookies for other visitors set none, and old cookies are ignored."""
    event = http_event("GET", path, "cookie_domain=collect.example", {"sec-gpc": "1"})
    known = "0196aaaa-bbbb-7ccc-8ddd-eeeeeeeeeeee"
    event["cookies"] = [f"_td_global={known}", f"_td_ssc_id={known}"]

    answer = Site(visitor_cookies="on").send(event)

    assert ([], False) == (answer.cookies, known in answer.json.values())


@given(st.ip_addresses())
def test_a_truncated_address_is_its_network(address: Any) -> None:
    """The network is the IPv4 address's /24, also in IPv6's notation, or the IPv6 address's /48."""
    kept = ip_address(privacy._network(str(address)))
    address = getattr(address, "ipv4_mapped", None) or address

    assert kept.version == address.version
    network = ip_network(f"{kept}/{24 if address.version == 4 else 48}")
    assert address in network
    assert kept == network.network_address


@pytest.mark.parametrize(("path", "placeholder"), [(PIXEL_PATHS[0], None), (PIXEL_PATHS[1], "192.0.2.0")])
def test_addresses_are_truncated_wherever_they_come_from(path: str, placeholder: str | None) -> None:
    """This includes addresses that servers send for their visitors; a value that is not an address becomes null."""
    site = Site(visitor_ip="truncate")

    site.get(
        path,
        f"k={KEY}&td_write_key={KEY}&t=pageviews&td_ip=td_ip&TD_IP=2001:db8:1:2::3&td_ip_7=text&td_ip_8=::ffff:192.0.2.9",
    )

    found, names = site.row(), ("td_ip", "td_ip_2", "td_ip_7", "td_ip_8")
    assert [placeholder, "2001:db8:1::", None, "192.0.2.0"] == [found[name] for name in names]


def test_addresses_and_columns_can_be_dropped() -> None:
    """Whether the event or API Gateway provided them. Settings name columns as the row does, whatever spelling the event used."""
    site = Site(visitor_ip="drop", dropped_columns=("email", "td_user_agent"))
    event = {"Email": "a", "email": "b", "E-Mail": "c", "email_address": "d", "email2": "e"}
    more = {"email_2": "f", "td_ip": "192.0.2.9", "TD_IP": "192.0.2.9"}

    found = row(site, event | more, user_agent="UA")

    assert {"time", "event_id", "received_at", "e_mail", "email_address", "email2"} == set(found)
    assert ("c", "d", "e") == (found["e_mail"], found["email_address"], found["email2"])
    assert "td_ip" not in row(Site(visitor_ip="drop"), {"td_ip": "192.0.2.9"})


def test_columns_can_be_hashed() -> None:
    """The key is stored with the signing secrets, and without it they are dropped; equal values have equal hashes."""
    site = Site(hashed_columns=("email", "user", "none", "td_url", "_gcl_au"))
    site.secret.text = '{"k1": "first secret", ".hash": "key"}'
    event = {"email": "a@a.example", "Email": "a@a.example", "user": 7, "none": None, "td_url": "/?gclid=1"}
    event |= {"_gcl_au": "1"}
    hashed = ["email", "email_2", "user", "none", "td_url"]

    found, without = row(site, event, sec_gpc="1"), row(Site(hashed_columns=tuple(hashed)), event)

    expected = hmac.digest(b"key", b"a@a.example", "sha256").hex()[:32]
    number, address = (hmac.digest(b"key", text, "sha256").hex()[:32] for text in (b"7", b"/"))
    assert [expected, expected, number, None, address] == [found[name] for name in hashed]
    assert without.keys().isdisjoint(hashed)
    assert "_gcl_au" not in found  # what GPC removes is not hashed instead


def test_a_truncated_address_is_hashed_as_its_network() -> None:
    """The hash of an address in full would tell the visitors of a network apart. What is not an address stays null."""
    site = Site(visitor_ip="truncate", hashed_columns=("td_ip",))
    site.secret.text = '{"k1": "first secret", ".hash": "key"}'

    found = row(site, {"td_ip": "192.0.2.9", "TD_IP": "192.0.2.77", "td_ip_3": "text"})

    network = hmac.digest(b"key", b"192.0.2.0", "sha256").hex()[:32]
    assert [network, network, None] == [found[name] for name in ("td_ip", "td_ip_2", "td_ip_3")]


@pytest.mark.parametrize("name", ["time", "event_id", "received_at", "Email", "a b"])
def test_required_columns_cannot_be_dropped(name: str) -> None:
    """The setting is an error; so is an illegal column name."""
    dropped = {"DroppedColumns": f"a,{name}"}
    environment = functions.variables(functions.INGEST, Resources("", "http://127.0.0.1/queue"), dropped)

    with pytest.raises(SettingsError, match="is not a column"):
        IngestSettings.from_environment(environment)


GOOGLE = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
GPT = "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; GPTBot/1.2)"


@pytest.mark.parametrize(
    ("settings", "user_agent", "event", "expected"),
    [
        ({}, GOOGLE, {}, {"bot": "Googlebot/"}),
        ({}, GPT, {}, {"bot": "GPTBot"}),
        ({}, "curl/8.5.0", {}, {"bot": "curl"}),
        ({}, GOOGLE, {"bot": "mine"}, {"bot": "mine"}),
        ({"bots": "keep"}, GOOGLE, {}, {}),
        ({}, CHROME, {}, {}),
        ({}, "TD-Android-SDK/1.1.0 (Pixel 7 14)", {}, {}),
        ({}, "", {}, {}),
    ],
)
def test_bots_are_marked(
    settings: dict[str, str], user_agent: str, event: dict[str, str], expected: dict[str, str]
) -> None:
    """The column `bot` has the bot's name from a public list, unless the event has its own; other rows have no such column."""
    found = row(Site(**settings), event, user_agent=user_agent)

    assert expected == {name: value for name, value in found.items() if name == "bot"}


def test_every_bot_on_the_list_is_recognized() -> None:
    """The list's own examples are recognized, up to the maximum length of a user agent."""
    listed = [
        (entry["pattern"], example)
        for entry in user_agents.CRAWLER_USER_AGENTS_DATA
        for example in entry.get("instances", [])
        if len(example) <= 512
    ]

    assert [] == [pattern for pattern, example in listed if not user_agents.bot_name(example)]


def test_bots_can_be_rejected() -> None:
    """Every route answers 403, and nothing is put: an event that is dropped must not be reported as accepted."""
    site = Site(bots="drop")

    answers = [
        site.post([{"table": "pageviews"}], user_agent=GOOGLE),
        site.pixel("", user_agent=GOOGLE),
        site.get(PIXEL_PATHS[1], f"td_write_key={KEY}", user_agent=GOOGLE),
    ]

    assert [(403, "unwanted_bot")] * 3 == [(answer.status, answer.code) for answer in answers]
    assert [] == site.kinesis.calls
    assert 200 == site.pixel("", user_agent=CHROME).status


WEBKIT = "AppleWebKit/605.1.15 (KHTML, like Gecko)"
IPHONE = f"(iPhone; CPU iPhone OS 17_5_1 like Mac OS X) {WEBKIT} Version/17.5 Mobile/15E148 Safari/604.1"
MACINTOSH = f"(Macintosh; Intel Mac OS X 10_15_7) {WEBKIT} Version/18.0 Safari/605.1.15"
SAMSUNG = f"(Linux; Android 14; SM-S911B) {WEBKIT} SamsungBrowser/25.0 Chrome/121.0.0.0 Mobile Safari/537.36"


@pytest.mark.parametrize(
    ("user_agent", "expected"),
    [
        (CHROME, ("Chrome", "130.0.0.0", "Linux", None)),
        (f"{CHROME} Edg/130.0.1", ("Edge", "130.0.1", "Linux", None)),
        (f"{CHROME} OPR/115.0", ("Opera", "115.0", "Linux", None)),
        (IPHONE, ("Safari", "17.5", "iOS", "17.5.1")),
        (MACINTOSH, ("Safari", "18.0", "macOS", "10.15.7")),
        (SAMSUNG, ("Samsung Internet", "25.0", "Android", "14")),
        ("(Windows NT 6.1; rv:115.0) Gecko/20100101 Firefox/115.0", ("Firefox", "115.0", "Windows", "6.1")),
        ("(Windows NT 6.1; Trident/7.0; rv:11.0)", ("Internet Explorer", "11.0", "Windows", "6.1")),
        (f"(X11; CrOS x86_64 14541.0.0) {WEBKIT}", (None, None, "ChromeOS", "14541.0.0")),
        ("", (None, None, None, None)),
    ],
)
def test_browsers_and_systems_are_recognized(user_agent: str, expected: tuple[str | None, ...]) -> None:
    """The parser recognizes common browsers and operating systems, and returns nothing for others."""
    assert expected == tuple(user_agents.browser(user_agent))
