"""The processes of the local stack."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.part import Part, PartError
from tests.support.sluice import until

CHILD = """
from local.parent_watch import ParentWatch

parent = ParentWatch()
print("printed for the log")
parent.ready(answer=42)
parent.wait()
print("stopped cleanly")
"""


@pytest.fixture
def part(tmp_path: Path) -> Iterator[Part]:
    """Start a part."""
    (tmp_path / "child.py").write_text(CHILD)
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    made = Part("child", ["child"], environment, tmp_path)
    yield made
    made.stop()
    made.wait(60)


def test_a_part_reports_when_it_is_ready(part: Part) -> None:
    """The parent process receives its facts, and its output goes to its log."""
    assert part.ready(60) == {"answer": 42}
    part.check()

    part.stop()
    part.wait(60)

    assert part.tail() == ["printed for the log", "stopped cleanly"]


def test_a_killed_part_is_reported(part: Part) -> None:
    """An exit of a part while the stack runs is an error."""
    part.ready(60)
    os.kill(part.pid, signal.SIGKILL)
    part.wait(60)

    with pytest.raises(PartError, match="child exited on signal 9"):
        part.check()


def test_a_killer_waits_for_no_later_process(part: Part, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread may restart it as soon as it has ended."""
    killpg = os.killpg

    def strike(pid: int, number: int) -> None:
        killpg(pid, number)
        until(lambda: part.revive() == "on signal 9")

    monkeypatch.setattr(os, "killpg", strike)
    part.kill()

    assert part.running


def test_a_part_that_is_not_ready_in_time_is_an_error(tmp_path: Path) -> None:
    """The wait is limited, so a part that hangs cannot block the stack's start for ever."""
    (tmp_path / "silent.py").write_text("import time; time.sleep(60)")
    part = Part("silent", ["silent"], {"PYTHONPATH": str(tmp_path)}, tmp_path)
    try:
        with pytest.raises(PartError, match=r"silent is not ready after 0.1 s; its log is empty"):
            part.ready(0.1)
    finally:
        part.stop()
        part.wait(60)


def test_parts_ignore_ctrl_c(part: Part) -> None:
    """Ctrl-C reaches every process of a terminal, but only the parent process acts on it."""
    part.ready(60)
    os.kill(part.pid, signal.SIGINT)
    os.kill(part.pid, signal.SIGTERM)
    part.wait(60)

    assert part.tail()[-1] == "stopped cleanly"


def test_no_part_outlives_its_parent(tmp_path: Path) -> None:
    """A part exits when its parent process is killed."""
    (tmp_path / "child.py").write_text(CHILD)
    script = f"""
import os, signal, sys
from pathlib import Path
from local.part import Part

folder = {str(tmp_path)!r}
part = Part("child", ["child"], {{"PYTHONPATH": os.pathsep.join([folder, *sys.path])}}, Path(folder))
part.ready(60)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", script], check=False, cwd=Path(__file__).parents[2])

    assert -signal.SIGKILL == done.returncode
    until(lambda: (tmp_path / "child.log").read_text().endswith("stopped cleanly\n"))
