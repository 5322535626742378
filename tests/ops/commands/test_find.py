"""`sluice find` over the local stack."""

import json
import re

import pytest

from tests.support.delivery import envelope, row
from tests.support.faulty_stack import FaultyStack
from tests.support.sluice import Sluice, until

pytestmark = pytest.mark.xdist_group("ops")


def test_the_events_of_a_visitor_are_listed(sluice: Sluice) -> None:
    """They are in the order of arrival, and those after the first few take one line each."""
    table, visitors = "found_by_visitor", [*["v2"] * 7, "v3"]
    ids = sluice.post("shop", [{"table": table, "td_client_id": visitor} for visitor in visitors])
    until(lambda: sluice.rows("shop", "found_by_visitor") == sorted(ids))
    sluice.settled()
    *found, _ = map(json.loads, sluice.run("find --local visitor=v2 --json").stdout.splitlines())
    shown = sluice.run("find --local visitor=v2 --table found_by_visitor")

    assert ids[:7] == [one["event_id"] for one in found]
    assert {"v2"}.isdisjoint(one["row"]["td_client_id"] for one in found)
    assert 5 == shown.stdout.count("of shop.found_by_visitor\n")
    assert ids[5:7] == [line.split()[2] for line in shown.stdout.splitlines()[-2:]]
    assert "\x1b" not in shown.stdout


@pytest.mark.parametrize(
    ("asked", "column"),
    [("no-such-event", "event_id"), ("visitor=nobody page=/none", "page and td_client_id")],
)
def test_an_event_that_is_not_found_is_an_error(asked: str, column: str) -> None:
    """One line says what to do about what was asked, and the exit status is 1."""
    result = FaultyStack().run(f"find {asked}")

    assert 1 == result.exit_code
    (line,) = result.stderr.splitlines()
    assert re.match("Error: not found since .* Use an earlier --since.", line)
    assert line.endswith(f" If the rows are no longer kept in S3, query Treasure Data by {column}")


def test_a_database_that_the_key_may_not_import_into_is_named() -> None:
    """The key may be right for every other one."""
    stack = FaultyStack()
    stack.made.map(shop="shop_db")
    stack.made.fail(403)
    stack.made.put(envelope("shop", {"views": [row("a")]}))
    stack.made.deliver()
    said = stack.run("find a").stdout

    assert "the API key may not import into shop_db" in said
    assert "grant it, or correct the account's database in accounts.yaml" in said
