"""`sluice tail` on the local stack: in a terminal, in a pipe, and interrupted."""

import json
import subprocess
from functools import partial
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from ops.personal_data import EXPLANATION
from tests.ops.test_manners import start
from tests.support import ctrl_c, terminal
from tests.support.sluice import Sluice

pytestmark = pytest.mark.xdist_group("mcp")


def test_in_a_pipe_each_line_is_a_json_object(sluice: Sluice) -> None:
    """This applies to events and refused requests. The summary goes to standard error. Ctrl-C ends it with 130."""
    sluice.send("shop", "tailed_in_a_pipe", "a", "b")
    url = f"{sluice.stack.addresses.gateway}/v1/events"
    with pytest.raises(HTTPError):
        urlopen(Request(url, b"{}", {"x-write-key": "shop.demo.wrong"}), timeout=60)
    running = start(sluice, ["tail", "--since", "10min"], subprocess.PIPE)
    assert running.stdout is not None
    seen: list[tuple[str, str]] = []
    while not {("tailed_in_a_pipe", "a"), ("tailed_in_a_pipe", "b"), ("refused", "/v1/events")} <= {*seen}:
        one = json.loads(running.stdout.readline())
        seen.append((one.get("table") or one["kind"], one.get("event_id") or one.get("path")))
    _, said = ctrl_c.press(running, 60)

    assert (130, 2) == (running.returncode, sum(table == "tailed_in_a_pipe" for table, _ in seen))
    assert [True] * 3 == [one in said.decode() for one in ("refused request", " in ", EXPLANATION)]
    assert b"Traceback" not in said
    assert EXPLANATION not in sluice.run("tail --local --since 1min --for 2s --raw").stderr


def test_in_a_terminal_each_event_is_one_line(sluice: Sluice) -> None:
    """In a terminal of 80 columns, no line is longer. With NO_COLOR, lines have no colours."""
    sluice.send("shop", "a_table_with_a_name_that_is_long", *(f"{number:040}" for number in range(3)))
    line = ["tail", "--since", "10min", "--for", "20s"]
    code, seen, _ = terminal.shown(partial(start, sluice, line, NO_COLOR="1"))
    lines = seen.decode().splitlines()

    assert 0 == code
    assert 3 <= sum("shop.a_table_with_a_name_that_is_long" in line for line in lines)
    assert [] == [line for line in lines if len(line) > 80 or "\x1b[3" in line]
