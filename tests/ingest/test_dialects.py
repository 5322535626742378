"""Rules for every dialect: each route in `ROUTES` has a request in `certify_requests.dialects`, and is tested here."""

import pytest

from ingest.app import ROUTES, Paths
from local.result import NO_EVENTS
from ops.deploy.certify.request_steps import Dialect
from tests.support.dialects import DIALECTS, EVENT_ROUTES, accepted, event_of
from tests.support.ingest import KEY, Site, http_event


def test_each_route_is_certified() -> None:
    """A certification sends an event to each route that records events."""
    paths = Paths(ROUTES)

    def routes(pairs: list[tuple[str, str]]) -> set[tuple[str, str]]:
        return {(method, paths.find(path)[0][method].path) for method, path in pairs}

    certified = [(one.method, one.target.partition("?")[0]) for one in DIALECTS]

    assert routes(list(EVENT_ROUTES)) == routes(certified)


@pytest.mark.parametrize("path", sorted(NO_EVENTS))
def test_paths_that_record_no_events_need_no_key(path: str) -> None:
    """They answer without a key, so a path that requires one must be listed as recording events."""
    site = Site()

    assert (None, []) == (site.get(path).code, site.rows())


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
def test_an_event_becomes_a_row(dialect: Dialect) -> None:
    """The event is stored with its dialect's name, and the response alone shows that it was accepted: nothing is logged."""
    site, event = Site(), event_of(dialect)

    answer = site.send(event)

    assert (200, 1, dialect.name) == (answer.status, accepted(event, answer), site.row()["dialect"])
    assert ([], {}) == (site.telemetry.lines, site.telemetry.counts)


@pytest.mark.parametrize(("method", "path"), EVENT_ROUTES)
def test_nothing_is_recorded_without_a_key(method: str, path: str) -> None:
    """A request without a key gets 401, `missing_key`, on every route, and nothing is put."""
    site = Site()

    answer = site.send(http_event(method, path, "t=pageviews", {}, b'{"shop.pageviews": [{}]}'))

    assert (401, "missing_key", []) == (answer.status, answer.code, site.kinesis.calls)


@pytest.mark.parametrize("path", sorted({one.path for one in ROUTES if one.method == "HEAD"} - NO_EVENTS))
def test_head_requests_record_no_event(path: str) -> None:
    """Link checkers and mail proxies send them; the pixel has the headers of a GET."""
    site, query = Site(), f"k={KEY}&td_write_key={KEY}&t=pageviews&data=e30="

    answer = site.send(http_event("HEAD", path.format(database="shop", table="pageviews"), query))

    assert (200, b"", []) == (answer.status, answer.body, site.envelopes())
    assert ("/pixel.gif" == path) == ("image/gif" == answer.headers.get("content-type"))
