"""Measure, print tables, and end with one line in JSON."""

import json

from rich.console import Console
from rich.table import Table

from benchmarks import ingest, worker


def main() -> None:
    """Run all benchmarks; a few minutes."""
    console = Console()
    ratios: dict[str, float] = {}

    console.print("Measuring the ingest …")
    table = Table(
        "request", "sluice", "bare boto3 put", "td-client per event", "sluice / bare", "sluice / td-client"
    )
    for name, times in ingest.measure().items():
        bare, direct = times["sluice"] / times["bare"], times["sluice"] / times["direct"]
        table.add_row(
            name,
            *(f"{times[way] * 1e6:.0f} µs" for way in ("sluice", "bare", "direct")),
            _x(bare),
            _x(direct),
        )
        ratios |= {f"ingest_vs_bare ({name})": bare, f"ingest_vs_direct ({name})": direct}
    console.print(table)

    console.print("Measuring the worker …")
    table = Table(
        "rows", "accounts", "sluice", "floor", "decode", "td-client", "sluice / floor", "sluice / td-client"
    )
    per_row: dict[tuple[int, int], float] = {}
    for rows, groups in ((1_000, 1), (20_000, 1), (20_000, 500), (200_000, 1)):
        times = worker.measure(rows, groups)
        floor, client = times["floor"] / times["sluice"], times["td-client"] / times["sluice"]
        table.add_row(
            f"{rows:,}",
            str(groups),
            *(f"{rows / times[way]:,.0f}/s" for way in ("sluice", "floor", "decode", "td-client")),
            _x(floor),
            _x(client),
        )
        ratios |= {
            f"worker_vs_floor ({rows}, {groups})": floor,
            f"worker_vs_td_client ({rows}, {groups})": client,
        }
        per_row[rows, groups] = times["sluice"] / rows
    console.print(table)
    ratios["worker_growth_rows"] = per_row[200_000, 1] / per_row[20_000, 1]
    ratios["worker_growth_groups"] = per_row[20_000, 500] / per_row[20_000, 1]
    print(json.dumps({name: round(ratio, 3) for name, ratio in ratios.items()}))


def _x(ratio: float) -> str:
    return f"{ratio:.2f} ×"


if __name__ == "__main__":
    main()
