"""Kills programs that use the client, at random moments, in every failure: `python -m tests.client.faults --points N`.

A round kills ten programs one after another that share a spool: a parent or its children, at a random time or while the
ingest handles their request, while requests fail in every way, clocks jump and the disk is full. Then the failures end, the
remaining events are delivered, and every id that `track` has returned must be exactly one row.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from tests.support.flaky_ingest import FAULTS, FlakyIngest
from tests.support.ingest import KEY

KILLS_IN_A_ROUND = 10
WAYS = ("parent", "children", "request", "disk")
"""What to kill and when: the parent at a random time, the children before it, the process whose request the ingest is handling,
or a process whose files cannot grow."""
_ROOT = Path(__file__).parents[2]
_PROGRAM = ("-W", "ignore::DeprecationWarning", "tests/client/victim.py")


@dataclass
class Result:
    """The results of all rounds.

    Attributes:
        kills: by way and fault.
        acknowledged: the number of events that `track` stored.
        rows: their number.
        requests: the number of requests that reached the ingest.
        lost: the number of events that `track` stored and that did not become a row.
        duplicated: the number of events that became several rows.
        undrained: the number of rounds that left something in the spool.
    """

    kills: Counter[str] = field(default_factory=Counter)
    acknowledged: int = 0
    rows: int = 0
    requests: int = 0
    lost: int = 0
    duplicated: int = 0
    undrained: int = 0

    @property
    def is_good(self) -> bool:
        """Whether every acknowledged event became one row."""
        return not (self.lost or self.duplicated or self.undrained)


class Forker:
    """A process that forks victims, so that each starts immediately."""

    def __init__(self, python: str) -> None:
        environment = {**os.environ, "PYTHONPATH": f"{_ROOT / 'client'}:{_ROOT}"}
        self._process = subprocess.Popen(
            [python, *_PROGRAM], cwd=_ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )  # fmt: skip
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input: IO[str] = self._process.stdin
        self._output: IO[str] = self._process.stdout

    def fork(self, **task: Any) -> int:
        """Start a victim and return its process id."""
        self._input.write(json.dumps(task) + "\n")
        self._input.flush()
        return int(self._output.readline())

    def exit_code(self) -> int:
        """Return the exit code of the last drain."""
        return int(self._output.readline())

    def stop(self) -> None:
        """End the process."""
        self._input.close()
        self._output.close()
        self._process.wait()


def run(points: int, seed: int, *, small_disk: bool = False, python: str = sys.executable) -> Result:
    """Kill this many programs.

    Args:
        points: the number of kills.
        seed: decides which process to kill and how; the exact moment depends on the machine.
        small_disk: every fifth round, put the spool on a real file system that is too small (requires root).
        python: the interpreter of the programs that are killed.
    """
    result, chance = Result(), random.Random(seed)
    forker = Forker(python)
    try:
        with FlakyIngest(hang_seconds=0.4) as ingest:
            for number in range(-(-points // KILLS_IN_A_ROUND)):
                with tempfile.TemporaryDirectory() as folder:
                    is_small = small_disk and number % 5 == 4
                    with _file_system(Path(folder), chance) if is_small else _folder(Path(folder)):
                        _round(Path(folder), forker, ingest, chance, result, is_small=is_small)
    finally:
        forker.stop()
    return result


@contextmanager
def _folder(folder: Path) -> Iterator[None]:
    (folder / "spool").mkdir()
    yield


@contextmanager
def _file_system(folder: Path, chance: random.Random) -> Iterator[None]:
    spool = str(folder / "spool")
    (folder / "spool").mkdir()
    options = f"size={chance.randint(300, 900)}k"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", spool], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", spool], check=True)


def _round(
    folder: Path,
    forker: Forker,
    ingest: FlakyIngest,
    chance: random.Random,
    result: Result,
    *,
    is_small: bool,
) -> None:
    ingest.renew()
    ingest.retry_after = "0"
    os.mkfifo(folder / "acks")
    acks = os.open(folder / "acks", os.O_RDWR | os.O_NONBLOCK)
    acknowledged = b""
    task = {
        "url": ingest.url,
        "key": KEY,
        "spool": str(folder / "spool"),
        "acks": str(folder / "acks"),
        "drain": False,
    }
    for _ in range(KILLS_IN_A_ROUND):
        ingest.fault = chance.choice(FAULTS)
        way = chance.choice(WAYS)
        result.kills[f"{'small disk' if is_small else way}, {ingest.fault}"] += 1
        victim = {
            "children": chance.choice((1, 2)) if way == "children" else 0,
            "file_bytes": chance.randint(70_000, 150_000) if way == "disk" else None,
            "clock": chance.choice((0, 0, 3600, 40 * 86_400)),
        }
        arrived = threading.Event()
        moments = iter(range(chance.randint(0, 5), -1, -1))
        ingest.on_request = lambda moments=moments, arrived=arrived: (
            arrived.set() if not next(moments, 0) else None
        )  # type: ignore[misc]
        pid = forker.fork(**task, **victim)
        if way == "request":
            arrived.wait(0.5)
        else:
            time.sleep(chance.uniform(0.0, 0.12))
        if way == "children":
            for child in _children(pid):
                with suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            time.sleep(chance.uniform(0.0, 0.05))
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
        with suppress(BlockingIOError):
            while data := os.read(acks, 65_536):
                acknowledged += data
    ingest.on_request, ingest.fault = lambda: None, "none"
    if is_small:
        subprocess.run(["mount", "-o", "remount,size=64m", str(folder / "spool")], check=True)
    forker.fork(**{**task, "drain": True}, children=0, file_bytes=None, clock=0)
    result.undrained += forker.exit_code() != 0
    with suppress(BlockingIOError):
        while data := os.read(acks, 65_536):
            acknowledged += data
    os.close(acks)
    stored = set(acknowledged.decode().split())
    rows = Counter(str(row["event_id"]) for row in ingest.rows())
    result.acknowledged += len(stored)
    result.rows += rows.total()
    result.requests += len(ingest.requests)
    ingest.requests.clear()
    result.lost += len(stored - set(rows))
    result.duplicated += sum(count > 1 for count in rows.values())


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def main() -> None:
    """Run the rounds and print the result."""
    parser = argparse.ArgumentParser(prog="python -m tests.client.faults", description=__doc__)
    parser.add_argument("--points", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--python", default=sys.executable, help="of the programs that are killed")
    options = parser.parse_args()
    begin = time.monotonic()
    result = run(options.points, options.seed, small_disk=os.geteuid() == 0, python=options.python)
    for name, count in sorted(result.kills.items()):
        print(f"{count:5} kills: {name}")  # noqa: T201 -- a command
    print(  # noqa: T201
        f"{result.kills.total()} kills in {time.monotonic() - begin:.0f} s; {result.acknowledged:,} events acknowledged, "
        f"{result.rows:,} rows from {result.requests:,} requests; {result.lost} lost, {result.duplicated} duplicated, "
        f"{result.undrained} rounds not drained"
    )
    sys.exit(not result.is_good)


if __name__ == "__main__":
    main()
