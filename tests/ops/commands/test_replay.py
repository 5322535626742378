"""`sluice replay --force`."""

import json
from datetime import UTC, datetime
from typing import Any

from click.testing import CliRunner

from doubles.treasure_data import Action, Fault, Kind
from ops.commands import replay
from tests.support.delivery import envelope, row
from tests.support.faulty_stack import FaultyStack


def test_rows_that_are_not_sent_at_once_wait_or_are_dead() -> None:
    """The sender delivers those that wait, and then they count as sent under the tag. In JSON, too, each row counts once."""
    stack = FaultyStack()
    made = stack.made
    made.map(shop="shop", app="shop", news="media")
    made.put(envelope("shop", {"views": [row("a"), row("b")]}, request_id="r"))
    made.put(envelope("app", {"carts": [row("c")]}, request_id="s"))
    made.put(envelope("news", {"views": [row("d")]}, request_id="t"))  # of a database that is not asked for
    made.deliver()
    begin, end = (
        datetime.fromtimestamp(made.clock.now() + seconds, UTC).isoformat() for seconds in (-60, 60)
    )

    def force() -> tuple[str, dict[str, Any]]:
        words = ["--force", "--yes", "--database", "shop", "--from", begin, "--to", end]
        said, document = (
            CliRunner(mix_stderr=False)
            .invoke(replay.command, [*words, *more], obj=stack, catch_exceptions=False)
            .stdout
            for more in ([], ["--json"])
        )
        return said.splitlines()[-1], json.loads(document)["rows"]

    made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.IMPORT, status=503))
    waits, waiting = force()
    mistyped = ["--force", "--yes", "--account", "shpo", "--from", begin, "--to", end]
    said = CliRunner().invoke(replay.command, mistyped, obj=stack).stdout
    assert "No such rows arrived then: check --account, --table and --database." in said
    made.td.faults.clear()
    made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.IMPORT, table="carts", status=415))
    made.clock.sleep(120)
    made.send()
    again, sent = force()

    why = f"(`sluice status {stack.option}` shows why)."
    assert f"Done: 0 rows sent again, 0 sent under this tag before, 3 waiting to be sent {why}" == waits
    assert {"sent": 0, "passed_over": 0, "waiting": 3, "dead": 0} == waiting
    assert f"Done: 0 rows sent again, 2 sent under this tag before, 1 dead {why}" == again
    assert {"sent": 0, "passed_over": 2, "waiting": 0, "dead": 1} == sent
    assert ["a", "a", "b", "b"] == sorted(made.ids("shop", "views"))
