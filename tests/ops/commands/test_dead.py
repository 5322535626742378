"""`sluice dead`, and where else dead rows are shown."""

import json
import re
from functools import partial

import pytest
from click.testing import CliRunner

from doubles.treasure_data import Action, Fault, Kind
from ops.commands import dead, find, status
from ops.events.seen_event import events_of
from ops.stream.readable_shards import from_stream
from shared import envelope
from tests.support.delivery import envelope as envelope_of
from tests.support.delivery import row
from tests.support.faulty_stack import FaultyStack

SAID, EVENT = "a column is invalid", "taro@example.com"


def test_treasure_data_s_own_words_are_shown_wherever_the_rows_are() -> None:
    """Without the values of rows, in `dead list`, `dead show`, `status` and `find`."""
    stack = FaultyStack()
    made, run = stack.made, partial(CliRunner(mix_stderr=False).invoke, obj=stack)
    made.map(news="media")
    texts = {"error": "x", "message": f"{SAID}: {EVENT}", "text": "x", "severity": "error"}
    body = json.dumps(texts | {"status_code": 415})
    made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.IMPORT, status=415, body=body))
    made.put(envelope_of("news", {"refused": [row(EVENT)]}))
    made.deliver()
    [listed] = json.loads(run(dead.list_, ["--json"]).stdout)
    shown = run(dead.show, [listed["id"]])
    found, *_ = run(find.command, [EVENT, "--json"]).stdout.splitlines()
    [waits] = json.loads(run(status.command, ["--json"]).stdout)["rows"]

    kept = f"{SAID}: \u2026"
    assert [kept] * 3 == [listed["words"], json.loads(found)["words"], waits["words"]]
    said = f'1 row of news.refused: http_415, since {listed["since"]}. Treasure Data says: "{kept}"'
    assert said in shown.stderr
    assert EVENT == json.loads(shown.stdout)["event_id"]
    assert kept in run(status.command).stdout
    assert kept in run(dead.list_).stdout
    assert f'said       "{kept}" (Treasure Data)' in run(find.command, [EVENT]).stdout


def test_rejected_events_are_listed_in_80_columns() -> None:
    """Ids and times stay in one piece, no column is empty, and none repeats the code."""
    stack = FaultyStack()
    rejected = (envelope.RejectedEvent(0, "unplanned_column", "pageviews", b"{}", ""),)
    sent = envelope.decode(envelope_of("outlet_in_the_north", {"views": [row("a")]}))
    stack.made.put(sent._replace(tables=(), rejected=rejected).encode())
    stack.made.deliver()
    run = partial(CliRunner().invoke, dead.list_, obj=stack)
    shown = run(["--rejected"], env={"FORCE_COLOR": "1", "TERM": "xterm", "COLUMNS": "80"}).stdout
    [listed] = json.loads(run(["--rejected", "--json"]).stdout)
    titles, first, *_ = re.sub(r"\x1b\[[0-9;]*m", "", shown).splitlines()

    assert ["id", "account", "table", "reason", "rows", "since"] == titles.split()
    assert (listed["id"], "pageviews", "1", listed["since"]) == tuple(first.split()[i] for i in (0, 2, 4, 5))


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
    [views] = [one for one in json.loads(run(dead.list_, ["--json"]).stdout) if one["table"] == "views"]
    shown = run(dead.show, [views["id"]])
    found = run(find.command, ["a", "b"])

    assert ["a", "", "b"] == [one.event_id for one in events_of(record, "shardId-0")]
    assert (1, "a") == (shown.exit_code, json.loads(shown.stdout)["event_id"])
    assert "its rows cannot be read: what follows value 1 is not MessagePack" in shown.stderr
    assert {"DEAD  a of nobody.views", "DEAD  b of nobody.visits"} <= set(found.stdout.splitlines())
    assert "Note: 1 object or chunk could not be read to its end." in found.stderr
