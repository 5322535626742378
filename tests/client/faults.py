"""Kills programs that use the client, at random moments, in every failure: `python -m tests.client.faults --points N`.

A round kills up to ten programs one after another that share a spool: a parent or its children, at a random time or while the
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


class Killer:
    """Kills programs, and counts what became of their events.

    The seed decides which process to kill and how; the exact moment depends on the machine.

    Attributes:
        kills: by way and fault.
        counts: the events that `track` stored (`acknowledged`), those of them that did not become a row (`lost`), events that
            became several rows (`duplicated`), and rounds that left something in the spool (`undrained`).
    """

    def __init__(self, seed: int, python: str = sys.executable) -> None:
        self.kills, self.counts = Counter[str](), Counter[str]()
        self._chance = random.Random(seed)
        self._ingest = FlakyIngest(hang_seconds=0.4)
        self._command = [python, *_PROGRAM]

    def run(self, points: int) -> None:
        """Kill this many programs."""
        env = {**os.environ, "PYTHONPATH": str(_ROOT / "client")}
        pipe = subprocess.PIPE
        with (
            self._ingest,
            # forks victims, so that each starts immediately
            subprocess.Popen(self._command, cwd=_ROOT, env=env, stdin=pipe, stdout=pipe, text=True) as forker,
        ):
            for done in range(0, points, KILLS_IN_A_ROUND):
                with tempfile.TemporaryDirectory() as folder:
                    self._round(Path(folder), forker, min(KILLS_IN_A_ROUND, points - done))

    def _round(self, folder: Path, forker: subprocess.Popen[str], kills: int) -> None:
        self._ingest.renew()
        self._ingest.retry_after = "0"
        spool, pipe = folder / "spool", folder / "acks"
        os.mkfifo(pipe)
        acks, acknowledged = os.open(pipe, os.O_RDWR | os.O_NONBLOCK), b""
        for _ in range(kills):
            self._ingest.fault, way = self._chance.choice(FAULTS), self._chance.choice(WAYS)
            self.kills[f"{way}, {self._ingest.fault}"] += 1
            task = {"url": self._ingest.url, "key": KEY, "spool": str(spool), "acks": str(pipe)}
            task["children"] = self._chance.choice((1, 2)) if way == "children" else 0
            task["file_bytes"] = self._chance.randint(70_000, 150_000) if way == "disk" else None
            task["clock"] = self._chance.choice((0, 0, 3600, 40 * 86_400))
            self._kill(way, forker, json.dumps(task))
            with suppress(BlockingIOError):
                while data := os.read(acks, 65_536):
                    acknowledged += data
        os.close(acks)
        self._ingest.on_request, self._ingest.fault = lambda: None, "none"
        self.counts["undrained"] += not self._drain(spool)
        stored = set(acknowledged.decode().split())
        rows = Counter(str(row["event_id"]) for row in self._ingest.rows())
        self.counts["acknowledged"] += len(stored)
        self.counts["lost"] += len(stored - set(rows))
        self.counts["duplicated"] += sum(count > 1 for count in rows.values())

    def _kill(self, way: str, forker: subprocess.Popen[str], task: str) -> None:
        """Start a victim, and kill it with all its children."""
        arrived = threading.Semaphore(0)
        self._ingest.on_request = arrived.release
        forker.stdin.write(f"{task}\n")
        forker.stdin.flush()
        victim = int(forker.stdout.readline())
        if way == "request":
            for _ in range(self._chance.randint(1, 6)):
                arrived.acquire(timeout=0.1)
        else:
            time.sleep(self._chance.uniform(0.0, 0.12))
        if way == "children":
            with suppress(OSError):  # it may have ended
                for child in Path(f"/proc/{victim}/task/{victim}/children").read_text().split():
                    os.kill(int(child), signal.SIGKILL)
            time.sleep(self._chance.uniform(0.0, 0.05))
        for kill in (os.kill, os.killpg):
            with suppress(ProcessLookupError, PermissionError):
                kill(victim, signal.SIGKILL)

    def _drain(self, spool: Path) -> bool:
        """Send everything that earlier victims have left; return whether nothing is."""
        deadline = time.monotonic() + DRAIN_SECONDS
        while time.monotonic() < deadline:
            options = {"batch_events": 20, "retry_seconds": (0.005, 0.04)}
            with Client(self._ingest.url, KEY, spool=spool, **options) as one:
                one.resume()
            if not any(path.is_file() for path in spool.rglob("*")):
                return True
        return False


def main() -> None:
    """Kill programs and print what became of their events."""
    parser = argparse.ArgumentParser(prog="python -m tests.client.faults", description=__doc__)
    parser.add_argument("--points", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--python", default=sys.executable, help="of the programs that are killed")
    options = parser.parse_args()
    made = Killer(options.seed, options.python)
    made.run(options.points)
    for name, count in sorted(made.kills.items()):
        print(f"{count:5} kills: {name}")  # noqa: T201 -- a command
    print(made.kills.total(), "kills:", *(f"{count:,} {name};" for name, count in made.counts.items()))  # noqa: T201
    sys.exit(any(made.counts[name] for name in ("lost", "duplicated", "undrained")))


if __name__ == "__main__":
    main()
