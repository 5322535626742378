"""`sluice replay --force`."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from doubles.treasure_data import Action, Fault, Kind
from ops.commands import replay
from tests.support.delivery import envelope, row
from tests.support.faulty_stack import FaultyStack
from tests.support.sluice import Sluice, until

pytestmark = pytest.mark.xdist_group("ops")


def test_rows_of_a_mistyped_database_are_put_right(lone: Sluice, tmp_path: Path) -> None:
    """A forced replay by database takes all of them, of every account that shared it, and no others."""
    file = tmp_path / "accounts.yaml"
    file.write_text("shop: {database: shpo}\noutlet: {database: shpo}\napp: {database: shop}")
    applied = lone.run(f"accounts apply --local --yes {file}")
    lone.send("app", "mistyped", "right")
    for account in ("shop", "outlet"):
        lone.send(account, "mistyped", account)
    until(lambda: len(lone.rows("shpo", "mistyped")) == 2 and len(lone.rows("shop", "mistyped")) == 1)
    lone.settled()
    file.write_text(file.read_text().replace("shpo", "shop"))
    lone.run(f"accounts apply --local --yes {file}")
    sent = lone.force("--database shpo")

    assert "there is no database shpo" in applied.stdout
    assert 2 == sent["rows"]["sent"]
    assert ["outlet", "right", "shop"] == sorted(lone.rows("shop", "mistyped"))


def test_rows_that_are_not_sent_at_once_wait_or_are_dead() -> None:
    """The sender delivers those that wait, and then they count as sent under the tag. In JSON, too, each row counts once."""
    stack = FaultyStack()
    made = stack.made
    made.map(shop="shop", app="app")
    made.put(envelope("shop", {"views": [row("a"), row("b")]}, request_id="r"))
    made.put(envelope("app", {"carts": [row("c")]}, request_id="s"))
    made.deliver()
    begin, end = (
        datetime.fromtimestamp(made.clock.now() + seconds, UTC).isoformat() for seconds in (-60, 60)
    )

    def force() -> tuple[str, dict[str, Any]]:
        words = ["--force", "--yes", "--from", begin, "--to", end]
        said, document = (
            CliRunner(mix_stderr=False)
            .invoke(replay.command, [*words, *more], obj=stack, catch_exceptions=False)
            .stdout
            for more in ([], ["--json"])
        )
        return said.splitlines()[-1], json.loads(document)["rows"]

    made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.IMPORT, table="views", status=503))
    made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.IMPORT, table="carts", status=415))
    waits, waiting = force()
    made.td.faults.clear()
    made.clock.sleep(120)
    made.send()
    again, sent = force()

    left = f"1 dead (`sluice status {stack.option}` shows why)."
    assert f"Done: 0 rows sent again, 0 sent under this tag before, 2 waiting to be sent, {left}" == waits
    assert {"sent": 0, "passed_over": 0, "waiting": 2, "dead": 1} == waiting
    assert f"Done: 0 rows sent again, 2 sent under this tag before, {left}" == again
    assert {"sent": 0, "passed_over": 2, "waiting": 0, "dead": 1} == sent
    assert ["a", "a", "b", "b"] == sorted(made.ids("shop", "views"))
