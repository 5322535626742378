"""Processes of the local stack."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.part import Part, PartError

CHILD = """
import sys
from local.parent_watch import ParentWatch

parent = ParentWatch()
if sys.argv[1] == "fails":
    raise SystemExit("no good reason")
print("printed for the log")
parent.ready(answer=42)
parent.wait()
print("ended in order")
"""


@pytest.fixture
def part(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Part]:
    """Start a part that works, or one that does as the parameter says."""
    (tmp_path / "child.py").write_text(CHILD)
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    made = Part("child", ["child", getattr(request, "param", "works")], environment, tmp_path)
    yield made
    made.stop()
    made.wait(5)


def test_it_says_when_it_is_ready(part: Part) -> None:
    """A part's facts reach its starter, and what it prints its log."""
    assert part.ready(10) == {"answer": 42}
    part.check()

    part.stop()
    part.wait(5)

    assert part.tail() == ["printed for the log", "ended in order"]


@pytest.mark.parametrize("part", ["fails"], indirect=True)
def test_a_part_that_fails_is_named_with_its_last_words(part: Part) -> None:
    """A failed start says which part, how it ended, and how its log ends."""
    with pytest.raises(PartError) as failure:
        part.ready(10)

    assert (
        str(failure.value) == "child ended with status 1 before it was ready; its log ends:\n  no good reason"
    )


def test_a_part_that_is_killed_is_noticed(part: Part) -> None:
    """A part that ends by itself is an error of the stack."""
    part.ready(10)
    os.kill(part.pid, signal.SIGKILL)
    part.wait(5)

    with pytest.raises(PartError, match="child ended by signal 9"):
        part.check()


def test_a_part_that_is_not_ready_in_time_is_an_error(tmp_path: Path) -> None:
    """A part that says nothing is not waited for without end."""
    (tmp_path / "silent.py").write_text("import time; time.sleep(60)")
    part = Part("silent", ["silent"], {"PYTHONPATH": str(tmp_path)}, tmp_path)
    try:
        with pytest.raises(PartError, match=r"silent is not ready after 0.1 s; its log is empty"):
            part.ready(0.1)
    finally:
        part.stop()
        part.wait(5)


def test_ctrl_c_is_left_to_the_starter(part: Part) -> None:
    """Ctrl-C, which reaches every process of a terminal, does not end a part."""
    part.ready(10)
    os.kill(part.pid, signal.SIGINT)
    os.kill(part.pid, signal.SIGTERM)
    part.wait(5)

    assert part.tail()[-1] == "ended in order"


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="waits for a stranger's process as Linux can")
def test_no_part_outlives_its_starter(tmp_path: Path) -> None:
    """When the starter is killed, the part ends by itself."""
    (tmp_path / "child.py").write_text(CHILD)
    starter = f"""
import os, signal, sys
from pathlib import Path
from local.part import Part

part = Part("child", ["child", "works"], {{"PYTHONPATH": os.pathsep.join([{str(tmp_path)!r}, *sys.path])}}, Path({str(tmp_path)!r}))
part.ready(10)
print(part.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run(
        [sys.executable, "-c", starter], capture_output=True, check=False, cwd=Path(__file__).parents[2]
    )

    assert done.returncode == -signal.SIGKILL
    assert _ended(int(done.stdout))
    assert (tmp_path / "child.log").read_text().splitlines()[-1] == "ended in order"


def _ended(pid: int) -> bool:
    """Wait at most five seconds for the end of a process that is not our child."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    readable, _, _ = select.select([process], [], [], 5)
    os.close(process)
    return bool(readable)
