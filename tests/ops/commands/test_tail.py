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
    """This applies to events and refused requests. The summary goes to standard error."""
    sluice.send("shop", "tailed_in_a_pipe", "a", "b")
    url = f"{sluice.stack.addresses.gateway}/v1/events"
    with pytest.raises(HTTPError):
        urlopen(Request(url, b"{}", {"x-write-key": "shop.demo.wrong"}), timeout=10)
    result = sluice.run("tail --local --since 1min --for 6s")
    lines = [json.loads(line) for line in result.stdout.splitlines()]

    assert 0 == result.exit_code
    assert ["a", "b"] == [one["event_id"] for one in lines if one.get("table") == "tailed_in_a_pipe"]
    assert "/v1/events" in {one["path"] for one in lines if one["kind"] == "refused"}
    assert "refused request" in result.stderr
    assert EXPLANATION in result.stderr
    assert EXPLANATION not in sluice.run("tail --local --since 1min --for 2s --raw").stderr


def test_in_a_terminal_each_event_is_one_line(sluice: Sluice) -> None:
    """In a terminal of 80 columns, no line is longer. With NO_COLOR, lines have no colours."""
    sluice.send("shop", "a_table_with_a_name_that_is_long", *(f"{number:040}" for number in range(3)))
    line = ["tail", "--since", "1min", "--for", "6s"]
    code, seen, _ = terminal.shown(partial(start, sluice, line, NO_COLOR="1"))
    lines = seen.decode().splitlines()

    assert 0 == code
    assert 3 <= sum("shop.a_table_with_a_name_that_is_long" in line for line in lines)
    assert [] == [line for line in lines if len(line) > 80 or "\x1b[3" in line]


def test_the_tail_can_be_interrupted(sluice: Sluice) -> None:
    """It exits with 130 and a summary of what it has shown."""
    sluice.send("shop", "tailed", "e")
    running = start(sluice, ["tail", "--since", "1min", "--table", "tailed"], subprocess.PIPE)
    assert running.stdout is not None
    running.stdout.readline()
    _, said = ctrl_c.press(running, 30)

    assert 130 == running.returncode
    assert " in " in said.decode().splitlines()[-1]
    assert b"Traceback" not in said
