"""A full disk stops `track`, but not the delivery of what it has stored."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.flaky_ingest import FlakyIngest
from tests.support.ingest import KEY

_PROGRAM = """
import json, sys
from sluice_client import Client, SpoolError

def fill():
    ids = []
    try:
        while True:
            ids.append(client.track("orders", text="x" * size))
    except SpoolError:
        return ids

url, key, spool, size = sys.argv[1:4] + [int(sys.argv[4])]
client = Client(url, key, spool=spool, batch_events=20, batch_seconds=60, timeout=1, retry_seconds=(0.01, 0.05))
print(json.dumps(fill()), flush=True)
sys.stdin.readline()
print(json.dumps([client.flush(20), client.statistics().pending, len(fill()) > 0]), flush=True)
"""

_SMALL_DISK = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]


@pytest.fixture
def ingest() -> Iterator[FlakyIngest]:
    """Yield an ingest that can fail."""
    with FlakyIngest(hang_seconds=1.0) as serving:
        yield serving


@pytest.mark.parametrize("size", [20, 2000, 100_000])
def test_a_full_disk_does_not_stop_delivery(ingest: FlakyIngest, tmp_path: Path, size: int) -> None:
    """Once the endpoint is back, every stored event is delivered once; then there is space for others."""
    if subprocess.run(
        [*_SMALL_DISK, "mount -t tmpfs tmpfs /mnt"], capture_output=True, check=False
    ).returncode:
        pytest.skip("this user may not mount a small disk")
    spool = tmp_path / "spool"
    spool.mkdir()
    ingest.fault, ingest.retry_after = "unavailable", "0"
    mount = f'mount -t tmpfs -o size=1m tmpfs {spool} && exec "$@"'
    program = [sys.executable, "-c", _PROGRAM, ingest.url, KEY, str(spool), str(size)]
    with subprocess.Popen(
        [*_SMALL_DISK, mount, "sh", *program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "client")},
    ) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        stored = json.loads(running.stdout.readline())
        ingest.fault = "none"
        running.stdin.write("\n")
        running.stdin.flush()
        outcome: list[Any] = json.loads(running.stdout.readline())
        running.kill()

    rows = [row["event_id"] for row in ingest.rows()]
    assert ([True, 0, True], sorted(stored)) == (outcome, sorted(set(rows) & set(stored)))
    assert len(rows) == len(set(rows))
