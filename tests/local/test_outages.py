"""Outages on demand, by `sluice local break` and by the page's buttons."""

import json
import threading
from collections.abc import Iterator
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from local.accounts import ACCOUNTS, KEYS
from local.local_state import local_state
from local.outages import Outages, UnknownTargetError
from local.page_server import Beside, local_page
from local.stack import LocalStack
from local.website import Website
from ops.console.server import Server
from tests.support.sluice import Sluice, until

pytestmark = pytest.mark.xdist_group("stack")


@pytest.fixture(scope="module")
def sluice(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sluice]:
    """A stack with a thread that restarts its parts, as `sluice local` does."""
    home, done = tmp_path_factory.mktemp("outages"), threading.Event()
    with LocalStack(home / "stack", sender_seconds=2) as stack:

        def tend() -> None:
            while not done.wait(0.1):
                stack.revive()

        thread = threading.Thread(target=tend)
        thread.start()
        yield Sluice(stack, home)
        done.set()
        thread.join()


@pytest.fixture
def outages(sluice: Sluice) -> Outages:
    """The stack's outages."""
    return Outages(sluice.stack)


@pytest.mark.parametrize(
    ("target", "account", "said"),
    [
        ("td", "outlet", ("Treasure Data answers 503",)),
        ("answers", "app", ("closes connections early", "in doubt")),
        ("redis", "news", ("Redis does not answer",)),  # the worker does not know this account's database yet
        ("worker", "outlet", ("",)),
    ],
)
def test_events_are_accepted_in_an_outage_and_delivered_after_it(
    sluice: Sluice, outages: Outages, target: str, account: str, said: tuple[str, ...]
) -> None:
    """During the outage the first line of the status says why they wait."""
    assert target in outages.order(target, 600)
    sluice.send(account, f"broken_{target}", "a", "b")
    until(lambda: any(one in sluice.json("status --local")["verdict"] for one in said))
    assert {} == outages.order(target, 0)

    until(lambda: sluice.rows(ACCOUNTS[account].database, f"broken_{target}") == ["a", "b"])


def test_an_outage_ends_by_itself(sluice: Sluice, outages: Outages) -> None:
    """An outage of one database does not affect the others."""
    outages.order("td:field_app", 3)
    sluice.send("app", "short", "a")
    sluice.send("shop", "unconcerned", "b")

    until(lambda: sluice.rows("shop", "unconcerned") == ["b"])
    until(lambda: outages.under_way() == {})
    until(lambda: sluice.rows("field_app", "short") == ["a"])


def test_a_table_can_be_refused_with_a_status(sluice: Sluice, outages: Outages) -> None:
    """Treasure Data refuses the rows of one table, which are dead then, and takes those of others; later it takes all."""
    outages.order("td:shop.refused=422", 600)
    sluice.send("shop", "refused", "a")
    sluice.send("shop", "taken", "b")

    until(lambda: sluice.rows("shop", "taken") == ["b"])
    until(lambda: "1 row is dead (http_422)" in sluice.json("status --local")["verdict"])
    outages.order("td:shop.refused=422", 0)
    sluice.run("redrive --local --kind dead --yes")

    assert ["a"] == sluice.rows("shop", "refused")


def test_events_go_to_the_queue_while_the_stream_is_down(sluice: Sluice, outages: Outages) -> None:
    """The ingest still accepts them."""
    outages.order("kinesis", 600)
    sluice.send("app", "queued", "a")
    outages.order("kinesis", 0)

    assert 1 == sluice.json("status --local")["in_queue"]


@pytest.mark.parametrize(
    ("target", "why"),
    [
        *(
            (one, f"'{one}' is not a target.* td:DATABASE=STATUS,")
            for one in ("dynamodb", "td:", "td:shop=200", "td:DB.T=STATUS")
        ),
        ("td:meida=403", r"e meida\. The databases are closed_shop, field_app, "),
    ],
)
def test_an_unknown_target_is_rejected(outages: Outages, target: str, why: str) -> None:
    """Nothing would break. The error names it, or the databases of the accounts."""
    with pytest.raises(UnknownTargetError, match=why):
        outages.order(target, 1)


def test_the_page_shows_outages_and_refused_requests(sluice: Sluice, outages: Outages) -> None:
    """It starts and ends outages only for requests with a JSON content type, which other sites' pages cannot send."""
    data = {"/state.json": lambda _: local_state(sluice.stack, outages.under_way())}
    page = local_page(Beside(Website("", {})), data, {}, outages.order)
    with Server(page) as server:
        with pytest.raises(HTTPError, match="415"):
            urlopen(Request(f"{server.url}/break", b'{"target": "td", "seconds": 9}'), timeout=60)
        with pytest.raises(HTTPError, match="400"):
            _post(server, {"target": "nothing", "seconds": 9})
        assert "worker" in _post(server, {"target": "worker", "seconds": 600})
        with pytest.raises(HTTPError, match="401"):
            urlopen(f"{sluice.stack.addresses.gateway}/pixel.gif?k={KEYS['shop']}x&t=views", timeout=60)
        state = _state(server)
        (worker,) = (part for part in state["parts"] if part["name"] == "worker")
        assert (False, True) == (worker["running"], worker["paused"])
        assert {"worker"} == state["outages"].keys()
        assert 1 <= state["refused"]["invalid_key"]
        assert {} == _post(server, {"target": "worker", "seconds": 0})
        until(lambda: _state(server)["parts"][4]["running"])
        assert 1 <= _state(server)["parts"][4]["restarts"]


def _post(server: Server, document: dict[str, Any]) -> Any:
    body = json.dumps(document).encode()
    request = Request(f"{server.url}/break", body, {"content-type": "application/json"})
    with urlopen(request, timeout=60) as answer:
        return json.load(answer)


def _state(server: Server) -> Any:
    with urlopen(f"{server.url}/state.json", timeout=60) as answer:
        return json.load(answer)
