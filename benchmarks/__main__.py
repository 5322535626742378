"""Run benchmarks by name, or all of them. Each prints its ratios as a line of JSON; several also print one line together."""

import argparse
import importlib
import json
from collections.abc import Sequence

from benchmarks.report import Report

BENCHMARKS = {
    "ingest": ("boto3", "aws-lambda-powertools", "td-client", "msgpack", "orjson"),
    "coldstart": ("boto3", "aws-lambda-powertools"),
    "worker": ("isal", "msgpack", "td-client"),
    "pipeline": (),
    "forget": ("isal", "msgpack"),
    "scaling": (),
    "client": (),
    "losses": (),
}
"""The packages whose versions matter, by benchmark. Each benchmark is a module of this package with a function `run`."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and run the benchmarks."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(BENCHMARKS)}")
    parser.add_argument("--write", action="store_true", help="write the results and charts into docs/")
    options = parser.parse_args(arguments)
    if unknown := set(options.names) - set(BENCHMARKS):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    ratios: dict[str, float] = {}
    names = options.names or list(BENCHMARKS)
    for name in names:
        report = Report(name, BENCHMARKS[name], write=options.write)
        importlib.import_module(f"benchmarks.{name}").run(report)
        report.finish()
        ratios |= report.ratios
    if len(names) > 1:
        print(json.dumps(ratios))


if __name__ == "__main__":
    main()
