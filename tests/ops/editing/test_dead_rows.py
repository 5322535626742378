"""`sluice redrive --edit`: editing dead rows."""

import shlex
import sys
from base64 import b64decode
from collections.abc import Callable
from functools import partial
from gzip import decompress
from pathlib import Path
from unittest.mock import ANY, Mock
from urllib.error import HTTPError

import click
import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.books.chunks import ListedChunk, chunks
from ops.commands import redrive
from ops.editing.dead_rows import EditableChunk, editable_of, read, text_of
from ops.editing.edited_text import MOST_TEXT, Editor
from ops.failure import Failure
from shared.errors import EditRefusedError
from tests.support.delivery import Delivery, envelope, row
from tests.support.faulty_stack import FaultyStack
from tests.support.sluice import Sluice, until
from worker.selection import Selection
from worker.span_object import SpanObjects
from worker.states import State

pytestmark = pytest.mark.xdist_group("ops")

DEAD = Selection((State.DEAD,))


def dead(*tables: str, **columns: object) -> tuple[list[ListedChunk], SpanObjects]:
    """Return a dead chunk of two rows for each table, and the objects that have their rows."""
    made = Delivery()
    rows = [row("a", **columns), row("b")]
    made.put(*(envelope("nobody", {table: rows}, request_id=table) for table in tables))
    made.deliver()
    return list(chunks(made.ledger, DEAD)), made.objects


def shown() -> list[EditableChunk]:
    """Return two dead chunks as the editor shows them."""
    return editable_of(*dead("carts", "views"))


def test_each_row_is_one_line_below_its_chunks_title() -> None:
    """Lines that start with a number sign are comments. A dead chunk with a changed row is sent whole, an unchanged one is not."""
    editable = shown()
    lines = [line for line in text_of(editable).splitlines() if line][3:]
    before, second, after = text_of(editable).partition("# 2 of 2")
    changed = after.replace('"event_id": "b"', '"event_id": "b", "page": "/x"')
    (one,) = read(editable, before + second + changed)
    sent = msgpack.Unpacker()
    sent.feed(decompress(b64decode(one.event["edit"]["rows"])))
    place = {"chain": editable[1].chunk.span.chain.name, "after": "000", "chunk": "nobody/views/0"}

    assert "# 1 of 2: nobody/carts, unknown_account, dead since 2023-11-14T22:13:20Z" == lines[0]
    assert '{"time": 1700000000, "event_id": "a", "received_at": 1700000000000}' == lines[1]
    assert 6 == len(lines)
    assert (editable[1].title, 2) == (one.title, one.count)
    assert place | {"rows": ANY} == one.event["edit"]
    assert [None, "/x"] == [found.get("page") for found in sent]
    assert [] == read(editable, text_of(editable))


@given(st.text())
def test_any_row_is_read_back_as_it_was_shown(text: str) -> None:
    """Line breaks of any script, quotes and number signs inside a value belong to the value."""
    editable = editable_of(*dead("views", text=text.encode(errors="replace").decode()))

    assert [] == read(editable, text_of(editable))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('{"time"', '{"time', "line 6 is not JSON"),
        ('{"time": 1700000000', '{"time": NaN', "line 6 is not JSON: NaN is not valid JSON"),
        ('{"time": 1700000000', '{"time": "x"', "line 6: time must be UNIX seconds, a whole number"),
        ('{"time"', '[1]\n{"time"', "the text has 5 instead of 4 rows"),
        ('{"time": 1700000000, "event_id": "a", "received_at": 1700000000000}', "7", "6 is not a JSON obj"),
    ],
)
def test_a_mistake_is_named_with_its_line(old: str, new: str, said: str) -> None:
    """A wrong number of rows has no line, so the message says both numbers."""
    editable = shown()

    with pytest.raises(EditRefusedError, match=said):
        read(editable, text_of(editable).replace(old, new, 1))


def test_a_mistake_can_be_corrected(monkeypatch: pytest.MonkeyPatch) -> None:
    """The editor opens again with the text as it was saved; giving up changes nothing."""
    editable = shown()
    good = text_of(editable).replace('"b"', '"b", "n": 1', 1)
    edit = Mock(side_effect=["nonsense", good, "nonsense", None])
    monkeypatch.setattr(click, "edit", edit)
    monkeypatch.setattr(click, "confirm", Mock(side_effect=[True, False]))
    ask = partial(Editor().ask, text_of(editable), partial(read, editable))

    assert [editable[0].title] == [one.title for one in ask()]
    assert [text_of(editable), "nonsense"] == [opened.args[0] for opened in edit.mock_calls]
    with pytest.raises(Failure, match=r"the text has 1 instead of 4 rows: .*; nothing was changed"):
        ask()
    assert [] == ask()


def test_the_rows_that_died_first_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `dead list` has them, whatever the order in which the ledger yields them."""
    stack, edit = FaultyStack(), Mock(return_value=None)
    for name in ("first", "last"):
        stack.made.deliver_each(envelope("nobody", {"views": [row(name)]}, request_id=name))
        stack.made.clock.sleep(60)
    monkeypatch.setattr(redrive, "chunks", lambda *selected: reversed(list(chunks(*selected))))
    monkeypatch.setattr(click, "edit", edit)
    stack.run("redrive --edit")
    (text,) = edit.call_args.args

    assert 0 < text.index('"first"') < text.index('"last"')


def test_too_much_text_for_an_edit_is_refused() -> None:
    """An editor and an invocation can handle only so much, so the operator has to narrow the selection."""
    found, objects = dead("views", text="x" * 200_000)

    with pytest.raises(Failure, match=f"more than {MOST_TEXT:,} characters"):
        editable_of(found * 30, objects)


@pytest.fixture
def edits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return what chooses the operator's editor: it changes the text by a Python expression."""
    monkeypatch.setenv("VISUAL", "")

    def choose(program: str) -> None:
        script = tmp_path / "editor.py"
        script.write_text(
            "import sys, pathlib, os\n"
            "path = pathlib.Path(sys.argv[1])\n"
            "text = path.read_text()\n"
            f"path.write_text({program})\n"
            "os.utime(path, (2e9, 2e9))\n"  # saved, however fast
        )
        monkeypatch.setenv("EDITOR", shlex.join([sys.executable, str(script)]))

    return choose


def test_edited_rows_are_delivered(sluice: Sluice, edits: Callable[[str], None]) -> None:
    """Treasure Data has the edited row once, beside the unchanged one, and nothing stays dead."""
    selected = "--account app --table edited_rows"
    sluice.td("faults", {"kind": "status", "status": 415, "action": "import", "table": "edited_rows"})
    sluice.send("app", "edited_rows", "a", "b")
    sluice.wait_for_dead(selected)
    line = f"redrive --local --edit {selected}"
    edits("""text.replace('"a",', '"a", "mended": true,')""")
    still = sluice.run(f"{line} --yes")
    sluice.heal()
    dry = sluice.run(f"{line} --dry-run")
    edits("text")
    left = sluice.run(line)
    edits("1 / 0")
    broken = sluice.run(line)
    edits("text[:-20]")
    mistaken = sluice.run(line, answer="n\n")
    edits("""text.replace('"mended": true', '"mended": "yes"')""")
    declined = sluice.run(line, answer="n\n")
    done = sluice.run(line, answer="y\n")

    assert [
        (3, "0 rows delivered, 0 kept, 2 newly dead."),
        (0, "Nothing was changed, so nothing is sent."),
        (0, "2 rows delivered, 0 kept, 0 newly dead."),
    ] == [(one.exit_code, one.stdout.splitlines()[-1]) for one in (still, left, done)]
    assert (0, "2 rows.") == (dry.exit_code, dry.stdout.splitlines()[0])
    assert (1, True) == (broken.exit_code, "name an editor that works here in the variable" in broken.stderr)
    assert (1, True) == (mistaken.exit_code, "nothing was changed" in mistaken.stderr)
    for one, said in ((mistaken, '"received_'), (declined, '"mended": "yes"')):
        kept = Path(one.stderr.partition("Your edits are in ")[2].partition(".jsonl")[0] + ".jsonl")
        assert (1, True, 0o600) == (one.exit_code, said in kept.read_text(), kept.stat().st_mode & 0o777)
        kept.unlink()
    rows = [one["row"] for one in sluice.td("rows?limit=1000")["rows"] if one["table"] == "edited_rows"]
    assert [("a", "yes"), ("b", None)] == sorted((one["event_id"], one.get("mended")) for one in rows)
    assert [] == sluice.json(f"dead list --local {selected}")
    assert sluice.json("status --local --all")["balance"]["adds_up"]


def test_a_rejected_event_can_be_edited(sluice: Sluice, tmp_path: Path, edits: Callable[[str], None]) -> None:
    """Its message says what was wrong. An edit that the plan would still reject is not sent; one that fits is delivered."""
    accounts = tmp_path / "accounts.yaml"
    accounts.write_text(
        "strict: {database: shop, plan: {mode: quarantine, tables: {edited_orders: {columns: {amount: number}}}}}"
    )
    sluice.run(f"accounts apply --local --yes {accounts}")
    with pytest.raises(HTTPError, match="400"):
        sluice.post("strict", [{"amount": "5", "event_id": "r"}])
    until(lambda: sluice.json("dead list --local --rejected --account strict") != [])
    [listed] = sluice.json("dead list --local --rejected --account strict")
    shown = sluice.run(f"dead show --local {listed['id']}")
    line = "redrive --local --kind rejected --edit --account strict"
    edits("""text.replace('"amount"', '"table": "edited_orders", "amount"')""")
    wrong = sluice.run(line, answer="n\n")
    edits("""text.replace('"amount": "5"', '"table": "edited_orders", "amount": 5')""")
    done = sluice.run(line, answer="y\n")
    sluice.settled()

    assert "# the event names no table; set its field `table`" == shown.stdout.splitlines()[0]
    assert (1, 0) == (wrong.exit_code, done.exit_code)
    assert "column amount has the type string, but the tracking plan requires number" in wrong.stderr
    assert "1 event repaired. Repaired events are sent like new ones." in done.stdout
    assert ["r"] == sluice.rows("shop", "edited_orders")
