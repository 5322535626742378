"""`sluice dead` over the local stack."""

import json
from functools import partial

import pytest
from click.testing import CliRunner

from ops.commands import find
from ops.commands.dead import list as list_
from ops.commands.dead import show
from ops.events.seen_event import events_of
from shared import envelope
from tests.support.delivery import envelope as envelope_of
from tests.support.delivery import row
from tests.support.faulty_stack import FaultyStack
from tests.support.sluice import Sluice
from worker.record import from_stream

pytestmark = pytest.mark.xdist_group("ops")

SAID, EVENT = "a column is invalid", "taro@example.com"


def test_treasure_data_s_own_words_are_shown_wherever_the_rows_are(sluice: Sluice) -> None:
    """Without the values of rows, in `dead list`, `dead show`, `status` and `find`."""
    selected = "--account news --table refused"
    mine = f"--local {selected}"
    document = {
        "error": "x",
        "message": f"{SAID}: {EVENT}",
        "text": "x",
        "severity": "error",
        "status_code": 415,
    }
    fault = {"kind": "status", "status": 415, "action": "import", "database": "media"}
    sluice.td("faults", fault | {"body": json.dumps(document)})
    sluice.send("news", "refused", EVENT)
    sluice.wait_for_dead(selected)
    sluice.heal()
    [listed] = sluice.json(f"dead list {mine}")
    shown = sluice.run(f"dead show --local {listed['id']}")
    found, _ = sluice.json_lines(f"find {EVENT} {mine}")

    kept = f"{SAID}: \u2026"
    assert [kept, kept] == [listed["words"], found["words"]]
    said = f'1 row of news.refused: http_415, since {listed["since"]}. Treasure Data says: "{kept}"'
    assert said in shown.stderr
    assert EVENT == json.loads(shown.stdout)["event_id"]
    assert kept in sluice.run("status --local").stdout
    assert kept in sluice.run(f"dead list {mine}").stdout
    assert f'said       "{kept}" (Treasure Data)' in sluice.run(f"find {EVENT} {mine}").stdout
    assert [kept] == [
        one["words"] for one in sluice.json("status --local")["rows"] if one["account"] == "news"
    ]
    assert 1 == sluice.json(f"dead drop {mine} --yes")["dropped"]


@pytest.mark.parametrize("damage", [b"\xc1", b"\x81\xa1b"], ids=["invalid", "cut off"])
def test_damaged_rows_are_told_of_wherever_they_are_shown(damage: bytes) -> None:
    """What can be read is shown: by `dead show`, by `find`, and by `tail`, which calls the rest an undecodable event."""
    stack = FaultyStack()
    sound = envelope.decode(envelope_of("nobody", {"views": [row("a")], "visits": [row("b")]}))
    views, visits = sound.tables
    stack.made.put(sound._replace(tables=(views._replace(rows=views.rows + damage), visits)).encode())
    [record] = from_stream(stack.made.records(), "shardId-0")
    stack.made.deliver()
    run = partial(CliRunner(mix_stderr=False).invoke, obj=stack)
    [dead] = [one for one in json.loads(run(list_.command, ["--json"]).stdout) if one["table"] == "views"]
    shown = run(show.command, [dead["id"]])
    found = run(find.command, ["a", "b"])

    assert ["a", "", "b"] == [one.event_id for one in events_of(record, "shardId-0")]
    assert (1, "a") == (shown.exit_code, json.loads(shown.stdout)["event_id"])
    assert "its rows cannot be read: what follows value 1 is not MessagePack" in shown.stderr
    assert {"DEAD  a of nobody.views", "DEAD  b of nobody.visits"} <= set(found.stdout.splitlines())
    assert "Note: 1 object or chunk could not be read to its end." in found.stderr
