"""`sluice console` over a local stack that appears to be a deployed one."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from doubles.aws_errors import client_error
from ops import stack as stacks
from ops.console.actions import Actions
from ops.console.live_feed import LiveFeed, stack_tail
from ops.console.page_data import page_data
from ops.console.server import ConsolePage, RefusedError, Server
from ops.console.view import ConsoleView
from ops.stack import Stack
from shared.clock import SystemClock
from tests.support.console_pages import EVENTS, STATE
from tests.support.delivery import envelope, row
from tests.support.deployed import NAME, deployed
from tests.support.faulty_stack import FaultyStack
from tests.support.sluice import Sluice, until

pytestmark = pytest.mark.xdist_group("mcp")


class Console:
    """A running console, called as its page calls it."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url
        self.token = token

    def ask(self, path: str, document: dict[str, Any] | None = None) -> Any:
        """Send a GET, or a POST if there is a document."""
        body = None if document is None else json.dumps(document).encode()
        headers = {"authorization": f"Bearer {self.token}", "content-type": "application/json"}
        with urlopen(Request(f"{self.url}{path}", body, headers), timeout=60) as answer:
            return json.load(answer)

    def refused(self, path: str, document: dict[str, Any]) -> tuple[int, str]:
        """Send a POST that must be refused; return its status and error."""
        with pytest.raises(HTTPError) as error:
            self.ask(path, document)
        return error.value.code, json.load(error.value)["error"]

    def dead(self, account: str) -> dict[str, Any]:
        """Wait until the page shows the dead rows of an account, and return them as the page asks to send or drop them."""

        def rows() -> list[dict[str, Any]]:
            found = self.ask("/state.json")["look"].get("rows", ())
            return [one for one in found if one["account"] == account]

        until(lambda: bool(rows()))
        return {name: rows()[0][name] for name in ("kind", "account", "reason", "rows", "which")}


@contextmanager
def console(stack: Stack, *, allow_changes: bool) -> Iterator[Console]:
    """Run a console."""
    view = ConsoleView(stack, look_seconds=0.2, count_seconds=0.2)
    actions = Actions(stack, SystemClock(), view.expire)
    feed = LiveFeed(stack_tail(stack), SystemClock(), history_seconds=0, plan=view.plan)
    data = page_data(view, actions, feed, allow_changes=allow_changes)
    page = ConsolePage(data, actions.by_path() if allow_changes else {}, token="t")
    with Server(page) as server:
        yield Console(server.url, "t")
    feed._asked_at = 0.0  # nobody watches any more


@pytest.fixture
def stack(sluice: Sluice, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    """The local stack, found as a deployed one."""
    with deployed(sluice.stack) as shown:
        for name, value in shown.environment.items():
            monkeypatch.setenv(name, value)
        yield stacks.deployed(NAME, "us-east-1")


def test_the_command_prints_its_address_and_stops_on_time(sluice: Sluice) -> None:
    """The token is new each time. A port in use is named, with what to do."""
    with deployed(sluice.stack) as shown, Server(lambda *_: []) as taken:
        results = [shown.run(["console", "--for", "0s"]) for _ in range(2)]
        port = taken.url.rpartition(":")[2]
        refused = shown.run(["console", "--port", port])
    address = r"http://127\.0\.0\.1:\d+/#token=(\S{32})\n"
    printed = [re.fullmatch(address, result.stdout) for result in results]
    said = f"Error: port {port} is in use: choose another with --port, or leave out --port\n"

    assert [0, 0] == [result.exit_code for result in results]
    assert 2 == len({one[1] for one in printed if one})
    assert (1, said) == (refused.exit_code, refused.stderr)


def test_the_page_shows_the_stack_and_its_events(sluice: Sluice, stack: Stack) -> None:
    """Accounts have no secrets, and events no personal data, but the id of the write key that they came with."""
    state: dict[str, Any] = {}
    with console(stack, allow_changes=False) as page:
        after = page.ask("/events.json")["next"]
        sluice.send("shop", "shown", "a", "b")
        until(lambda: page.ask(f"/events.json?after={after}")["next"] > after + 1)
        events = page.ask(f"/events.json?after={after}")["events"]
        first, second = (one for one in events if one["table"] == "shown")
        until(lambda: sluice.rows("shop", "shown") == ["a", "b"])

        def is_known() -> bool:
            state.update(page.ask("/state.json"))
            tables = state["counts"].get("tables", ()) if state["counts"]["known"] else ()
            is_delivered = any((one["table"], one["delivered"]) == ("shown", 2) for one in tables)
            return is_delivered and all(state[part]["known"] for part in ("look", "accounts"))

        until(is_known)
    (table,) = (one for one in state["counts"]["tables"] if one["table"] == "shown")

    assert [("event", "shop", "demo", one) for one in "ab"] == [
        tuple(event[name] for name in ("kind", "account", "key_id", "event_id")) for event in (first, second)
    ]
    assert "127.0.0.1" not in first["row"]["td_ip"]
    assert [] == unlike({name: value for name, value in EVENTS["events"][0].items() if name != "row"}, first)
    option = f"--stack {NAME} --region us-east-1"
    assert {"name": NAME, "region": "us-east-1", "option": option} == state["stack"]
    assert state["look"]["lines"][0]["line"]
    assert 2 == table["received"]
    assert table["first"] <= table["last"]
    assert 2 == sum(table["hours"])
    shown = {"account": "shop", "database": "shop", "status": "active", "revoked_key_ids": [], "plan": None}
    assert shown in state["accounts"]["accounts"]
    assert (False, []) == (state["allows_changes"], state["actions"])
    assert [] == unlike(STATE, state)


def unlike(example: Any, found: Any, path: str = "") -> list[str]:
    """Return the paths of an example that were not found or have another type; a list's first item represents all of them."""
    if isinstance(example, dict) and isinstance(found, dict):
        members = [unlike(one, found.get(name, ...), f"{path}.{name}") for name, one in example.items()]
        return list(chain(*members))
    if isinstance(example, list) and isinstance(found, list) and example and found:
        return unlike(example[0], found[0], f"{path}[]")
    return [] if found is None or isinstance(found, (type(example), int | float)) else [path]


def test_dead_rows_are_dropped_only_as_confirmed() -> None:
    """If there are other rows by now than the operator saw, nothing is dropped."""
    stack = FaultyStack()
    stack.made.put(envelope("nobody_yet_again", {"dropped": [row("a"), row("b")]}))
    stack.made.put(envelope("somebody_else", {"dropped": [row("c")]}, request_id="c"))
    stack.made.deliver()
    with console(stack, allow_changes=True) as page:
        asked = page.dead("nobody_yet_again")
        stale = page.refused("/drop", asked | {"rows": 1})
        others = page.refused("/drop", asked | {"which": "0123456789"})
        wrong = [page.refused("/drop", asked | {"kind": kind}) for kind in ("again", "all")]
        wrong.append(page.refused("/drop", {}))
        redriven = page.ask("/redrive", asked)
        until(lambda: page.ask("/state.json")["actions"][0]["state"] != "running")
        kept = page.ask("/state.json")["actions"][0]
        page.ask("/drop", asked)
        until(lambda: page.ask("/state.json")["actions"][0]["state"] != "running")
        done = page.ask("/state.json")["actions"][0]

    assert (409, "there are now 2 rows, not 1: nothing was done") == stale
    assert (409, "there are now other rows: nothing was done") == others
    assert [400, 400, 400] == [status for status, _ in wrong]
    assert "redrive" == redriven["what"]
    result = kept["result"]
    assert ("done", 2, 0) == (kept["state"], result["kept"] + result["dead"], result["dropped"])
    assert ("done", "drop", 2) == (done["state"], done["what"], done["result"]["dropped"])


def test_only_one_action_runs_at_a_time() -> None:
    """A second one is refused, because what the operator sees may be out of date. A failed one says why, and can be repeated."""
    stack = FaultyStack()
    stack.made.put(envelope("nobody", {"views": [row("a")]}))
    stack.made.deliver()
    jobs: list[Callable[[], None]] = []
    expired: list[bool] = []
    errors: list[Exception] = []

    def invoke(output: str, event: Mapping[str, Any]) -> dict[str, Any]:
        if errors:
            raise errors.pop()
        return FaultyStack.invoke(stack, output, event)

    stack.break_(invoke=invoke)
    actions = Actions(stack, SystemClock(), lambda: expired.append(True), start=jobs.append)
    with console(stack, allow_changes=True) as page:
        asked = page.dead("nobody")
    errors.append(client_error("AccessDenied", "Invoke"))
    actions.begin("drop", asked)
    with pytest.raises(RefusedError, match="another action is running"):
        actions.begin("redrive", asked)
    jobs.pop()()
    failed = actions.shown()[0]
    actions.begin("drop", asked)
    jobs.pop()()

    assert ("failed", True) == (failed["state"], "do not allow Invoke" in failed["error"])
    assert {"dropped": 1}.items() <= actions.shown()[0]["result"].items()
    assert expired
