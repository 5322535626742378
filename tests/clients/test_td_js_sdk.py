"""Treasure Data's browser SDKs from npm, in a real browser: what a public method sends is on the stream, in its table, with the same columns alone."""

from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Error

from tests.support import tools
from tests.support.td_page import COLLECTOR, Street, Visit, columns_of, street

pytestmark = pytest.mark.xdist_group("browser")

EVENT = "{time: 1763990000, a: 1, f: 0.5, t: 'x', b: true, none: null, n: {x: [1, null, 'é']}, u: undefined}"
SETTINGS = {
    "td-js-sdk-2": f"{{host: '{COLLECTOR}'}}",
    "td-js-sdk-3": f"{{host: '{COLLECTOR}'}}",
    "td-js-sdk-4": f"{{host: '{COLLECTOR}'}}",
    "td-js-sdk-4 by endpoint": f"{{endpoint: 'https://{COLLECTOR}/', host: '{COLLECTOR}'}}",
    "td-js-sdk-3 as 4": f"{{host: '{COLLECTOR}', pathname: '/', useNewJavaScriptEndpoint: true}}",
}
"""Each client's options that point it to this collector."""
Begin = Callable[..., Visit]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Street]:
    """Yield the servers and the browser of this module's tests."""
    tools.package("td-js-sdk-4")
    with street(tmp_path_factory.mktemp("tls")) as made:
        yield made


@pytest.fixture(params=SETTINGS)
def begin(house: Street, request: pytest.FixtureRequest) -> Iterator[Begin]:
    """Return a function that begins a visit, in signed mode by default."""
    begun: list[Visit] = []

    def begin(*, signed: bool = True) -> Visit:
        begun.append(house(request.param.partition(" ")[0]))
        begun[-1].open(f"{{startInSignedMode: {str(signed).lower()}, ...{SETTINGS[request.param]}}}")
        return begun[-1]

    yield begin
    begun[-1].page.context.close()


def check(visit: Visit, *tables: str) -> None:
    """Check that exactly what the SDK sent has arrived, in these tables."""
    found = visit.arrived(len(tables))
    assert Counter(tables) == Counter(table for table, _ in found)
    assert visit.expected() == columns_of(found)
    stamps = sorted(record["time"] for _, record in visit.sent() if "time" in record)
    assert stamps == sorted(row["time"] for _, row in found if row["time"] in stamps)
    assert [] == visit.errors


def test_every_tracking_method_arrives(begin: Begin) -> None:
    """Page views, events, records, consents and contexts arrive in signed mode."""
    visit = begin()
    visit.run("td.set('$global', 'td_ip', 'td_ip'); td.set('$global', 'site', 'shop')")

    visit.call("trackPageview", "'pageviews'")
    visit.call("trackEvent", "'events'", EVENT)
    visit.call("addRecord", "'records'", EVENT)
    visit.call("addConsentRecord", "'consents'", "{purpose: 'x', status: 'given'}")
    visit.run(
        "td.addContext({context_id: 'c1', brand: 'b', domain_name: 'd', collection_type: 't', collection_point_id: 'p'});"
        "td.addConsents({mailing: {status: 'given', datatype: 'Attibutes', context_id: 'c1', expiry_date: '2099-01-01'}});"
    )
    visit.call("saveContexts")
    visit.call("saveConsents")

    check(visit, "pageviews", "events", "records", "consents", "td_cm_consent", "td_cm_context")
    [row] = [row for table, row in visit.site.rows() if table == "events"]
    assert (1763990000, '{"x":[1,null,"é"]}', "127.0.0.1") == (row["time"], row["n"], row["td_ip"])
    assert 36 == len(row["td_client_id"])


def test_clicks_arrive(begin: Begin) -> None:
    """Clicks on a button and on a link arrive; for the link, version 2 posts without a body."""
    visit = begin()
    visit.run("td.trackClicks({tableName: 'clicks'})")

    visit.page.click("#btn")
    visit.page.click("#lnk")

    check(visit, "clicks", "clicks")
    assert {"btn", "lnk"} == {row["id"] for _, row in visit.site.rows()}


@pytest.mark.parametrize("begin", ["td-js-sdk-2"], indirect=True)
def test_an_event_of_a_page_that_is_left_arrives(begin: Begin) -> None:
    """Version 2 sends it while the next page loads. Later versions need a preflight, which no browser then makes."""
    visit = begin()
    visit.run("addEventListener('pagehide', () => td.trackEvent('leaving', {a: 1}))")

    visit.page.goto("about:blank")

    check(visit, "leaving")


def test_anonymous_mode_stores_nothing_about_the_visitor(begin: Begin) -> None:
    """The SDK sends none of these columns, and the ingest adds none."""
    visit = begin(signed=False)
    visit.run("td.set('$global', 'td_ip', 'td_ip'); td.set('$global', 'td_global_id', 'td_global_id')")

    visit.call("trackPageview", "'pageviews'")

    check(visit, "pageviews")
    assert {"td_ip", "td_client_id", "td_global_id"}.isdisjoint(visit.site.row())


def test_a_global_id_is_fetched_and_filled_in(begin: Begin) -> None:
    """The page keeps the id, and so does the collector's cookie if the browser allows it."""
    visit = begin()
    visit.run("td.set('$global', 'td_global_id', 'td_global_id')")

    fetched = visit.call("fetchGlobalID")
    visit.call("trackPageview", "'pageviews'")

    assert 36 == len(fetched)
    assert fetched == visit.cookies()["_td_global"]
    assert fetched == visit.site.row()["td_global_id"]
    check(visit, "pageviews")


def test_a_server_side_cookie_is_fetched(begin: Begin) -> None:
    """It comes from a subdomain of the shop, and the page reads the shop's cookie from then on."""
    visit = begin()

    fetched = visit.call("fetchServerCookie")

    assert 36 == len(fetched)
    assert fetched == visit.cookies()["_td_ssc_id"]
    assert fetched == visit.call("fetchServerCookie")
    assert 1 == sum("/get_cookie_id" in target for _, target, *_ in visit.requests)
    assert [] == visit.errors


def test_a_wrong_key_calls_the_error_callback(begin: Begin) -> None:
    """CORS headers let the page read the response of a rejection, too."""
    visit = begin()
    visit.run("td.client.writeKey = '1/abcdef'; td.client.jsonpTimeout = 300")

    with pytest.raises(Error, match="trackEvent"):
        visit.call("trackEvent", "'events'", "{a: 1}")

    assert [] == visit.site.rows()
    assert [] == [error for error in visit.errors if "CORS" in error]
