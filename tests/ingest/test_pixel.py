"""The pixel carries one event in an image's query string."""

import json

import pytest

from ingest import pixel
from tests.support.ingest import KEY, SECRETS, START, Site, http_event

NOW = int(START)


def test_parameters_become_columns() -> None:
    """The first `k` is the key and the first `t` the table; all other parameters are columns, and a repeated one is a list."""
    site = Site()
    query = "td_title=T%20%26+%C3%A9&flag=&tag=a&price=12.50&tag=b&tag=%22&=x&k=other&t=clicks"

    answer = site.pixel(query, user_agent="UA", referer="https://a.example/p")

    assert 200 == answer.status
    [(table, row)] = site.rows()
    assert "7" == row.pop("event_id")[14]
    columns = {"td_title": "T & é", "price": "12.50", "flag": "", "_": "x", "tag": '["a","b","\\""]'}
    added = {"td_url": "https://a.example/p", "td_ip": "192.0.2.7", "td_user_agent": "UA"}
    assert ("pageviews", {"time": NOW, "received_at": NOW * 1000} | columns | added) == (table, row)


def test_the_response_is_an_uncacheable_image() -> None:
    """It is a GIF of 43 bytes, is never cached, and may be embedded in cross-origin isolated pages."""
    answer = Site().pixel("")

    assert (43, b"GIF89a\x01\x00\x01\x00", b";") == (len(answer.body), answer.body[:10], answer.body[-1:])
    assert "image/gif" == answer.headers["content-type"]
    assert "no-store" in answer.headers["cache-control"]
    assert "cross-origin" == answer.headers["cross-origin-resource-policy"]
    assert "no-cache" == answer.headers["pragma"]


@pytest.mark.parametrize(
    ("query", "secrets", "status", "code"),
    [
        ("k=&t=pageviews", SECRETS, 401, "missing_key"),
        ("k=shop.k1.forged&t=pageviews", SECRETS, 401, "invalid_key"),
        (f"k={KEY}&t=", SECRETS, 400, "missing_table"),
        (f"k={KEY}&t=pageviews&table=x", SECRETS, 400, "invalid_table"),
        (f"k={KEY}&t=pageviews&a={'x' * 300_000}", SECRETS, 413, "event_too_large"),
        (f"k={KEY}&t=pageviews", {}, 503, "keys_unavailable"),
    ],
)
def test_the_status_shows_a_rejection(query: str, secrets: dict[str, str], status: int, code: str) -> None:
    """The body is still the image, so pages never show a broken one; in an outage the response says when to try again."""
    site = Site()
    site.secret.text = json.dumps(secrets)

    answer = site.get("/pixel.gif", query)

    assert (status, code, pixel.GIF) == (answer.status, answer.code, answer.body)
    assert "no-store" in answer.headers["cache-control"]
    assert (None if secrets else "5") == answer.headers.get("retry-after")
    assert [] == site.rows()
    assert [("refused", code)] == [line for line in site.telemetry.codes() if line[0] == "refused"]


@pytest.mark.parametrize("query", ["td_url=mine", "td_url="])
def test_the_events_own_url_takes_precedence_over_the_referrer(query: str) -> None:
    """An empty one counts, too."""
    site = Site()

    site.pixel(query, referer="https://a.example/")

    assert query == f"td_url={site.row()['td_url']}"


def test_a_ping_is_an_event() -> None:
    """It has the page with the link and the link's target."""
    site = Site()
    ping = {"ping-from": "https://a.example/p", "ping-to": "https://b.example/", "content-type": "text/ping"}
    query, headers = f"k={KEY}&t=pageviews&link=buy", ping | {"user-agent": "UA"}

    answer = site.send(http_event("POST", "/pixel.gif", query, headers, b"PING"))

    assert (200, 43) == (answer.status, len(answer.body))
    added = {"td_url": "https://a.example/p", "ping_to": "https://b.example/", "td_ip": "192.0.2.7"}
    row = site.row()
    del row["time"], row["event_id"], row["received_at"]
    assert {"link": "buy", "td_user_agent": "UA"} | added == row
