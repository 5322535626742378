"""Programs that use the client and are killed: `python victim.py` forks one for each line of its input, and prints its process id.

A line is JSON: `url`, `key`, `spool`, `acks` (a pipe that gets each id that `track` has returned), `children` (how many to
fork), `file_bytes` (the limit of a file's size, as on a full disk; null: no limit), `clock` (by how many seconds each reading
of the clock may be wrong). Each victim leads a process group.
"""

import json
import logging
import os
import random
import resource
import signal
import sys
import time
from typing import Any

from sluice_client import Client, SpoolError

MOST_EVENTS = 1500
"""The limit for a victim that is not killed, so that all ids fit into the pipe."""
IDLE_SECONDS = 30.0
"""How long a victim that has tracked everything waits to be killed."""


def run(task: dict[str, Any]) -> None:
    """Track events until killed."""
    os.setpgid(0, 0)
    random.seed()
    client = Client(
        task["url"], task["key"], spool=task["spool"], batch_events=20, batch_seconds=0.01, timeout=0.2,
        retry_seconds=(0.005, 0.04), now=lambda: time.time() + random.uniform(-1, 1) * task["clock"],
    )  # fmt: skip
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


if __name__ == "__main__":
    logging.disable()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # ends it without a traceback
    for line in sys.stdin:
        victim = os.fork()
        if not victim:
            try:
                run(json.loads(line))
            finally:
                os._exit(1)
        print(victim, flush=True)  # noqa: T201 -- for the parent process
        os.waitpid(victim, 0)
