"""The local stack runs the whole pipeline on one machine."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from local.accounts import KEYS
from local.demo import send_recording
from local.recording import RecordedRequest
from local.stack import LocalStack, PartError
from local.up import DESCRIPTION
from ops.stack import described
from ops.state.stack_state import accounting

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.xdist_group("stack")


def runs(pid: int) -> bool:
    """Return whether a process with that id exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def get(url: str) -> str:
    """Return the response body of a URL."""
    with urlopen(url, timeout=60) as answer:
        return answer.read().decode(errors="replace")


def pixel(table: str) -> RecordedRequest:
    """Return a request for the pixel."""
    return RecordedRequest("GET", f"/pixel.gif?k={KEYS['shop']}&t={table}", (("Host", "collect.example"),))


def test_senders_do_not_notice_a_redis_outage(tmp_path: Path) -> None:
    """While Valkey is down, requests are accepted, and their records wait on the stream."""
    with LocalStack(tmp_path / "stack") as stack:
        os.kill(stack.part("valkey").pid, signal.SIGTERM)
        stack.part("valkey").wait(5)
        count = send_recording(stack, [pixel("held") for _ in range(5)], lambda _: None)
        waiting = accounting(described(stack.describe())).unread()
        pids = [part.pid for part in stack.parts]

    assert count.accepted.total() == 5
    assert waiting.on_stream == 5
    assert [pid for pid in pids if runs(pid)] == []


def test_a_failed_start_says_which_part_failed_and_why(tmp_path: Path) -> None:
    """The error names the part and quotes its log. No part is left running."""
    stack = LocalStack(tmp_path / "stack", parameters={"KeyEventsPerSecond": "many"})

    with pytest.raises(PartError, match=re.compile("ingest exited with status 1 .*'many'", re.DOTALL)):
        stack.start()

    assert stack.parts == []


def test_a_part_that_is_killed_while_the_stack_starts_is_restarted(tmp_path: Path) -> None:
    """The machine may be short of memory for a moment."""
    stack = LocalStack(tmp_path / "stack")
    killed: list[int] = []

    def kill() -> None:
        while not stack.parts:
            time.sleep(0.01)
        killed.append(stack.parts[0].pid)
        stack.parts[0].kill()

    killer = threading.Thread(target=kill)
    killer.start()
    with stack:
        killer.join()
        running = [part.name for part in stack.parts if part.running]

    assert ("aws", len(stack.parts), False) == (running[0], 0, runs(killed[0]))


class Up:
    """A running `python -m local.up`.

    Attributes:
        printed: its output so far.
    """

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

    def end(self, number: int) -> int:
        """Send a signal and return the exit status."""
        self.process.send_signal(number)
        self.process.communicate(timeout=60)
        return self.process.returncode

    def left(self) -> list[str]:
        """Return the processes that still run after all have had time to exit.

        A part that is only just starting exits once it has loaded and sees that its parent process is gone.
        """
        beat, deadline = threading.Event(), time.monotonic() + 60
        while (found := self.running()) and time.monotonic() < deadline:
            beat.wait(0.05)
        return found

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
    """It prints its addresses, and its page follows a request to its row. Ctrl-C stops everything."""
    up = Up(tmp_path)
    try:
        up.wait_for("Ready after")
        page = re.findall(r"^Page +(http://\S+)", up.printed, re.MULTILINE)[0]
        gateway = json.loads((tmp_path / DESCRIPTION).read_text())["gateway"]

        assert "<title>Sluice" in get(page)
        assert KEYS["shop"] in get(f"{page}/site/config.js")
        assert KEYS["shop"] in get(f"{page}/site/shop.html")
        assert get(
            f"{gateway}/pixel.gif?k={KEYS['shop']}&t=first_rows&event_id=e1&Gr%C3%B6%C3%9Fe=12"
        ).startswith("GIF")
        state = wait_for_rows(page)
        assert [part["name"] for part in state["parts"] if not part["running"]] == []
        (event,) = wait_for(lambda: json.loads(get(f"{page}/events.json"))["events"])
        assert ("event", "shop", "first_rows") == (event["kind"], event["account"], event["table"])
        assert {"event_id": "e1", "gr__e": "12", "td_ip": "127.0.0.1"}.items() <= event["row"].items()
        (table,) = state["counts"]["tables"]
        assert ("first_rows", 1, 1) == (table["table"], table["received"], table["delivered"])
        second = subprocess.run(
            [sys.executable, "-m", "local.up", "--home", str(tmp_path)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (second.returncode, "already running" in second.stdout) == (1, True)
    finally:
        ended = up.end(signal.SIGINT)

    assert ended == 0
    assert up.running() == []
    assert not (tmp_path / DESCRIPTION).exists()


def test_up_records_requests_of_unknown_clients(tmp_path: Path) -> None:
    """With --record, each request is saved as sent and as the function receives it, even if no route matches."""
    recorded = tmp_path / "requests.jsonl"
    up = Up(tmp_path, "--record", str(recorded))
    try:
        up.wait_for("Ready after")
        gateway = json.loads((tmp_path / DESCRIPTION).read_text())["gateway"]
        with pytest.raises(HTTPError, match="404"):
            urlopen(Request(f"{gateway}/new/a/b?c=d", b"{}", {"X-Key": "e"}), timeout=60)
    finally:
        up.end(signal.SIGINT)

    (line,) = map(json.loads, recorded.read_text().splitlines())
    assert ["POST", "/new/a/b?c=d", "e30="] == [line["method"], line["target"], line["body"]]
    assert ["X-Key", "e"] in line["headers"]
    assert ("/new/a/b", "c=d", "e") == (
        line["event"]["rawPath"],
        line["event"]["rawQueryString"],
        line["event"]["headers"]["x-key"],
    )


def test_up_can_be_stopped_while_it_starts(tmp_path: Path) -> None:
    """SIGTERM during the start leaves nothing running."""
    up = Up(tmp_path)
    up.wait_for("Starting")

    assert up.end(signal.SIGTERM) == 128 + signal.SIGTERM
    assert up.left() == []


def wait_for[T](look: Callable[[], T]) -> T:
    """Return the first result that is not empty, or the last result after half a minute."""
    beat, deadline = threading.Event(), time.monotonic() + 60
    while not (found := look()) and time.monotonic() < deadline:
        beat.wait(0.05)
    return found


def wait_for_rows(page: str) -> dict[str, Any]:
    """Return the page's state once it shows rows."""

    def look() -> dict[str, Any] | None:
        state: dict[str, Any] = json.loads(get(f"{page}/state.json"))
        return state if state["counts"].get("delivered") else None

    return wait_for(look) or {}


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


def test_the_port_is_remembered(tmp_path: Path) -> None:
    """The next start uses the requested port again, and a port in use is reported. The stack starts empty."""
    port = free_ports(10)
    first = Up(tmp_path, "--port", str(port), "--log-level", "WARN")
    try:
        first.wait_for("Ready after")
        gateway = json.loads((tmp_path / DESCRIPTION).read_text())["gateway"]
        get(f"{gateway}/pixel.gif?k={KEYS['shop']}&t=gone&event_id=e1")
        assert wait_for_rows(f"http://127.0.0.1:{port + 1}")
    finally:
        first.end(signal.SIGINT)
    second = Up(tmp_path)
    try:
        second.wait_for("Ready after")
        state = wait_for(lambda: json.loads(get(f"http://127.0.0.1:{port + 1}/state.json")))
    finally:
        second.end(signal.SIGINT)
    with socket.create_server(("127.0.0.1", port + 3)):
        third = Up(tmp_path)
        third.wait_for(f"Port {port + 3} is in use")

        third.process.communicate(timeout=60)

        assert 1 == third.process.returncode
    assert f"http://127.0.0.1:{port}" == gateway == state["addresses"]["Gateway"]
    assert not state["counts"].get("delivered")
