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
from shared.write_key import HASH_KEY
from tests.support.ingest import KEY, Site, http_event

IDS = {"td_client_id": "c", "td_global_id": "g", "td_ssc_id": "s", "gclid": "1", "_fbp": "2", "ScCid": "3"}
PIXEL_PATHS = ["/pixel.gif", "/postback/v3/event/shop/pageviews"]
CHROME = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36"
)


def row(site: Site, event: dict[str, Any], **headers: str) -> dict[str, Any]:
    """Send one event and return its columns."""
    assert 200 == site.post([{"table": "pageviews", **event}], **headers).status
    return site.row()


# Global Privacy Control, Do Not Track


@pytest.mark.parametrize(
    ("settings", "headers"),
    [
        ({}, {"sec_gpc": "1"}),
        ({}, {"sec_gpc": "1,1"}),
        ({}, {"sec_gpc": "0, 1"}),
        ({"honor_dnt": "on"}, {"dnt": "1,1"}),
        ({"honor_dnt": "on"}, {"dnt": "1"}),
        ({"honor_dnt": "on", "honor_gpc": "off"}, {"dnt": "1", "sec_gpc": "1"}),
    ],
)
def test_privacy_signals_remove_identifying_columns(
    settings: dict[str, str], headers: dict[str, str]
) -> None:
    """The event is stored without the columns that identify its visitor."""
    found = row(Site(**settings), {"page": "home", "td_ip": "192.0.2.9", **IDS}, user_agent="UA", **headers)

    assert {"time", "event_id", "received_at", "page", "td_user_agent"} == set(found)


@pytest.mark.parametrize(
    ("settings", "headers"),
    [
        ({}, {}),
        ({}, {"dnt": "1"}),
        ({}, {"sec_gpc": "0"}),
        ({}, {"sec_gpc": "0,11"}),
        ({"honor_gpc": "off"}, {"sec_gpc": "1"}),
        ({"honor_dnt": "on"}, {"dnt": "0"}),
    ],
)
def test_other_visitors_keep_their_columns(settings: dict[str, str], headers: dict[str, str]) -> None:
    """By default GPC is honored and DNT is not; either counts only if it is 1."""
    found = row(Site(**settings), IDS, **headers)

    assert {"td_ip": "192.0.2.7", "td_client_id": "c", "sccid": "3"}.items() <= found.items()


def test_privacy_signals_disable_cookies() -> None:
    """Routes that set cookies for other visitors set none, and old cookies are ignored."""
    site = Site(visitor_cookies="on")
    known = "0196aaaa-bbbb-7ccc-8ddd-eeeeeeeeeeee"
    for path, query in (("/", ""), ("/get_cookie_id", "cookie_domain=collect.example")):
        event = http_event("GET", path, query, {"sec-gpc": "1"})

        answer = site.send(event | {"cookies": [f"_td_global={known}", f"_td_ssc_id={known}"]})

        assert [] == answer.cookies
        assert known not in answer.json.values()


# IP addresses


@given(st.ip_addresses())
def test_a_truncated_address_is_its_network(address: Any) -> None:
    """The network is the IPv4 address's /24 or the IPv6 address's /48."""
    kept = ip_address(privacy._network(str(address)))

    assert kept.version == address.version
    network = ip_network(f"{kept}/{24 if address.version == 4 else 48}")
    assert address in network
    assert kept == network.network_address


@pytest.mark.parametrize(("path", "placeholder"), [(PIXEL_PATHS[0], None), (PIXEL_PATHS[1], "192.0.2.0")])
def test_addresses_are_truncated_wherever_they_come_from(path: str, placeholder: str | None) -> None:
    """This includes addresses that servers send for their visitors; a value that is not an address becomes null."""
    site = Site(visitor_ip="truncate")

    site.get(path, f"k={KEY}&td_write_key={KEY}&t=pageviews&td_ip=td_ip&TD_IP=2001:db8:1:2::3&td_ip_7=text")

    found = site.row()
    assert (placeholder, "2001:db8:1::", None) == (found["td_ip"], found["td_ip_2"], found["td_ip_7"])


def test_addresses_can_be_dropped() -> None:
    """With `drop`, the row has no address, whether the event or API Gateway provided it."""
    found = row(Site(visitor_ip="drop"), {"td_ip": "192.0.2.9", "TD_IP": "192.0.2.9"})

    assert [] == [name for name in found if "ip" in name]


# Columns


def test_columns_can_be_dropped() -> None:
    """Settings name columns as they are named in the row, whatever spelling the event used."""
    site = Site(dropped_columns=("email", "td_user_agent"))

    found = row(site, {"Email": "a", "email": "b", "E-Mail": "c", "email_address": "d"}, user_agent="UA")

    assert {"e_mail": "c", "email_address": "d"} == {name: found[name] for name in found if "mail" in name}
    assert "td_user_agent" not in found


def test_columns_can_be_hashed() -> None:
    """The key is stored with the signing secrets; equal values have equal hashes, and null stays null."""
    site = Site(hashed_columns=("email", "user", "none"))
    site.secret.text = '{"k1": "first secret", ".hash": "key"}'

    found = row(site, {"email": "a@a.example", "Email": "a@a.example", "user": 7, "none": None})

    expected = hmac.digest(b"key", b"a@a.example", "sha256").hex()[:32]
    assert [expected, expected, hmac.digest(b"key", b"7", "sha256").hex()[:32], None] == [
        found[name] for name in ("email", "email_2", "user", "none")
    ]


def test_without_a_key_hashed_columns_are_dropped() -> None:
    """They are never stored unhashed."""
    assert "email" not in row(Site(hashed_columns=("email",)), {"email": "a@a.example"})


def test_the_hash_key_signs_nothing() -> None:
    """No write key can refer to the hash key."""
    site = Site()
    site.secret.text = '{"k1": "first secret", ".hash": "key"}'

    for key in (f"shop.{HASH_KEY}.AAAAAAAAAAAAAAAAAAAAAA", f"shop..hash.{'A' * 22}"):
        assert "invalid_key" == site.post([{"table": "pageviews"}], key=key).code


@pytest.mark.parametrize("name", ["time", "event_id", "received_at", "Email", "a b"])
def test_required_columns_cannot_be_dropped(name: str) -> None:
    """The setting is an error; so is an illegal column name."""
    dropped = {"DroppedColumns": f"a,{name}"}
    environment = functions.variables(functions.INGEST, Resources("", "http://127.0.0.1/queue"), dropped)

    with pytest.raises(SettingsError, match="is not a column"):
        IngestSettings.from_environment(environment)


# Bots

GOOGLE = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"


@pytest.mark.parametrize(
    ("user_agent", "name"),
    [
        (GOOGLE, "Googlebot/"),
        ("curl/8.5.0", "curl"),
        ("Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; GPTBot/1.2)", "GPTBot"),
        (CHROME, ""),
        ("TD-Android-SDK/1.1.0 (Pixel 7 14)", ""),
        ("", ""),
    ],
)
def test_bots_are_recognized_by_a_public_list(user_agent: str, name: str) -> None:
    """Browsers and apps are not on the list."""
    assert name == user_agents.bot_name(user_agent)


def test_every_bot_on_the_list_is_recognized() -> None:
    """The list's own examples are recognized, up to the maximum length of a user agent."""
    listed = [
        (entry["pattern"], example)
        for entry in user_agents.CRAWLER_USER_AGENTS_DATA
        for example in entry.get("instances", [])
        if len(example) <= 512
    ]

    assert [] == [pattern for pattern, example in listed if not user_agents.bot_name(example)]


def test_bots_are_marked() -> None:
    """The column `bot` has the bot's name, unless the event has its own `bot`; other rows have no such column."""
    assert "Googlebot/" == row(Site(), {}, user_agent=GOOGLE)["bot"]
    assert "bot" not in row(Site(), {}, user_agent=CHROME)
    assert "bot" not in row(Site(bots="keep"), {}, user_agent=GOOGLE)
    assert "mine" == row(Site(), {"bot": "mine"}, user_agent=GOOGLE)["bot"]


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


# Browsers


@pytest.mark.parametrize(
    ("user_agent", "expected"),
    [
        (CHROME, ("Chrome", "130.0.0.0", "Linux", None)),
        (CHROME + " Edg/130.0.1", ("Edge", "130.0.1", "Linux", None)),
        (CHROME + " OPR/115.0", ("Opera", "115.0", "Linux", None)),
        (
            (
                "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko)"
                " Version/17.5 Mobile/15E148 Safari/604.1"
            ),
            ("Safari", "17.5", "iOS", "17.5.1"),
        ),
        (
            (
                "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko)"
                " Version/18.0 Safari/605.1.15"
            ),
            ("Safari", "18.0", "macOS", "10.15.7"),
        ),
        (
            (
                "Mozilla/5.0 (Linux; Android 14; SM-S911B) AppleWebKit/537.36 (KHTML, like Gecko)"
                " SamsungBrowser/25.0 Chrome/121.0.0.0 Mobile Safari/537.36"
            ),
            ("Samsung Internet", "25.0", "Android", "14"),
        ),
        (
            "Mozilla/5.0 (Windows NT 6.1; rv:115.0) Gecko/20100101 Firefox/115.0",
            ("Firefox", "115.0", "Windows", "6.1"),
        ),
        (
            "Mozilla/5.0 (Windows NT 6.1; Trident/7.0; rv:11.0) like Gecko",
            ("Internet Explorer", "11.0", "Windows", "6.1"),
        ),
        (
            "Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) AppleWebKit/537.36",
            (None, None, "ChromeOS", "14541.0.0"),
        ),
        ("x", (None, None, None, None)),
        ("", (None, None, None, None)),
    ],
)
def test_browsers_and_systems_are_recognized(user_agent: str, expected: tuple[str | None, ...]) -> None:
    """The parser recognizes common browsers and operating systems, and returns nothing for others."""
    assert expected == tuple(user_agents.browser(user_agent))


# Logs
