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
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from sluice_client import Client
from tests.support.flaky_ingest import FAULTS, FlakyIngest
from tests.support.ingest import KEY

KILLS_IN_A_ROUND = 10
WAYS = ("parent", "children", "request", "disk")
"""What to kill and when: the parent at a random time, the children before it, the process whose request the ingest is handling,
or a process whose files cannot grow."""
DRAIN_SECONDS = 60.0
_ROOT = Path(__file__).parents[2]
_PROGRAM = ("-W", "ignore::DeprecationWarning", "tests/client/victim.py")


@dataclass
class Result:
    """The results of all rounds.

    Attributes:
        kills: by way and fault.
        acknowledged: the number of events that `track` stored.
        lost: the number of those that did not become a row.
        duplicated: the number of events that became several rows.
        undrained: the number of rounds that left something in the spool.
    """

    kills: Counter[str] = field(default_factory=Counter)
    acknowledged: int = 0
    lost: int = 0
    duplicated: int = 0
    undrained: int = 0


def run(points: int, seed: int, python: str = sys.executable) -> Result:
    """Kill this many programs.

    Args:
        points: the number of kills.
        seed: decides which process to kill and how; the exact moment depends on the machine.
        python: the interpreter of the programs that are killed.
    """
    result, chance = Result(), random.Random(seed)
    environment = {**os.environ, "PYTHONPATH": str(_ROOT / "client")}
    with (
        FlakyIngest(hang_seconds=0.4) as ingest,
        # forks victims, so that each starts immediately
        subprocess.Popen(
            [python, *_PROGRAM],
            cwd=_ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as forker,
    ):
        for _ in range(-(-points // KILLS_IN_A_ROUND)):
            with tempfile.TemporaryDirectory() as folder:
                _round(Path(folder), forker, ingest, chance, result)
    return result


def _round(
    folder: Path, forker: subprocess.Popen[str], ingest: FlakyIngest, chance: random.Random, result: Result
) -> None:
    ingest.renew()
    ingest.retry_after = "0"
    spool, pipe = folder / "spool", folder / "acks"
    os.mkfifo(pipe)
    acks, acknowledged = os.open(pipe, os.O_RDWR | os.O_NONBLOCK), b""
    for _ in range(KILLS_IN_A_ROUND):
        ingest.fault = chance.choice(FAULTS)
        way = chance.choice(WAYS)
        result.kills[f"{way}, {ingest.fault}"] += 1
        task = {
            "url": ingest.url,
            "key": KEY,
            "spool": str(spool),
            "acks": str(pipe),
            "children": chance.choice((1, 2)) if way == "children" else 0,
            "file_bytes": chance.randint(70_000, 150_000) if way == "disk" else None,
            "clock": chance.choice((0, 0, 3600, 40 * 86_400)),
        }
        _kill(way, forker, task, ingest, chance)
        with suppress(BlockingIOError):
            while data := os.read(acks, 65_536):
                acknowledged += data
    os.close(acks)
    ingest.on_request, ingest.fault = lambda: None, "none"
    result.undrained += not _drain(ingest.url, spool)
    stored = set(acknowledged.decode().split())
    rows = Counter(str(row["event_id"]) for row in ingest.rows())
    result.acknowledged += len(stored)
    result.lost += len(stored - set(rows))
    result.duplicated += sum(count > 1 for count in rows.values())


def _kill(
    way: str,
    forker: subprocess.Popen[str],
    task: dict[str, object],
    ingest: FlakyIngest,
    chance: random.Random,
) -> None:
    """Start a victim, and kill it with all its children."""
    assert forker.stdin is not None
    assert forker.stdout is not None
    arrived = threading.Semaphore(0)
    ingest.on_request = arrived.release
    forker.stdin.write(json.dumps(task) + "\n")
    forker.stdin.flush()
    victim = int(forker.stdout.readline())
    if way == "request":
        for _ in range(chance.randint(1, 6)):
            arrived.acquire(timeout=0.1)
    else:
        time.sleep(chance.uniform(0.0, 0.12))
    if way == "children":
        with suppress(OSError):  # it may have ended
            for child in Path(f"/proc/{victim}/task/{victim}/children").read_text().split():
                os.kill(int(child), signal.SIGKILL)
        time.sleep(chance.uniform(0.0, 0.05))
    for kill in (os.kill, os.killpg):
        with suppress(ProcessLookupError, PermissionError):
            kill(victim, signal.SIGKILL)


def _drain(url: str, spool: Path) -> bool:
    """Send everything that earlier victims have left; return whether nothing is."""
    deadline = time.monotonic() + DRAIN_SECONDS
    client = partial(Client, url, KEY, spool=spool, batch_events=20, retry_seconds=(0.005, 0.04))
    while time.monotonic() < deadline:
        with client() as one:
            one.resume()
        if not any(path.is_file() for path in spool.rglob("*")):
            return True
    return False


def main() -> None:
    """Run the rounds and print the result."""
    parser = argparse.ArgumentParser(prog="python -m tests.client.faults", description=__doc__)
    parser.add_argument("--points", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--python", default=sys.executable, help="of the programs that are killed")
    options = parser.parse_args()
    result = run(options.points, options.seed, options.python)
    for name, count in sorted(result.kills.items()):
        print(f"{count:5} kills: {name}")  # noqa: T201 -- a command
    print(  # noqa: T201
        f"{result.kills.total()} kills; {result.acknowledged:,} events acknowledged; {result.lost} lost, "
        f"{result.duplicated} duplicated, {result.undrained} rounds not drained"
    )
    sys.exit(bool(result.lost or result.duplicated or result.undrained))


if __name__ == "__main__":
    main()
