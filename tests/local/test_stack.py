"""The local stack runs the whole pipeline on one machine."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, override
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from local.accounts import KEYS
from local.part import Part
from local.stack import LocalStack, PartError
from local.up import DESCRIPTION
from tests.support.sluice import until

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.xdist_group("stack")


def get(url: str) -> str:
    """Return the response body of a URL."""
    with urlopen(url, timeout=60) as answer:
        return answer.read().decode(errors="replace")


def test_a_failed_start_says_which_part_failed_and_why(tmp_path: Path) -> None:
    """The error names the part and quotes its log. No part is left running."""
    stack = LocalStack(tmp_path / "stack", parameters={"KeyEventsPerSecond": "many"})

    message = r"^ingest exited with status 1 before it was ready; its log ends:\n  .*'many'"
    with pytest.raises(PartError, match=re.compile(message, re.DOTALL)):
        stack.start()

    assert stack.parts == []


def test_a_part_that_is_killed_while_the_stack_starts_is_restarted(tmp_path: Path) -> None:
    """The machine may be short of memory for a moment."""
    killed: list[int] = []

    class Struck(list[Part]):
        @override
        def append(self, part: Part) -> None:
            super().append(part)
            killed.append(part.pid)
            self[0].kill()

    stack = LocalStack(tmp_path / "stack")
    stack.parts = Struck()
    with stack:
        running = [part.name for part in stack.parts if part.running]

    assert ("aws", [], False) == (running[0], stack.parts, Path(f"/proc/{killed[0]}").exists())


class Up:
    """A running `python -m local.up`, and what it has printed so far."""

    def __init__(self, home: Path, *options: str) -> None:
        """Start it. Its processes are recognized by their TMPDIR, which is its home."""
        self.home = home
        self.printed = ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "local.up", "--home", str(home), *options],
            cwd=ROOT,
            env={**os.environ, "TMPDIR": str(home), "HOME": str(home)},
            stdout=subprocess.PIPE,
            text=True,
        )

    def wait_for(self, text: str) -> None:
        """Wait until it has printed a text."""
        while text not in self.printed:
            line = self.process.stdout.readline() if self.process.stdout else ""
            assert line, f"it exited: {self.printed}"
            self.printed += line

    def end(self, number: int = 0) -> int:
        """Send a signal, 0 for none, and return the exit status."""
        self.process.send_signal(number)
        self.process.communicate(timeout=60)
        return self.process.returncode

    def running(self) -> list[str]:
        """Return the command lines of its process and of all processes that it started."""
        mark = f"TMPDIR={self.home}".encode()
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (process / "environ").read_bytes().split(b"\0"):
                    found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:  # it has just exited
                continue
        return found


def test_up_serves_its_page_until_ctrl_c(tmp_path: Path) -> None:
    """Its page follows a request to its row; --record saves requests, even of unknown clients. Ctrl-C stops it, and --port is remembered."""
    recorded, port, origin = tmp_path / "requests.jsonl", free_ports(10), "http://localhost:3000"
    up = Up(tmp_path, "--record", str(recorded), "--port", str(port), "--allowed-origins", origin)
    try:
        up.wait_for("Ready after")
        page = re.findall(r"^Page +(http://\S+)", up.printed, re.MULTILINE)[0]
        gateway = json.loads((tmp_path / DESCRIPTION).read_text())["gateway"]

        assert "<title>Sluice" in get(page)
        assert KEYS["shop"] in get(f"{page}/site/config.js")
        assert KEYS["shop"] in get(f"{page}/site/shop.html")
        pixel = f"/pixel.gif?k={KEYS['shop']}&t=first_rows&event_id=e1&Gr%C3%B6%C3%9Fe=12"
        assert get(gateway + pixel).startswith("GIF")
        asks = (Request(f"{gateway}/health", headers={"Origin": one}) for one in (origin, page))
        told = [urlopen(ask, timeout=60).headers["Access-Control-Allow-Origin"] for ask in asks]
        assert [origin, page] == told
        until(lambda: asked(page, "state.json")["counts"].get("delivered"))
        state = asked(page, "state.json")
        assert [] == [part["name"] for part in state["parts"] if not part["running"]]
        (table,) = state["counts"]["tables"]
        assert ("first_rows", 1, 1) == (table["table"], table["received"], table["delivered"])
        until(lambda: asked(page, "events.json")["events"])
        (event,) = asked(page, "events.json")["events"]
        assert ("event", "shop", "first_rows") == (event["kind"], event["account"], event["table"])
        assert {"event_id": "e1", "gr__e": "12", "td_ip": "127.0.0.1"}.items() <= event["row"].items()
        with pytest.raises(HTTPError, match="404"):
            urlopen(Request(f"{gateway}/new/a/b?c=d", b"{}", {"X-Key": "e"}), timeout=60)
        second = Up(tmp_path)
        second.wait_for("already running. `sluice status --local` shows it; Ctrl-C where")
        assert 1 == second.end()
    finally:
        ended = up.end(signal.SIGINT)
    again = Up(tmp_path)
    try:
        again.wait_for("Ready after")
        emptied = asked(f"http://127.0.0.1:{port + 1}", "state.json")
    finally:
        again.end(signal.SIGTERM)

    assert (0, [], False) == (ended, up.running(), (tmp_path / DESCRIPTION).exists())
    assert f"http://127.0.0.1:{port}" == gateway == emptied["addresses"]["Gateway"]
    assert not emptied["counts"].get("delivered")
    line = json.loads(recorded.read_text().splitlines()[-1])
    assert ["POST", "/new/a/b?c=d", "e30="] == [line["method"], line["target"], line["body"]]
    assert ["X-Key", "e"] in line["headers"]
    event = line["event"]
    assert ("/new/a/b", "c=d") == (event["rawPath"], event["rawQueryString"])
    assert "e" == event["headers"]["x-key"]


def asked(page: str, path: str) -> Any:
    """Return a document of the page."""
    return json.loads(get(f"{page}/{path}"))


def free_ports(count: int) -> int:
    """Return the first of `count` consecutive free ports, below the range that the system assigns by itself."""
    for first in range(20_000, 30_000, count):
        try:
            for port in range(first, first + count):
                socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return first
    raise AssertionError("there are no free ports")


def test_a_port_in_use_and_a_wrong_origin_are_reported(tmp_path: Path) -> None:
    """It names them, and nothing is started."""
    port, origin = free_ports(10), ("--allowed-origins", "http://a.example/")
    with socket.create_server(("127.0.0.1", port + 3)):
        for options, said in (((), f"Port {port + 3} is in use"), (origin, "AllowedOrigins cannot be")):
            up = Up(tmp_path, "--port", str(port + 10 * len(options)), *options)
            up.wait_for(said)
            assert 1 == up.end()


def test_up_can_be_stopped_while_it_starts(tmp_path: Path) -> None:
    """SIGTERM during the start leaves nothing running, once a part that is only starting has seen that its parent is gone."""
    up = Up(tmp_path)
    up.wait_for("Starting")

    assert up.end(signal.SIGTERM) == 128 + signal.SIGTERM
    until(lambda: not up.running())
