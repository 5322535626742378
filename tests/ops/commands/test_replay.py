"""`sluice replay --force`."""

from datetime import UTC, datetime, timedelta
from typing import Any

from tests.support.delivery import envelope, row
from tests.support.faulty_stack import FaultyStack


def test_each_row_is_sent_again_once_or_waits_or_is_dead() -> None:
    """Under each tag, and of the tables, accounts or databases asked for; `sluice status` counts them on lines of their own."""
    stack = FaultyStack()
    made = stack.made
    made.map(shop="shop", app="shop", news="media")
    made.put(envelope("shop", {"views": [row("a"), row("b")]}, request_id="r"))
    made.put(envelope("app", {"carts": [row("c")]}, request_id="s"))
    made.put(envelope("news", {"views": [row("d")], "visits": [row("e")]}, request_id="t"))
    made.deliver()
    now = datetime.fromtimestamp(made.clock.now(), UTC)
    begin, end = ((now + timedelta(minutes=one)).isoformat() for one in (-1, 1))

    def force(words: str) -> tuple[str, dict[str, Any]]:
        line = f"replay --force --yes --from {begin} --to {end} {words}"
        return stack.run(line).stdout.splitlines()[-1], stack.json(line)

    assert 1 == made.td.lose("media", "views", 0, 4e9)
    unforced = stack.json("replay")
    assert (True, 3, []) == (unforced["complete"], unforced["records"], made.ids("media", "views"))
    assert {"sent": 0, "passed_over": 5, "waiting": 0, "dead": 0} == unforced["rows"]
    for sent in ("1 row", "0 rows"):
        made.clock.sleep(1)
        said, lost = force("--tag lost --account news --table views")
        assert f"Done: {sent} sent again" in said
        assert (True, "lost", ["d"]) == (lost["complete"], lost["tag"], made.ids("media", "views"))
    counted = stack.json("status --all")["balance"]["forced"]
    made.fail(503)
    mistyped, _ = force("--account news --table veiws")
    waits, waiting = force("--database shop")
    made.td.faults.clear()
    made.fail(415, table="carts")
    made.clock.sleep(600)
    made.send()
    again, sent_again = force("--database shop")

    why = f"(`sluice status {stack.option}` shows why)."
    assert [1] == [one["delivered"] for one in counted]
    assert "No such rows arrived then: check --account, --table and --database." in mistyped
    assert f"Done: 0 rows sent again, 0 sent under this tag before, 3 waiting to be sent {why}" == waits
    assert {"sent": 0, "passed_over": 0, "waiting": 3, "dead": 0} == waiting["rows"]
    assert f"Done: 0 rows sent again, 2 sent under this tag before, 1 dead {why}" == again
    assert {"sent": 0, "passed_over": 2, "waiting": 0, "dead": 1} == sent_again["rows"]
    assert ["a", "a", "b", "b"] == sorted(made.ids("shop", "views"))
    assert ["c"] == made.ids("shop", "carts")
    assert ["e"] == made.ids("media", "visits")
