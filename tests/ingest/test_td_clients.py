"""Recorded requests of Treasure Data's own clients get the responses that these clients expect."""

import json
import re
import zlib
from base64 import b64encode
from typing import Any
from urllib.parse import quote

import pytest

from doubles.aws_errors import client_error
from ingest import pixel
from shared import write_key
from tests.support.ingest import KEY, SECRETS, START, Answer, Site, gzipped, http_event, rows_of

RECORD = {"td_title": "T & é", "table": "a column", "td_version": "4.4.3", "n": {"x": [1, None, "é"]}}
COLUMNS = {"td_title": "T & é", "table": "a column", "td_version": "4.4.3", "n": '{"x":[1,null,"é"]}'}
OWN = {"time", "event_id", "received_at"}
CHROME = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.1.2 Safari/537.36"
ANDROID = "TD-Android-SDK/1.1.0 (Pixel 7 14)"
OTHER = write_key.sign("outlet", "k1", SECRETS["k1"])
PATHS = ["/shop/pageviews", "/js/v3/event/shop/pageviews", "/postback/v3/event/shop/pageviews"]
ID = "0196aaaa-bbbb-7ccc-8ddd-eeeeeeeeeeee"
NOW = int(START)


def send(site: Site, path: str, body: Any = None, query: str = "", cookie: str = "", **more: str) -> Answer:
    """Post a body, as JSON unless it is bytes, with a key in the SDK's header unless another is given."""
    sent = {"authorization": f"TD1 {KEY}"} | {name.replace("_", "-"): text for name, text in more.items()}
    data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    event = http_event("POST", path, query, {n: t for n, t in sent.items() if t}, data)
    return site.send(event | {"cookies": [cookie]})


def visit(site: Site, path: str, query: str = "", cookie: str = "", **headers: str) -> Answer:
    """Send a GET request with a cookie."""
    return site.send(http_event("GET", path, query, headers) | {"cookies": ["a=b", cookie]})


def columns(site: Site) -> dict[str, Any]:
    """Return the columns of the only row, without those that every row has."""
    [(table, row)] = site.rows()
    assert "pageviews" == table
    assert set(row) >= OWN
    return {name: value for name, value in row.items() if name not in OWN}


@pytest.mark.parametrize(
    ("body", "kind", "more"),
    [
        ({"events": [RECORD]}, "", {}),
        ({"records": [RECORD]}, "", {}),
        ([RECORD], "", {}),
        (RECORD, "", {}),
        (RECORD | {"events": [1]}, ".single", {"events": "[1]"}),
        ([RECORD], ".js", {"td_ip": "192.0.2.7"}),
        ([RECORD], ".mobile", {"td_ip": "192.0.2.7"}),
    ],
)
def test_records_arrive_with_their_columns_and_no_others(body: Any, kind: str, more: dict[str, str]) -> None:
    """Only the content type requests a column, the address, or says that a body is one record, whatever its members."""
    content_type = f"application/vnd.treasuredata.v1{kind}+json; charset=utf-8"

    answer = send(site := Site(), PATHS[0], body, "modified=1", content_type=content_type, user_agent="UA")

    assert (200, {"receipts": [{"success": True}]}) == (answer.status, answer.json)
    assert COLUMNS | more == columns(site)


def test_receipts_tell_a_mobile_sdk_which_events_to_drop() -> None:
    """Receipts are in the order of the events; the SDK drops bad events and never repeats them."""
    site, agent = Site(), {"user_agent": ANDROID}
    events = [{"uuid": "1", "a": 1}, 7, {"uuid": "2"}, {f"c{n}": 1 for n in range(600)}]
    body = gzipped(json.dumps({"events": events}).encode())

    answer = send(site, "///shop//pageviews", body, content_encoding="gzip", **agent)
    [illegal] = send(site, "/shop/No", {"events": [RECORD]}, **agent).json["receipts"]

    receipts = [*answer.json["receipts"], illegal]
    assert [
        *(None, "InvalidPropertyValueError", None, "InvalidPropertyNameError"),
        "InvalidCollectionNameError",
    ] == [None if receipt["success"] else receipt["error"]["name"] for receipt in receipts]
    assert "not_an_object: the event is not a JSON object" == receipts[1]["error"]["description"]
    assert ["1", "2"] == [row["uuid"] for _, row in site.rows()]


def test_a_mobile_sdk_sends_again_what_was_not_stored() -> None:
    """It drops an event that is rejected by any other name of an error. Old SDKs send the 21st table again, too."""
    site = Site()
    site.kinesis.faults = [{"Records": [{"SequenceNumber": "1"}, {"ErrorCode": "InternalFailure"}]}]
    site.sqs.faults, site.sqs.sticky = [client_error("InternalFailure", "SendMessage", status=500)], True
    tables = {f"shop.table_{number}": [{"a": 1}] for number in range(21)}

    lost = send(site, PATHS[0], [{"uuid": "1"}, {"uuid": "2"}], user_agent=ANDROID).json["receipts"]
    later = send(Site(), "/ios/v3/event", tables).json

    assert [True, False] == [receipt["success"] for receipt in lost]
    assert [name for name, [receipt] in later.items() if not receipt["success"]] == ["shop.table_20"]
    assert {"ServiceUnavailableError"} == {one["error"]["name"] for one in (lost[1], *later["shop.table_20"])}


def claims(site: Site, *requests: Any, path: str = PATHS[0], agent: str = ANDROID) -> dict[str, str]:
    """Send groups of events from a mobile SDK; return each claim's request id by its row's event id."""
    for request in requests:
        assert 200 == send(site, path, request, user_agent=agent).status
    claimed = [item for item in site.envelopes() if item.claim]
    return {row["event_id"]: item.request_id for item in claimed for _, row in rows_of(item)}


@pytest.mark.parametrize(
    ("agent", "path", "group", "uuid"),
    [
        (ANDROID, PATHS[0], "events", "uuid"),
        ("TD-iOS-SDK/1.2.1 (iOS 18.1)", PATHS[0], "events", "uuid"),
        ("", "/ios/v3/event", "shop.pageviews", "#UUID"),
    ],
)
def test_a_mobile_event_keeps_its_claim_in_any_group(agent: str, path: str, group: str, uuid: str) -> None:
    """The events beside it and its members' order do not matter. `event_id` precedes `uuid`; without an id there is no claim."""
    first, again = Site(), Site(visitor_ip="drop")
    named = [{uuid: f"u{n}", "o": {"a": 1, "b": 2}, "time": NOW - n, "td_ip": "td_ip"} for n in range(3)]
    nameless: list[Any] = [{"a": 1}, *[{uuid: odd} for odd in ("", 7, "x" * 129)]]
    events = [*named, {uuid: "x" * 128, "event_id": "e"}, *nameless]
    turned = [{**dict(reversed(event.items())), "o": {"b": 2, "a": 1}} for event in reversed(named)]

    once = claims(first, {group: events}, path=path, agent=agent)
    twice = claims(again, {group: turned[:1]}, {group: turned[1:] + turned[:1]}, path=path, agent=agent)

    ids = [item.request_id for item in first.envelopes()]
    assert ["u0", "u1", "u2", "e"] == list(once)
    assert ids[:4] == list(once.values())
    assert len(events) == len(set(ids))
    assert [(name, once[name]) for name in ("u0", "u1", "u2")] == sorted(twice.items())
    assert ["put_records"] == [operation for operation, _ in first.kinesis.calls]
    assert "u0" == first.rows()[0][1]["uuid"]


def test_different_events_are_different_claims() -> None:
    """Events that share a `uuid` but differ in content, table or account have different claims."""
    one, other = {"uuid": "u", "n": 1}, Site()
    send(other, "/outlet/pageviews", [one], authorization=f"TD1 {OTHER}", user_agent=ANDROID)

    ids = {claims(Site(), [one])["u"], claims(Site(), [one | {"n": 9}])["u"]}
    ids |= {claims(Site(), [one], path="/shop/clicks")["u"], other.envelopes()[0].request_id}
    assert 4 == len(ids)


def test_the_uuid_of_other_clients_is_a_column() -> None:
    """A page may send a device's id as `uuid` in many events."""
    site = Site()

    assert {} == claims(site, [{"uuid": "u"}] * 3, agent=CHROME)
    assert [(3, 0)] == [(item.row_count, item.claim) for item in site.envelopes()]
    assert "u" not in {row["event_id"] for _, row in site.rows()}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("query", "headers", "code"),
    [
        ("", {}, None),
        ("", {"authorization": "", "x_td_write_key": KEY}, None),
        ("", {"authorization": "td1  " + KEY}, None),
        (f"api_key={KEY}", {"authorization": ""}, None),
        (f"td_write_key={KEY}", {"authorization": ""}, None),
        ("", {"authorization": "TD1 1/abcdef", "x_td_write_key": KEY}, "invalid_key"),
        ("", {"authorization": f"TD1 {OTHER}"}, "wrong_database"),
    ],
)
def test_header_or_url_has_the_key(path: str, query: str, headers: dict[str, str], code: str | None) -> None:
    """Some clients cannot set headers. `Authorization` takes precedence, and the database must be the key's account."""
    site = Site()

    answer = send(site, path, {"a": 1}, query, **headers)

    assert code == answer.code
    assert (403 if code == "wrong_database" else 401 if code else 200) == answer.status
    assert [] == site.kinesis.calls if code else {"a": 1} == columns(site)


FILLED = {
    "td_ua": CHROME,
    "td_user_agent": CHROME,
    "td_browser": "Chrome",
    "td_browser_version": "130.0.1.2",
    "td_os": "Windows",
    "td_os_version": "10.0",
    "td_global_id": ID,
}


@pytest.mark.parametrize(
    ("path", "cookie", "agent", "filled"),
    [(PATHS[0], f"_td_global={ID}", CHROME, FILLED), (PATHS[1], "", "", dict.fromkeys(FILLED))],
    ids=["known", "unknown"],
)
def test_placeholders_are_filled_in(path: str, cookie: str, agent: str, filled: dict[str, Any]) -> None:
    """A value that equals its column's name is replaced; other values stay as sent."""
    site = Site(visitor_cookies="on")
    others = {"td_title": "td_title", "td_host": "td_ip"}

    send(site, path, {name: name for name in ("td_ip", *FILLED)} | others, cookie=cookie, user_agent=agent)

    assert {"td_ip": "192.0.2.7"} | filled | others == columns(site)


TITLE = '{"time":1700000000,"td_title":"Sale \ud83c\udf89 ???>>>","cut":"a \ud83c"}'
DATA = b64encode(TITLE.encode("utf-8", "surrogatepass")).decode()
ENCODED = quote(DATA, safe="")


@pytest.mark.parametrize("data", [ENCODED, DATA.rstrip("="), DATA.replace("+", "-").replace("/", "_")])
def test_version_2_requests_a_script(data: str) -> None:
    """The script calls the page's function. The URL has the record, carelessly encoded, with surrogates in UTF-8, some of them lone."""
    site = Site()

    answer = site.get(PATHS[1], f"api_key={KEY}&modified=1&data={data}&time=1700000000&callback=TreasureCb1")

    assert (200, b'/**/TreasureCb1({"created":true})') == (answer.status, answer.body)
    assert "application/javascript; charset=utf-8" == answer.headers["content-type"]
    assert "nosniff" == answer.headers["x-content-type-options"]
    assert {"td_title": "Sale \U0001f389 ???>>>", "cut": "a \ufffd"} == columns(site)
    assert 1_700_000_000 == site.row()["time"]
    assert {"+", "/", "="} <= set(DATA)


NO_NAMES = "alert(1)// a;b <script> 1a a-b a%20b a%0d%0ab %E3%81%82 a[0] %00 a%0a"


@pytest.mark.parametrize("callback", ["a" * 129, *NO_NAMES.split()])
@pytest.mark.parametrize("path", [PATHS[1], "/js/v3/global_id", "/get_cookie_id", "/"])
def test_a_callback_must_be_a_function_name(path: str, callback: str) -> None:
    """Any other callback gets 400, and no event is accepted."""
    site = Site()

    answer = site.get(path, f"api_key={KEY}&data={ENCODED}&callback={callback}")

    assert (400, "invalid_callback", []) == (answer.status, answer.code, site.kinesis.calls)


@pytest.mark.parametrize("path", ["/", "/js/v3/global_id", "/js/v3/enable_global_id"])
@pytest.mark.parametrize("forged", ["x", ID + "; Domain=evil.example", ID.upper(), "", ID + "\r\na: b"])
def test_a_global_id_is_kept_in_a_cookie(path: str, forged: str) -> None:
    """It lasts two years, for all sites but no script. One that is no id is replaced; if cookies are off, none is set or read."""
    on, off = Site(visitor_cookies="on"), Site()

    first = visit(on, path, cookie=f"_td_global={forged}")
    known = first.json["global_id"]
    again = visit(on, path, cookie=f"_td_global={known}")
    without = [visit(off, path, cookie=f"_td_global={ID}") for _ in range(2)]

    attributes = "Max-Age=63072000; Path=/; Secure; HttpOnly; SameSite=None"
    assert [f"_td_global={known}; {attributes}"] == first.cookies
    assert (known, []) == (again.json["global_id"], again.cookies)
    assert known not in (forged, ID)
    assert 3 == len({ID, *[answer.json["global_id"] for answer in without]})
    assert ([], []) == (without[0].cookies, on.kinesis.calls)


def test_a_site_id_is_stored_in_a_cookie_of_its_domain() -> None:
    """The SDK asks `ssc.` and the site's name; the id stays the same, and each response sets the cookie."""
    site, host = Site(visitor_cookies="on"), "ssc.shop.example:443"
    known, cookie = "", ""

    for _ in range(2):
        answer = visit(site, "/get_cookie_id", "cookie_domain=shop.example&r=1", cookie, host=host)

        known = known or answer.json["td_ssc_id"]
        attributes = "Domain=shop.example; Max-Age=63072000; Path=/; Secure; SameSite=Lax"
        cookie = f"_td_ssc_id={known}"
        assert (known, [f"{cookie}; {attributes}"]) == (answer.json["td_ssc_id"], answer.cookies)


@pytest.mark.parametrize(
    "domain",
    [
        *("evil.example", "example", "op.example", "", "x" * 300),
        *("shop.example%3B%20Path%3D/", "shop.example%0d%0aa:b"),
    ],
)
def test_a_site_id_is_never_a_cookie_of_another_domain(domain: str) -> None:
    """The response still has the id, but sets no cookie."""
    site = Site(visitor_cookies="on")

    answer = visit(site, "/get_cookie_id", f"cookie_domain={domain}", host="ssc.shop.example")

    assert (200, [], 36) == (answer.status, answer.cookies, len(answer.json["td_ssc_id"]))


def test_a_postback_array_is_answered_like_a_batch() -> None:
    """It is an error only if no row is stored, because the sender would repeat the whole array."""
    site = Site()

    answer = send(site, PATHS[2], [{"a": 1}, "no event", {"a": 2}])
    none = send(site, PATHS[2], ["no event"])

    assert (200, 2) == (answer.status, answer.json["accepted"])
    assert [(1, "not_an_object")] == [(item["index"], item["code"]) for item in answer.json["rejected"]]
    assert [1, 2] == [row["a"] for _, row in site.rows()]
    assert (400, "not_an_object") == (none.status, none.code)


TEXTS = {"a": "1", "page_url": "http://a.example/?x=1"}
SOON = {"a": "1", "time_raw": "soon", "time_rule": "unreadable"}


@pytest.mark.parametrize(
    ("method", "key", "query", "body", "stored"),
    [
        ("POST", "api_key", "", b'{"a": 1, "b": "2"}', {"a": 1, "b": "2"}),
        ("GET", "td_write_key", "&a=1&page_url=http://a.example/?x=1", None, TEXTS),
        ("GET", "api_key", "&a=1&td_record_time=soon", None, SOON),
        ("POST", "api_key", "&a=1&page_url=http://a.example/?x=1", b"", TEXTS),
        ("POST", "api_key", "&a=1&page_url=http://a.example/?x=1", b"PING", TEXTS),
        ("GET", "td_write_key", "&td_format=pixel&td_ip=td_ip&a=1", None, {"td_ip": "192.0.2.7", "a": "1"}),
    ],
)
def test_a_postback_has_two_forms(method: str, key: str, query: str, body: bytes | None, stored: Any) -> None:
    """A URL is a GET, or a POST without a body or with a ping's; its values are text. Key and format are no columns. No cache keeps it."""
    site = Site()

    answer = site.send(http_event(method, PATHS[2], f"{key}={KEY}{query}", {}, body))

    shown = ("image/gif", pixel.GIF) if "pixel" in query else ("application/json", b"{}")
    kind = answer.headers["content-type"]
    assert (200, *shown, stored) == (answer.status, kind, answer.body, columns(site))
    assert "no-store" in answer.headers["cache-control"]


FORM = "application/x-www-form-urlencoded; charset=utf-8"
PARTS = {"a": "1", "b": '["x y","z"]', "events": '["1","2"]', "td_client_id": "あ\n"}
SENT = '{"a": "="}'


@pytest.mark.parametrize("path", [*PATHS, "/v1/events"])
@pytest.mark.parametrize(
    ("body", "stored"),
    [
        ("a=1&b=x+y&b=z&events=1&events=2&td_client_id=あ\n".encode(), PARTS),
        (f"\ufeff{SENT}".encode(), {"a": "="}),
        *[(text.encode(), None) for text in ('"="', "true", "5", "a", "%7B%7D", f"'{SENT}'", "<a b='1'/>")],
        *[(SENT.encode(code), None) for code in ("utf-16", "utf-16-be")],
        (zlib.compress(SENT.encode(), wbits=-15), None),
    ],
)
def test_an_event_may_be_a_form(path: str, body: bytes, stored: dict[str, Any] | None) -> None:
    """It is one event even if it repeats a field `events`. What curl calls a form by default may be JSON, or is refused."""
    answer = send(site := Site(), path, body, f"t=pageviews&k={KEY}", content_type=FORM)

    if stored is None:
        assert (400, []) == (answer.status, site.rows())
    else:
        assert (200, stored) == (answer.status, {name: columns(site)[name] for name in stored})


def test_td_record_time_is_the_time_of_its_own_event() -> None:
    """The `time` of an event beside it may be older. An event that has no column left loses what was sent as its time."""
    site, week_ago = Site(), NOW - 7 * 86_400
    stamps: list[Any] = [week_ago * 1000, str(week_ago), str(week_ago - 1), NOW + 4 * 86_400, [NOW]]
    events = [{"time": week_ago - 1}, *({"td_record_time": stamp, "time": 1} for stamp in stamps)]
    old = {"td_record_time": week_ago - 1}
    events += [{f"c{number}": 0 for number in range(count)} | old for count in (507, 508, 509)]

    site.send(http_event("POST", PATHS[2], f"td_write_key={KEY}", {}, json.dumps(events).encode()))

    found = [(row["time"], row.get("time_raw"), row.get("time_rule")) for _, row in site.rows()]
    odd = [(NOW, stamp, "out_of_range") for stamp in stamps[2:4]] + [(NOW, f"[{NOW}]", "unreadable")]
    full = [(NOW, week_ago - 1, "out_of_range"), (NOW, None, None), (NOW, None, None)]
    right = [(week_ago - 1, None, None), (week_ago, week_ago * 1000, "milliseconds")]
    assert [*right, (week_ago, None, None), *odd, *full] == found


ALLOWED = "https://allowed.example"


@pytest.mark.parametrize(
    ("target", "location", "key", "code"),
    [
        (f"{ALLOWED}/p?a=1%26b#c", f"{ALLOWED}/p?a=1&b#c", KEY, None),
        ("http://Allowed.Example/", "http://Allowed.Example/", KEY, None),
        (f"{ALLOWED}/é%0d%0aset-cookie: a=b", f"{ALLOWED}/%C3%A9%0D%0Aset-cookie:%20a=b", KEY, None),
        (f"{ALLOWED}/?id=td_global_id", f"{ALLOWED}/?id={ID}", KEY, None),
        (f"{ALLOWED}/", f"{ALLOWED}/", "x", "invalid_key"),
        (f"{ALLOWED}/", f"{ALLOWED}/", OTHER, "wrong_database"),
    ],
)
def test_redirects_lead_to_allowed_hosts(target: str, location: str, key: str, code: str | None) -> None:
    """The URL gets the global id if it asks for it, and cannot inject a header. Of a rejected event, a header has the code."""
    site = Site(redirect_hosts=("allowed.example",), visitor_cookies="on")
    query = f"td_write_key={key}&a=1&td_redirect={quote(target, safe='%')}"

    answer = visit(site, PATHS[2], query, f"_td_global={ID}")

    assert (302, location, code) == (answer.status, answer.headers["location"], answer.code)
    assert [] == site.rows() if code else {"a": "1"} == columns(site)


HOSTILE = r"""
https://evil.example/allowed.example
https://allowed.example.evil.example/
https://allowed.example@evil.example/
https://evil.example\@allowed.example/
https://user:password@allowed.example/
https://allowed.example:444/
//allowed.example/
allowed.example
javascript:alert(1)//allowed.example
javascript://allowed.example/
https:allowed.example
https:///allowed.example
https://[allowed.example
"""


@pytest.mark.parametrize(
    "target", [*HOSTILE.split(), f" {ALLOWED}", f"{ALLOWED}/" + "x" * 5000, f"{ALLOWED}/\ud800"]
)
def test_redirects_to_other_hosts_are_rejected(target: str) -> None:
    """The response is 400, and the event is not accepted: an open redirect could be abused for phishing."""
    site = Site(redirect_hosts=("allowed.example",))

    sent = re.sub(r"[^\ud800]+", lambda part: quote(part[0], safe=""), target)
    answer = site.get(PATHS[2], f"td_write_key={KEY}&td_redirect={sent}")

    assert (400, "invalid_redirect", []) == (answer.status, answer.code, site.kinesis.calls)
    assert "location" not in answer.headers


@pytest.mark.parametrize("path", ["/ios/v3/event", "/android/v3/event"])
def test_old_mobile_sdks_send_several_tables(path: str) -> None:
    """The body is in zlib format and has its own names for id and time; receipts are grouped by table."""
    site, keen = Site(), {"keen": {"timestamp": "2025-11-20T00:00:00.000Z"}}
    views = [{"a": 1, "#UUID": "u1"} | keen, {"#UUID": "u2", "#SSUT": True, "time": NOW - 9} | keen]
    body = {"shop.pageviews": views, "shop.clicks": [7], "shop.none": []}

    headers = {"x_td_write_key": KEY, "content_encoding": "deflate", "content_type": "application/json"}
    answer = send(site, path, zlib.compress(json.dumps(body).encode()), authorization="", **headers)

    assert [{"success": True}] * 2 == answer.json["shop.pageviews"]
    assert "InvalidPropertyValueError" == answer.json["shop.clicks"][0]["error"]["name"]
    assert [] == answer.json["shop.none"]
    [(_, first), (_, second)] = site.rows()
    assert (1_763_596_800, "u1", 1) == (first["time"], first["uuid"], first["a"])
    assert (NOW, "u2") == (second["time"], second["uuid"])


IOS = "POST /ios/v3/event"


@pytest.mark.parametrize(
    ("line", "body", "key", "expected"),
    [
        *[(f"GET {PATHS[1]}?data={data}", b"", KEY, (400, "invalid_json", 0)) for data in ("%", "AAAA", "")],
        (f"GET {PATHS[1]}?data=WzFd", b"", KEY, (400, "not_events", 0)),
        ("POST /js/v3/event/shop/No", b"{}", KEY, (400, "invalid_table", 1)),
        (f"POST {PATHS[1]}", b'{"a": "%b"}' % (b"x" * 300_000), KEY, (413, "event_too_large", 1)),
        (IOS, b'{"outlet.pageviews": [{}]}', KEY, (403, "wrong_database", 0)),
        (IOS, b'{"shop.pageviews": [{}], "outlet.pageviews": [{}]}', KEY, (403, "wrong_database", 0)),
        (IOS, b'{"pageviews": [{}]}', KEY, (403, "wrong_database", 0)),
        (IOS, b"[]", KEY, (400, "not_events", 0)),
        (IOS, b'{"shop.pageviews": {}}', KEY, (400, "not_events", 0)),
        (IOS, b"{}", KEY, (400, "no_events", 0)),
        (IOS, b"\x1f\x8bdamaged", KEY, (400, "unreadable_body", 0)),
        (IOS, b"\x1f\x8bdamaged", "shop.k1.forged", (401, "invalid_key", 0)),
    ],
    ids=range(14),
)
def test_a_status_tells_the_reason(line: str, body: bytes, key: str, expected: tuple[int, str, int]) -> None:
    """It has one record, or nothing of it is accepted. The key is verified before the body is read, which may name the database."""
    site, (method, target) = Site(), line.split()
    path, _, query = target.partition("?")

    answer = site.send(http_event(method, path, query, {"authorization": f"TD1 {key}"}, body))

    assert expected == (answer.status, answer.code, len(site.kinesis.calls))
    assert [] == site.rows()


DEEP = b"[" * 3000 + b"]" * 3000


@pytest.mark.parametrize(
    ("body", "tables", "stored"),
    [
        (rb'{"shop.pageviews": [{"a": 1}], "shop.\ud800": [{}]}', ["pageviews", "\ufffd"], {"a": 1}),
        (b'{"shop.pageviews": [{"uuid": "u", "#SSUT": %b}]}' % DEEP, ["pageviews"], {"uuid": "u"}),
    ],
    ids=["a name of a lone surrogate", "deep members of the SDK's own"],
)
def test_an_odd_body_gets_receipts_too(body: bytes, tables: list[str], stored: dict[str, Any]) -> None:
    """An SDK that gets no receipt sends the same events for ever. Its own members are not columns, so they reject nothing."""
    answer = send(site := Site(), "/ios/v3/event", body)

    assert (200, [f"shop.{table}" for table in tables]) == (answer.status, list(answer.json))
    assert ([{"success": True}], stored) == (answer.json["shop.pageviews"], columns(site))
