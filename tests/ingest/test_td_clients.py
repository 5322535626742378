"""Recorded requests of Treasure Data's own clients get the responses that these clients expect."""

import json
import zlib
from base64 import b64encode
from typing import Any
from urllib.parse import quote

import pytest

from shared import write_key
from tests.support.ingest import KEY, SECRETS, START, Answer, Site, gzipped, http_event, rows_of

RECORD = {"td_title": "T & é", "table": "a column", "td_version": "4.4.3", "n": {"x": [1, None, "é"]}}
COLUMNS = {"td_title": "T & é", "table": "a column", "td_version": "4.4.3", "n": '{"x":[1,null,"é"]}'}
OWN = {"time", "event_id", "received_at"}
V1 = "application/vnd.treasuredata.v1+json"
CHROME = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.1.2 Safari/537.36"
OTHER = write_key.sign("outlet", "k1", SECRETS["k1"])
PATHS = ["/shop/pageviews", "/js/v3/event/shop/pageviews", "/postback/v3/event/shop/pageviews"]


def send(site: Site, path: str, body: Any = None, query: str = "", **headers: str) -> Answer:
    """Post a body, as JSON unless it is bytes, with a key in the SDK's header unless another is given."""
    sent = {"authorization": f"TD1 {KEY}"} | {name.replace("_", "-"): text for name, text in headers.items()}
    data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    return site.send(http_event("POST", path, query, {n: t for n, t in sent.items() if t}, data))


def columns(site: Site) -> dict[str, Any]:
    """Return the columns of the only row, without those that every row has."""
    [(table, row)] = site.rows()
    assert "pageviews" == table
    assert set(row) >= OWN
    return {name: value for name, value in row.items() if name not in OWN}


# records.in: td-js-sdk 4, mobile SDKs 1


@pytest.mark.parametrize("body", [{"events": [RECORD]}, {"records": [RECORD]}, [RECORD], RECORD], ids=repr)
def test_records_arrive_with_their_columns_and_no_others(body: Any) -> None:
    """The path names the table, so a member `table` is a column; no address or browser is added unless requested."""
    site = Site()

    answer = send(
        site, "/shop/pageviews", body, "modified=1795597713217", content_type=V1, user_agent="UA", accept=V1
    )

    assert (200, {"receipts": [{"success": True}]}) == (answer.status, answer.json)
    assert COLUMNS == columns(site)


def test_a_single_record_may_have_any_members() -> None:
    """A body of type `v1.single+json` is one record, whatever its members are called."""
    site = Site()

    send(
        site,
        "/shop/pageviews",
        {"events": [1]},
        content_type="application/vnd.treasuredata.v1.single+json; charset=utf-8",
    )

    assert {"events": "[1]"} == columns(site)


@pytest.mark.parametrize("kind", ["js", "mobile"])
def test_two_content_types_request_the_visitors_address(kind: str) -> None:
    """The SDK requests the column `td_ip` by the content type."""
    site = Site()

    send(
        site,
        "/shop/pageviews",
        {"events": [RECORD]},
        content_type=f"application/vnd.treasuredata.v1.{kind}+json",
    )

    assert COLUMNS | {"td_ip": "192.0.2.7"} == columns(site)


def test_receipts_tell_a_mobile_sdk_which_events_to_drop() -> None:
    """Receipts are in the order of the events; the SDK drops bad events and never repeats them."""
    site = Site()
    events = [{"uuid": "1", "a": 1}, 7, {"uuid": "2"}, {f"c{n}": 1 for n in range(600)}]

    answer = send(
        site,
        "//shop//pageviews",
        gzipped(json.dumps({"events": events}).encode()),
        content_type=V1,
        content_encoding="gzip",
        user_agent="TD-Android-SDK/1.1.0 (Pixel 7 14)",
    )

    receipts = answer.json["receipts"]
    assert 200 == answer.status
    assert [True, False, True, False] == [receipt["success"] for receipt in receipts]
    assert ["InvalidPropertyValueError", "InvalidPropertyNameError"] == [
        receipts[index]["error"]["name"] for index in (1, 3)
    ]
    assert "not_an_object: the event is not a JSON object" == receipts[1]["error"]["description"]
    assert ["1", "2"] == [row["uuid"] for _, row in site.rows()]


ANDROID = "TD-Android-SDK/1.1.0 (Pixel 7 14)"
NAMED = [{"uuid": f"u{n}", "n": n, "o": {"a": 1, "b": 2}, "time": int(START) - n} for n in range(3)]


def claims(site: Site, path: str = PATHS[0], *requests: Any, agent: str = ANDROID) -> dict[str, str]:
    """Send groups of events from a mobile SDK; return each claim's request id by its row's event id."""
    for request in requests:
        assert 200 == send(site, path, request, user_agent=agent).status
    return {
        row["event_id"]: item.request_id
        for item in site.envelopes()
        for _, row in rows_of(item)
        if item.claim
    }


@pytest.mark.parametrize("agent", [ANDROID, "TD-iOS-SDK/1.2.1 (iOS 18.1)"])
def test_an_event_of_a_mobile_sdk_keeps_its_claim_in_any_group(agent: str) -> None:
    """Its request id does not depend on the events beside it or on the order of its members."""
    first, again = Site(), Site(visitor_ip="drop")
    turned = [{**dict(reversed(event.items())), "o": {"b": 2, "a": 1}} for event in reversed(NAMED)]

    once = claims(first, PATHS[0], {"events": NAMED}, agent=agent)

    assert {"u0", "u1", "u2"} == set(once)
    assert 3 == len(set(once.values()))
    assert once == claims(
        again, PATHS[0], {"events": turned[:1]}, {"events": turned[1:] + turned[:1]}, agent=agent
    )
    assert ["put_records"] == [operation for operation, _ in first.kinesis.calls]
    assert "u0" == first.rows()[0][1]["uuid"]


def test_different_events_are_different_claims() -> None:
    """Events that share a `uuid` but differ in content, table or account have different claims."""
    one = NAMED[0]
    found = [
        claims(Site(), PATHS[0], {"events": [one]}),
        claims(Site(), PATHS[0], {"events": [one | {"n": 9}]}),
        claims(Site(), "/shop/clicks", {"events": [one]}),
    ]
    other = Site()
    send(other, "/outlet/pageviews", {"events": [one]}, authorization=f"TD1 {OTHER}", user_agent=ANDROID)

    ids = [each["u0"] for each in found] + [item.request_id for item in other.envelopes()]
    assert 4 == len(set(ids))


def test_an_event_without_an_id_is_not_a_claim() -> None:
    """Its envelope counts each time it is sent. An event's own `event_id` takes precedence over its `uuid`."""
    site = Site()
    events: list[Any] = [
        {"a": 1},
        {"uuid": ""},
        {"uuid": 7},
        {"uuid": "x" * 129},
        {"uuid": "u", "event_id": "e"},
    ]

    assert {"e"} == set(claims(site, PATHS[0], {"events": events}))
    assert [0, 0, 0, 0, 1] == [item.claim for item in site.envelopes()]
    assert 5 == len({item.request_id for item in site.envelopes()})


def test_the_uuid_of_other_clients_is_a_column() -> None:
    """A page may send a device's id as `uuid` in many events."""
    site = Site()

    assert {} == claims(site, PATHS[0], {"events": NAMED}, agent=CHROME)
    [item] = site.envelopes()
    assert (3, 0) == (item.row_count, item.claim)
    assert "u0" not in {row["event_id"] for _, row in site.rows()}


def test_events_of_old_mobile_sdks_keep_their_claims_too() -> None:
    """Old SDKs call the id `#UUID`."""
    events = [{"#UUID": f"u{n}", "n": n} for n in range(3)]
    first, again = Site(), Site()

    once = claims(first, "/ios/v3/event", {"shop.pageviews": events}, agent="")

    assert {"u0", "u1", "u2"} == set(once)
    assert once == claims(
        again, "/ios/v3/event", {"shop.pageviews": events[1:]}, {"shop.pageviews": events[:1]}, agent=""
    )


def test_events_with_an_illegal_table_are_rejected() -> None:
    """The receipts have the error, and nothing is put."""
    site = Site()

    [receipt] = send(site, "/shop/No", {"events": [RECORD]}).json["receipts"]

    assert (False, "InvalidCollectionNameError") == (receipt["success"], receipt["error"]["name"])
    assert [] == site.rows()


# Keys


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "headers", [{}, {"authorization": "", "x_td_write_key": KEY}, {"authorization": "td1  " + KEY}], ids=repr
)
def test_the_key_may_be_in_treasure_datas_headers(path: str, headers: dict[str, str]) -> None:
    """The headers are `Authorization: TD1` and `X-TD-Write-Key`."""
    assert 200 == send(Site(), path, RECORD, **headers).status


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", ["api_key", "td_write_key"])
def test_the_key_may_be_in_the_url(path: str, name: str) -> None:
    """Some clients cannot set headers. The key does not become a column."""
    site = Site()

    assert 200 == send(site, path, {"a": 1}, f"{name}={KEY}", authorization="").status
    assert {"a": 1} == columns(site)


def test_authorization_takes_precedence_over_other_keys() -> None:
    """A wrong key there is not replaced by a valid one elsewhere."""
    answer = send(Site(), PATHS[0], RECORD, authorization="TD1 1/abcdef", x_td_write_key=KEY)

    assert (401, "invalid_key") == (answer.status, answer.code)


@pytest.mark.parametrize("path", PATHS)
def test_the_database_must_be_the_keys_account(path: str) -> None:
    """A valid key of another account gets 403, `wrong_database`, and nothing is put."""
    site = Site()

    answer = send(site, path, RECORD, authorization=f"TD1 {OTHER}")

    assert (403, "wrong_database") == (answer.status, answer.code)
    assert "the database in the path is not the write key's account" == answer.json["error"]["message"]
    assert [] == site.kinesis.calls


# Placeholders


def test_placeholders_are_filled_in() -> None:
    """A value that equals its column's name is replaced; other values stay as sent."""
    site = Site()
    names = ["td_ip", "td_ua", "td_user_agent", "td_browser", "td_browser_version", "td_os", "td_os_version"]

    send(
        site,
        PATHS[1],
        {name: name for name in [*names, "td_global_id", "td_title"]} | {"td_host": "td_ip"},
        user_agent=CHROME,
    )

    assert {
        "td_ip": "192.0.2.7",
        "td_ua": CHROME,
        "td_user_agent": CHROME,
        "td_browser": "Chrome",
        "td_browser_version": "130.0.1.2",
        "td_os": "Windows",
        "td_os_version": "10.0",
        "td_global_id": None,
        "td_title": "td_title",
        "td_host": "td_ip",
    } == columns(site)


# td-js-sdk 1 to 3


DATA = quote(b64encode(json.dumps({"time": 1_700_000_000, **RECORD}, ensure_ascii=False).encode()).decode())


@pytest.mark.parametrize("data", [DATA, DATA.replace("%3D", ""), DATA.replace("%2B", "+")])
def test_version_2_requests_a_script(data: str) -> None:
    """The script calls the page's function; the record is in the URL, however carelessly encoded."""
    site = Site()

    answer = site.get(
        PATHS[1],
        f"api_key={KEY}&modified=1&data={data}&time=1700000000&callback=TreasureJSONPCallback1",
    )

    assert (200, b'/**/TreasureJSONPCallback1({"created":true})') == (answer.status, answer.body)
    assert "application/javascript; charset=utf-8" == answer.headers["content-type"]
    assert "nosniff" == answer.headers["x-content-type-options"]
    assert COLUMNS == columns(site)
    assert 1_700_000_000 == site.row()["time"]


def test_version_2_encodes_surrogates() -> None:
    """It writes each half of a surrogate pair in UTF-8; a title that is cut within a pair has a lone one."""
    site = Site()
    text = '{"td_title":"Sale \ud83c\udf89","td_description":"cut \ud83c"}'.encode("utf-8", "surrogatepass")

    answer = site.get(PATHS[1], f"api_key={KEY}&data={quote(b64encode(text).decode())}&callback=cb")

    assert (200, b'/**/cb({"created":true})') == (answer.status, answer.body)
    assert {"td_title": "Sale \U0001f389", "td_description": "cut \ufffd"} == columns(site)


@pytest.mark.parametrize(
    "callback",
    [
        "alert(1)//",
        "a;b",
        "<script>",
        "1a",
        "a-b",
        "a b",
        "a%0d%0ab",
        "%E3%81%82",
        "a" * 129,
        "a[0]",
        "%00",
        "a%0a",
    ],
)
@pytest.mark.parametrize("path", [PATHS[1], "/js/v3/global_id", "/get_cookie_id", "/"])
def test_a_callback_must_be_a_function_name(path: str, callback: str) -> None:
    """Any other callback gets 400, and no event is accepted."""
    site = Site()

    answer = site.get(path, f"api_key={KEY}&data={DATA}&callback={callback}")

    assert (400, "invalid_callback") == (answer.status, answer.code)
    assert [] == site.kinesis.calls


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("data=%", "invalid_json"),
        ("data=AAAA", "invalid_json"),
        ("", "invalid_json"),
        ("data=" + b64encode(b"[1]").decode(), "not_events"),
    ],
)
def test_data_that_is_not_a_record_is_rejected(query: str, code: str) -> None:
    """The response is 400 with the reason."""
    answer = Site().get(PATHS[1], f"api_key={KEY}&{query}")

    assert (400, code) == (answer.status, answer.code)


def test_a_rejected_record_sets_the_status() -> None:
    """A request has one record, so the status can tell why it was rejected."""
    site = Site()

    assert "invalid_table" == send(site, "/js/v3/event/shop/No", RECORD).code
    assert (413, "event_too_large") == (
        (answer := send(site, PATHS[1], {"a": "x" * 300_000})).status,
        answer.code,
    )


# Ids

ID = "0196aaaa-bbbb-7ccc-8ddd-eeeeeeeeeeee"
GLOBAL_ID_PATHS = ["/", "/js/v3/global_id", "/js/v3/enable_global_id"]


@pytest.mark.parametrize("path", GLOBAL_ID_PATHS)
def test_without_cookies_a_global_id_is_new_each_time(path: str) -> None:
    """If cookies are off, none is set, and an old one is ignored."""
    site = Site()
    event = http_event("GET", path) | {"cookies": [f"_td_global={ID}"]}

    first, second = site.send(event), site.send(event)

    assert 3 == len({first.json["global_id"], second.json["global_id"], ID})
    assert [] == first.cookies
    assert [] == site.kinesis.calls


@pytest.mark.parametrize("path", GLOBAL_ID_PATHS)
def test_with_cookies_a_global_id_is_kept(path: str) -> None:
    """The cookie lasts two years, is sent from all sites, and is readable by the server only."""
    site = Site(visitor_cookies="on")

    answer = site.send(http_event("GET", path))
    known = answer.json["global_id"]
    again = site.send(http_event("GET", path) | {"cookies": ["a=b", f"_td_global={known}"]})

    assert [
        f"_td_global={known}; Max-Age=63072000; Path=/; Secure; HttpOnly; SameSite=None"
    ] == answer.cookies
    assert (known, []) == (again.json["global_id"], again.cookies)


def test_a_known_global_id_fills_its_placeholder() -> None:
    """The id in the cookie replaces a column's value `td_global_id`."""
    site = Site(visitor_cookies="on")
    event = http_event(
        "POST", PATHS[0], "", {"authorization": f"TD1 {KEY}"}, b'{"td_global_id":"td_global_id"}'
    )

    site.send(event | {"cookies": [f"_td_global={ID}"]})

    assert {"td_global_id": ID} == columns(site)


@pytest.mark.parametrize(
    "forged", ["x", ID + "; Domain=evil.example", ID.upper(), "", ID + "\r\nset-cookie: a=b"]
)
def test_a_cookie_that_is_not_an_id_is_replaced(forged: str) -> None:
    """The response sets a cookie with a new id."""
    answer = Site(visitor_cookies="on").send(http_event("GET", "/") | {"cookies": [f"_td_global={forged}"]})

    assert answer.json["global_id"] not in (forged, ID)
    assert 1 == len(answer.cookies)


def test_a_site_id_is_stored_in_a_cookie_of_its_domain() -> None:
    """The SDK asks `ssc.` and the site's name; the id stays the same, and each response sets the cookie."""
    site = Site(visitor_cookies="on")
    event = http_event(
        "GET", "/get_cookie_id", "cookie_domain=shop.example&r=1", {"host": "ssc.shop.example:443"}
    )

    answer = site.send(event)
    known = answer.json["td_ssc_id"]

    expected = f"_td_ssc_id={known}; Domain=shop.example; Max-Age=63072000; Path=/; Secure; SameSite=Lax"
    assert [expected] == answer.cookies
    again = site.send(event | {"cookies": [f"_td_ssc_id={known}"]})
    assert (known, [expected]) == (again.json["td_ssc_id"], again.cookies)


@pytest.mark.parametrize(
    "domain",
    [
        "evil.example",
        "example",
        "op.example",
        "",
        "shop.example%3B%20Path%3D/",
        "shop.example%0d%0aa:b",
        "x" * 300,
    ],
)
def test_a_site_id_is_never_a_cookie_of_another_domain(domain: str) -> None:
    """The response still has the id, but sets no cookie."""
    answer = Site(visitor_cookies="on").send(
        http_event("GET", "/get_cookie_id", f"cookie_domain={domain}", {"host": "ssc.shop.example"})
    )

    assert (200, []) == (answer.status, answer.cookies)
    assert 36 == len(answer.json["td_ssc_id"])


# Postbacks


@pytest.mark.parametrize("headers", [{}, {"content_type": "text/plain"}])
def test_a_postback_is_a_json_object(headers: dict[str, str]) -> None:
    """Its values keep their types, and the response is an empty object."""
    site = Site()

    answer = send(site, PATHS[2], {"a": 1, "b": "2"}, **headers)

    assert (200, {}) == (answer.status, answer.json)
    assert {"a": 1, "b": "2"} == columns(site)


def test_a_postback_array_is_answered_like_a_batch() -> None:
    """It is an error only if no row is stored, because the sender would repeat the whole array."""
    site = Site()

    answer = send(site, PATHS[2], [{"a": 1}, "no event", {"a": 2}])

    assert (200, 2) == (answer.status, answer.json["accepted"])
    assert [(1, "not_an_object")] == [(item["index"], item["code"]) for item in answer.json["rejected"]]
    assert [1, 2] == [row["a"] for _, row in site.rows()]
    assert (400, "not_an_object") == ((answer := send(site, PATHS[2], ["no event"])).status, answer.code)


def test_a_postback_may_be_a_url() -> None:
    """It is sent by GET, or by POST without a body or with the body of a ping; its values are text."""
    for method, body in (("GET", None), ("POST", b""), ("POST", b"PING")):
        site = Site()

        answer = site.send(
            http_event(method, PATHS[2], f"td_write_key={KEY}&a=1&page_url=http://a.example/?x=1", {}, body)
        )

        assert (200, {}) == (answer.status, answer.json)
        assert {"a": "1", "page_url": "http://a.example/?x=1"} == columns(site)


def test_an_event_may_be_a_form() -> None:
    """Every route that takes a body takes a form."""
    for path in [*PATHS, "/v1/events"]:
        site = Site()

        answer = send(
            site,
            path,
            b"a=1&b=x+y&b=z&td_client_id=c",
            f"t=pageviews&k={KEY}",
            content_type="application/x-www-form-urlencoded; charset=utf-8",
        )

        assert 200 == answer.status
        assert {"a": "1", "b": '["x y","z"]', "td_client_id": "c"}.items() <= columns(site).items()


def test_a_postback_may_be_a_pixel() -> None:
    """Its other parameters are text columns, with placeholders filled in."""
    site = Site()

    answer = site.get(
        PATHS[2], f"td_format=pixel&td_write_key={KEY}&td_ip=td_ip&td_ua=td_ua&a=1", user_agent=CHROME
    )

    assert (200, "image/gif", 43) == (answer.status, answer.headers["content-type"], len(answer.body))
    assert {"td_ip": "192.0.2.7", "td_ua": CHROME, "a": "1"} == columns(site)


NOW = int(START)
WEEK = 7 * 86_400


@pytest.mark.parametrize(
    ("stamp", "time", "odd"),
    [
        (NOW - 60, NOW - 60, {}),
        (NOW - WEEK, NOW - WEEK, {}),
        (NOW - WEEK - 1, NOW, {"time_raw": str(NOW - WEEK - 1), "time_rule": "out_of_range"}),
        (NOW + 3 * 86_400, NOW + 3 * 86_400, {}),
        (NOW + 3 * 86_400 + 1, NOW, {"time_raw": str(NOW + 3 * 86_400 + 1), "time_rule": "out_of_range"}),
        ("soon", NOW, {"time_raw": "soon", "time_rule": "unreadable"}),
    ],
)
def test_td_record_time_is_the_time(stamp: Any, time: int, odd: dict[str, Any]) -> None:
    """A time more than seven days in the past or three days in the future is out of range."""
    site = Site()

    site.get(PATHS[2], f"td_write_key={KEY}&td_record_time={stamp}")

    assert (time, odd) == (site.row()["time"], columns(site))


# Redirects

ALLOWED = "https://allowed.example"


@pytest.mark.parametrize(
    ("target", "location"),
    [
        (f"{ALLOWED}/p?a=1%26b#c", f"{ALLOWED}/p?a=1&b#c"),
        ("http://Allowed.Example/", "http://Allowed.Example/"),
        (f"{ALLOWED}/é%0d%0aset-cookie: a=b", f"{ALLOWED}/%C3%A9%0D%0Aset-cookie:%20a=b"),
        (f"{ALLOWED}/?id=td_global_id", f"{ALLOWED}/?id={ID}"),
    ],
)
def test_a_visitor_is_redirected_to_an_allowed_host(target: str, location: str) -> None:
    """The URL gets the global id if it asks for it, and cannot inject a header."""
    site = Site(redirect_hosts=("allowed.example",), visitor_cookies="on")
    query = f"td_write_key={KEY}&a=1&td_redirect={quote(target, safe='%')}"

    answer = site.send(http_event("GET", PATHS[2], query) | {"cookies": [f"_td_global={ID}"]})

    assert (302, location, None) == (answer.status, answer.headers["location"], answer.code)
    assert {"a": "1"} == columns(site)


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.example/",
        "https://allowed.example.evil.example/",
        "https://evil.example/allowed.example",
        "https://allowed.example@evil.example/",
        "https://evil.example\\@allowed.example/",
        "https://user:password@allowed.example/",
        "https://allowed.example:444/",
        "//allowed.example/",
        "/path",
        "allowed.example",
        "javascript:alert(1)//allowed.example",
        "data:text/html,x",
        "https:allowed.example",
        "https:///allowed.example",
        "https://[allowed.example",
        " https://allowed.example",
        "https://allowed.example/" + "x" * 5000,
    ],
)
def test_redirects_to_other_hosts_are_rejected(target: str) -> None:
    """The response is 400, and the event is not accepted: an open redirect could be abused for phishing."""
    site = Site(redirect_hosts=("allowed.example",))

    answer = site.get(PATHS[2], f"td_write_key={KEY}&td_redirect={quote(target, safe='')}")

    assert (400, "invalid_redirect") == (answer.status, answer.code)
    assert "location" not in answer.headers
    assert [] == site.kinesis.calls


@pytest.mark.parametrize("key", ["x", OTHER])
def test_a_visitor_is_redirected_even_if_the_event_is_rejected(key: str) -> None:
    """The code is in the header of the redirect."""
    answer = Site(redirect_hosts=("allowed.example",)).get(
        PATHS[2], f"td_write_key={key}&td_redirect={ALLOWED}/"
    )

    assert (302, f"{ALLOWED}/") == (answer.status, answer.headers["location"])
    assert answer.code in ("invalid_key", "wrong_database")


# Mobile SDKs 0


@pytest.mark.parametrize("path", ["/ios/v3/event", "/android/v3/event"])
def test_old_mobile_sdks_send_several_tables(path: str) -> None:
    """The body is in zlib format and has its own names for id and time; receipts are grouped by table."""
    site = Site()
    body = {
        "shop.pageviews": [
            {"a": 1, "#UUID": "u1", "keen": {"timestamp": "2025-11-20T00:00:00.000Z"}},
            {"#UUID": "u2", "#SSUT": True, "keen": {"timestamp": "2025-11-20T00:00:00.000Z"}},
        ],
        "shop.clicks": [7],
        "shop.none": [],
    }

    answer = send(
        site,
        path,
        zlib.compress(json.dumps(body).encode()),
        authorization="",
        x_td_write_key=KEY,
        x_td_data_type="k",
        content_encoding="deflate",
        content_type="application/json",
    )

    assert [{"success": True}] * 2 == answer.json["shop.pageviews"]
    assert "InvalidPropertyValueError" == answer.json["shop.clicks"][0]["error"]["name"]
    assert [] == answer.json["shop.none"]
    [(_, first), (_, second)] = site.rows()
    assert (1_763_596_800, "u1", 1) == (first["time"], first["uuid"], first["a"])
    assert (NOW, "u2") == (second["time"], second["uuid"])


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"outlet.pageviews": [{}]}, 403, "wrong_database"),
        ({"pageviews": [{}]}, 403, "wrong_database"),
        ([], 400, "not_events"),
        ({"shop.pageviews": {}}, 400, "not_events"),
        ({}, 400, "no_events"),
    ],
)
def test_other_bodies_are_rejected(body: Any, status: int, code: str) -> None:
    """The request is rejected as a whole."""
    site = Site()

    answer = send(site, "/ios/v3/event", body, authorization="", x_td_write_key=KEY)

    assert (status, code) == (answer.status, answer.code)
    assert [] == site.kinesis.calls


def test_a_table_that_is_not_unicode_gets_a_receipt_too() -> None:
    """Its name is a lone surrogate, which a response cannot contain; the events beside it are stored, so they must not be sent again."""
    answer = send(site := Site(), "/ios/v3/event", {"shop.pageviews": [{"a": 1}], "shop.\ud800": [{}]})

    assert (200, ["shop.pageviews", "shop.\ufffd"]) == (answer.status, list(answer.json))
    assert {"a": 1} == columns(site)


def test_the_sdks_own_members_may_be_nested_deeply() -> None:
    """They are not columns, so they reject nothing. An SDK that gets no receipt sends the same events for ever."""
    body = b'{"shop.pageviews": [{"uuid": "u1", "#SSUT": %b}]}' % (b"[" * 3000 + b"]" * 3000)

    answer = send(site := Site(), "/ios/v3/event", body)

    assert (200, {"shop.pageviews": [{"success": True}]}) == (answer.status, answer.json)
    assert {"uuid": "u1"} == columns(site)


# HEAD requests and pings


@pytest.mark.parametrize("path", PATHS[1:])
def test_head_requests_record_no_event(path: str) -> None:
    """Link checkers and mail proxies send them."""
    site = Site()

    answer = site.send(http_event("HEAD", path, f"td_write_key={KEY}&data={DATA}"))

    assert (200, b"", []) == (answer.status, answer.body, site.kinesis.calls)


def test_a_ping_is_an_event() -> None:
    """It has the page with the link and the link's target."""
    site = Site()

    answer = site.send(
        http_event(
            "POST",
            "/pixel.gif",
            f"k={KEY}&t=pageviews&link=buy",
            {
                "content-type": "text/ping",
                "ping-from": "https://a.example/p",
                "ping-to": "https://b.example/",
                "user-agent": "UA",
            },
            b"PING",
        )
    )

    assert (200, 43) == (answer.status, len(answer.body))
    assert {
        "link": "buy",
        "td_url": "https://a.example/p",
        "ping_to": "https://b.example/",
        "td_ip": "192.0.2.7",
        "td_user_agent": "UA",
    } == columns(site)
