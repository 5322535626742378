"""Measures the memory of an event beyond that of an idle worker, in a separate process: `python -m benchmarks.memory FILE`."""

import gc
import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import traffic
from benchmarks.delivery import delivery

_MB = 1 << 10
_EVENT_BYTES = 6_000_000


def peak_mb(per_envelope: int) -> float:
    """Return the peak memory, in MB above that of an idle worker, while it processes a 6 MB event."""
    small = traffic.event(1000, per_envelope=per_envelope)
    count = int(1000 * _EVENT_BYTES / len(json.dumps(small))) // per_envelope * per_envelope
    with TemporaryDirectory() as folder:
        path = Path(folder, "event.json")
        path.write_text(json.dumps(traffic.event(count, per_envelope=per_envelope)))
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.memory", str(path)], check=True, capture_output=True, text=True
        )
    return float(done.stdout) / _MB


def _main(path: str) -> None:
    work = delivery()
    work.run(traffic.event(10), 120_000)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    idle = _kb("VmRSS")
    event = traffic.later(json.loads(Path(path).read_bytes()), 1)
    answer = work.run(event, 120_000)
    if answer["batchItemFailures"]:
        raise RuntimeError(answer)
    print(_kb("VmHWM") - idle)


def _kb(figure: str) -> int:
    """Return a figure of this process's memory."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{figure}:")[2].split()[0])


if __name__ == "__main__":
    _main(sys.argv[1])
