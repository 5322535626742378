"""The whole pipeline on one machine."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from local.accounts import KEYS
from local.demo import follow, replay
from local.observer import Observer
from local.recording import RecordedRequest
from local.stack import PartError, Stack
from local.up import DESCRIPTION

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.xdist_group("stack")


def runs(pid: int) -> bool:
    """Tell whether there is a process of that id."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def get(url: str) -> str:
    """Return what a URL answers."""
    with urlopen(url, timeout=10) as answer:
        return answer.read().decode()


def pixel(table: str, query: str = "") -> RecordedRequest:
    """Return a pixel's request."""
    return RecordedRequest(
        "pixel", "GET", f"/pixel.gif?k={KEYS['shop']}&t={table}{query}", (("Host", "collect.example"),)
    )


def test_one_request_becomes_one_row(tmp_path: Path) -> None:
    """What a pixel says stands in Treasure Data."""
    with Stack(tmp_path / "stack") as stack:
        request = pixel("first_rows", "&event_id=e1&Gr%C3%B6%C3%9Fe=12&name=%E9%89%84%E7%93%B6")
        count = replay(stack, [request], lambda _: None)
        follow(stack, count, lambda _: None)
        rows = json.loads(get(f"{stack.addresses.treasure_data}/-/rows"))["rows"]

    assert count.adds_up
    assert [
        {name: row["row"].get(name) for name in ("event_id", "gr__e", "name", "td_ip")} for row in rows
    ] == [{"event_id": "e1", "gr__e": "12", "name": "鉄瓶", "td_ip": "127.0.0.1"}]


def test_an_outage_of_redis_reaches_no_sender(tmp_path: Path) -> None:
    """While Valkey is away requests are accepted and held; nothing is lost."""
    with Stack(tmp_path / "stack") as stack:
        os.kill(stack.part("valkey").pid, signal.SIGTERM)
        stack.part("valkey").wait(5)
        count = replay(stack, [pixel("held") for _ in range(5)], lambda _: None)
        waiting = Observer(stack).in_flight()
        pids = [part.pid for part in stack.parts]

    assert count.accepted.total() == 5
    assert waiting["records on the stream"] == 5
    assert [pid for pid in pids if runs(pid)] == []


def test_a_failed_start_says_which_part_failed_and_why(tmp_path: Path) -> None:
    """A part that does not start is named with its last words, and none is left running."""
    stack = Stack(tmp_path / "stack", settings={"IngestFunction": {"PARTITION_BUCKETS": "many"}})

    with pytest.raises(
        PartError, match=re.compile("ingest ended with status 1 .*PARTITION_BUCKETS", re.DOTALL)
    ):
        stack.start()

    assert stack.parts == []


class Up:
    """A running `python -m local.up`."""

    def __init__(self, home: Path) -> None:
        """Start it, and return when it is ready."""
        self.home = home
        self.process = subprocess.Popen(
            [sys.executable, "-m", "local.up", "--home", str(home)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.printed = ""
        while "Ready after" not in self.printed:
            line = self.process.stdout.readline() if self.process.stdout else ""
            assert line, f"it ended: {self.printed}"
            self.printed += line

    @property
    def description(self) -> Mapping[str, Any]:
        """What it wrote down of itself."""
        return json.loads((self.home / DESCRIPTION).read_text())

    def end(self, number: int) -> int:
        """Send a signal and return the exit status."""
        self.process.send_signal(number)
        self.process.communicate(timeout=15)
        return self.process.returncode


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_up_runs_until_a_signal_and_leaves_nothing(tmp_path: Path, number: int, status: int) -> None:
    """`make up` prints its addresses, serves its page, and ends with all its parts."""
    up = Up(tmp_path)
    page = re.search(r"Page +(http://\S+)", up.printed)
    description = up.description

    try:
        assert page
        assert "<title>Sluice" in get(page[1])
        assert KEYS["shop"] in get(f"{page[1]}/site/config.js")
        assert KEYS["shop"] in get(f"{page[1]}/site/shop.html")
        state = json.loads(get(f"{page[1]}/state.json?after=0"))
        assert [part["name"] for part in state["parts"] if not part["running"]] == []
        assert len(state["shards"]) == 2
        assert get(f"{description['gateway']}/health") == '{"status":"ok"}'
        second = subprocess.run(
            [sys.executable, "-m", "local.up", "--home", str(tmp_path)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (second.returncode, "runs already" in second.stdout) == (1, True)
    finally:
        ended = up.end(number)

    assert ended == status
    assert [pid for pid in description["pids"].values() if runs(pid)] == []
    assert not (tmp_path / DESCRIPTION).exists()
