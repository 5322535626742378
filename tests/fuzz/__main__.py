"""`python -m tests.fuzz`: sends random requests to the ingest, and fails if a response is undocumented."""

import argparse
import sys

from tests.fuzz.run import run
from tests.support import npm


def main() -> int:
    """Run and print the report."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    report = run(options.inputs, options.seed, npm.data("big-list-of-naughty-strings/blns.json"))
    print(f"{options.inputs:,} requests of seed {options.seed}, {report.accepted:,} events accepted")  # noqa: T201
    print("status ", "  ".join(f"{status}: {n:,}" for status, n in sorted(report.statuses.items())))  # noqa: T201
    print(f"time    p50 {report.p50:.1f} ms, p99 {report.p99:.1f} ms, longest {report.longest:.1f} ms")  # noqa: T201
    print(f"memory  {report.growth:+.1f} MiB after the first tenth")  # noqa: T201
    for fault in report.faults[:20]:
        print("FAULT  ", fault)  # noqa: T201
    print(f"{len(report.faults)} faults")  # noqa: T201
    return 1 if report.faults else 0


if __name__ == "__main__":
    sys.exit(main())
