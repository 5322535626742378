"""Prints the results of a benchmark, draws its charts, and writes its section of docs/internals/performance.md.

A section is between `<!-- bench-NAME -->` and `<!-- end -->`. It is written only on request
(`make bench ONLY=NAME WRITE=1`), so that another machine's figures do not replace it by accident.
"""

import json
import os
import platform
import re
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.chart import Group, bars

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/internals/performance.md"


class Report:
    """The results of one benchmark, in the order in which they are added.

    Args:
        name: the benchmark's name: `ingest` for `make bench ONLY=ingest`.
        packages: the packages whose versions matter.
        write: write into docs/ instead of .cache/bench/.

    Attributes:
        ratios: the figures added so far, by name.
    """

    def __init__(self, name: str, packages: Iterable[str] = (), *, write: bool = False) -> None:
        self._name = name
        self._write = write
        self._console = Console(width=None if sys.stdout.isatty() else 140)
        self.ratios: dict[str, float] = {}
        versions = ", ".join(f"{package} {version(package)}" for package in packages)
        self._parts = [
            f"{datetime.now(UTC):%Y-%m-%d}, `make bench ONLY={name}`, {machine()}"
            + (f"; {versions}." if versions else ".")
        ]

    def say(self, text: str) -> None:
        """Add a paragraph."""
        self._console.print(text, markup=False, highlight=False)
        self._parts.append(text)

    def table(self, head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Add a table. The first column is text, the others are numbers."""
        shown = Table(*head)
        for column in shown.columns[1:]:
            column.justify = "right"
        lines = [head, ["---", *["---:"] * (len(head) - 1)]]
        for row in rows:
            shown.add_row(*row)
            lines.append(list(row))
        self._console.print(shown)
        self._parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))

    def chart(self, title: str, groups: Sequence[Group]) -> None:
        """Add a chart, and save it as `NAME.svg`."""
        folder = ROOT / ("docs/internals/charts" if self._write else ".cache/bench")
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self._name}.svg"
        path.write_text(bars(title, groups))
        self._console.print(f"chart: {path.relative_to(ROOT)}", highlight=False)
        self._parts.append(f"![{title}](charts/{self._name}.svg)")

    def ratio(self, name: str, value: float) -> None:
        """Add a figure to the final line of JSON."""
        self.ratios[name] = round(value, 3)

    def finish(self) -> None:
        """Write the section if requested, and print the ratios as one line of JSON."""
        if self._write:
            PAGE.write_text(with_section(PAGE.read_text(), self._name, "\n\n".join(self._parts)))
        print(json.dumps(self.ratios))


def with_section(page: str, name: str, text: str) -> str:
    """Return the page with a benchmark's section replaced.

    Raises:
        ValueError: the page does not have exactly one place for it.
    """
    marked = re.compile(rf"(<!-- bench-{re.escape(name)} -->\n).*?(<!-- end -->\n)", re.DOTALL)
    written, times = marked.subn(lambda mark: f"{mark[1]}\n{text}\n\n{mark[2]}", page)
    if times != 1:
        raise ValueError(f"the page has {times} places for bench-{name}")
    return written


def machine() -> str:
    """Describe this machine: cores, processor, system, Python."""
    processor = platform.processor() or platform.machine()
    with suppress(OSError):
        found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        processor = found[1] if found else processor
    return f"{os.cpu_count()} cores of {processor}, {platform.system()}, Python {platform.python_version()}"


def times(ratio: float) -> str:
    """Format a ratio for a table."""
    return f"{ratio:.2f} ×"
