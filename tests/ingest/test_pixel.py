"""The pixel carries one event in an image's query string."""

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest import pixel
from tests.support.ingest import KEY, START, Site, http_event

NOW = int(START)


def test_parameters_become_columns() -> None:
    """`k` is the key and `t` the table; all other parameters are columns of the event."""
    site = Site()

    answer = site.pixel(
        "td_title=T%20%26+%C3%A9&price=12.50&flag=", user_agent="UA", referer="https://a.example/p"
    )

    assert 200 == answer.status
    [(table, row)] = site.rows()
    event_id = row.pop("event_id")
    assert "7" == event_id[14]
    assert (
        "pageviews",
        {
            "time": NOW,
            "received_at": NOW * 1000,
            "td_title": "T & é",
            "price": "12.50",
            "flag": "",
            "td_url": "https://a.example/p",
            "td_ip": "192.0.2.7",
            "td_user_agent": "UA",
        },
    ) == (table, row)


def test_the_response_is_an_uncacheable_image() -> None:
    """It is a GIF of 43 bytes, is never cached, and may be embedded in cross-origin isolated pages."""
    answer = Site().pixel("")

    assert (43, b"GIF89a\x01\x00\x01\x00", b";") == (len(answer.body), answer.body[:10], answer.body[-1:])
    assert "image/gif" == answer.headers["content-type"]
    assert "no-store" in answer.headers["cache-control"]
    assert "cross-origin" == answer.headers["cross-origin-resource-policy"]


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("", 401, "missing_key"),
        ("k=&t=pageviews", 401, "missing_key"),
        ("k=shop.k1.forged&t=pageviews", 401, "invalid_key"),
        (f"k={KEY}", 400, "missing_table"),
        (f"k={KEY}&t=", 400, "missing_table"),
        (f"k={KEY}&t=Page-Views", 400, "invalid_table"),
        (f"k={KEY}&t=pageviews&table=x", 400, "invalid_table"),
        (f"k={KEY}&t=pageviews" + "".join(f"&c{n}" for n in range(600)), 400, "too_many_columns"),
        (f"k={KEY}&t=pageviews&a={'x' * 300_000}", 413, "event_too_large"),
    ],
)
def test_a_rejection_shows_in_the_status_and_a_header(query: str, status: int, code: str) -> None:
    """The body is still the image, so pages never show a broken one."""
    site = Site()

    answer = site.get("/pixel.gif", query)

    assert (status, code, pixel.GIF) == (answer.status, answer.code, answer.body)
    assert "no-store" in answer.headers["cache-control"]
    assert ([], [("refused", code)]) == (site.rows(), site.telemetry.codes())


def test_an_outage_is_answered_with_the_image() -> None:
    """The response is 503 with `Retry-After`, and its body is the image."""
    site = Site()
    site.secret.text = "{}"

    answer = site.pixel("")

    assert (503, "keys_unavailable", "5", pixel.GIF) == (
        answer.status,
        answer.code,
        answer.headers["retry-after"],
        answer.body,
    )


def test_a_repeated_parameter_becomes_a_list() -> None:
    """The list is stored as JSON text, like every nested value."""
    site = Site()

    site.pixel("tag=a&x=1&tag=b&tag=%22")

    assert ('["a","b","\\""]', "1") == (site.row()["tag"], site.row()["x"])


def test_the_first_key_and_table_count() -> None:
    """Later values of `k` and `t` are ignored and never become columns."""
    site = Site()

    site.pixel("k=other&t=clicks")

    assert ("pageviews", set()) == (site.rows()[0][0], {"k", "t"} & set(site.row()))


@pytest.mark.parametrize(
    ("query", "expected"), [("", "https://a.example/"), ("td_url=mine", "mine"), ("td_url=", "")]
)
def test_the_referrer_becomes_td_url(query: str, expected: str) -> None:
    """The event's own `td_url` takes precedence."""
    site = Site()

    site.pixel(query, referer="https://a.example/")

    assert expected == site.row()["td_url"]


def test_a_head_request_records_no_event() -> None:
    """The response has the headers of a GET, and nothing is put."""
    site = Site()

    answer = site.send(http_event("HEAD", "/pixel.gif", f"k={KEY}&t=pageviews"))

    assert (200, b"", "image/gif") == (answer.status, answer.body, answer.headers["content-type"])
    assert [] == site.kinesis.calls


@given(
    st.dictionaries(
        st.text(max_size=8).filter(lambda name: name not in ("k", "t")), st.text(max_size=20), max_size=6
    )
)
def test_every_parameter_arrives(parameters: dict[str, str]) -> None:
    """Whatever its name and value, every parameter becomes a column."""
    site = Site()
    query = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in parameters.items())

    answer = site.get("/pixel.gif", f"k={KEY}&t=pageviews&{query}")

    table = parameters.get("table")
    if answer.status == 200:
        kept = [value for name, value in parameters.items() if name not in ("table", "time")]
        assert [] == [value for value in kept if value not in site.row().values()]
    else:
        assert (400, "invalid_table") == (answer.status, answer.code)
        assert table is not None
