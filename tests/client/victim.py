"""Programs that use the client and are killed: `python victim.py` forks one for each line of its input.

A line is JSON: `url`, `key`, `spool`, `acks` (a pipe that gets each id that `track` has returned), `children` (how many to
fork), `file_bytes` (the limit of a file's size, as on a full disk; null: no limit), `clock` (by how many seconds each reading
of the clock may be wrong), `drain` (track nothing, and end when the spool is empty). Each victim leads a process group. The
output for a line is the victim's process id, and after a drain its exit code.
"""

import json
import logging
import os
import random
import resource
import sys
import time
from pathlib import Path
from typing import Any

from sluice_client import Client, SpoolError

MOST_EVENTS = 1500
"""The limit for a victim that is not killed, so that all ids fit into the pipe."""
DRAIN_SECONDS = 60.0
IDLE_SECONDS = 30.0
"""How long a victim that has tracked everything waits to be killed."""


def client_of(task: dict[str, Any]) -> Client:
    """Return a client that sends and gives up quickly."""

    def now() -> float:
        return time.time() + random.uniform(-1, 1) * task["clock"]

    return Client(
        task["url"], task["key"], spool=task["spool"], batch_events=20, batch_seconds=0.01, timeout=0.2,
        retry_seconds=(0.005, 0.04), now=now,
    )  # fmt: skip


def run(task: dict[str, Any]) -> int:
    """Track events until killed; return the exit code."""
    client = client_of(task)
    if task["drain"]:
        return drain(client, task)
    if task["file_bytes"]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (task["file_bytes"], resource.RLIM_INFINITY))
    acks = os.open(task["acks"], os.O_WRONLY)
    for number in range(MOST_EVENTS // (1 + task["children"])):
        if 0 < number <= task["children"]:
            os.fork()
        try:
            event_id = client.track("orders", n=number)
        except SpoolError:  # the disk is full
            time.sleep(0.001)
            continue
        os.write(acks, f"{event_id}\n".encode())
        if number % 50 == 49:
            time.sleep(0.002)
    time.sleep(IDLE_SECONDS)
    return 1


def drain(client: Client, task: dict[str, Any]) -> int:
    """Send everything that earlier victims have left."""
    deadline = time.monotonic() + DRAIN_SECONDS
    while time.monotonic() < deadline:
        client.resume()
        client.close(5.0)
        if not any(path.is_file() for path in Path(task["spool"]).rglob("*")):
            return 0
        client = client_of(task)
    return 1


def main() -> None:
    """Fork a victim for each line."""
    logging.disable()
    for line in sys.stdin:
        task = json.loads(line)
        pid = os.fork()
        if not pid:
            os.setpgid(0, 0)
            random.seed()
            code = 1
            try:
                code = run(task)
            finally:
                os._exit(code)
        print(pid, flush=True)  # noqa: T201 -- for the parent process
        status = os.waitpid(pid, 0)[1]
        if task["drain"]:
            print(os.waitstatus_to_exitcode(status), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
