"""The tables in docs/ that follow from the code: `make docs` writes them, a test compares them.

A table stands between `<!-- NAME -->` and `<!-- end -->`.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, get_args

import ingest.journal
import worker.journal
from ingest.refusal import ANSWERS, EVENT_CODES, AnyCode, RequestCode
from shared.settings import IngestSettings, WorkerSettings
from tests.support.sam import template

ROOT = Path(__file__).parents[2]
_MARKED = re.compile(r"<!-- (?P<name>[a-z]+: \w+|[a-z]+) -->\n.*?<!-- end -->\n", re.DOTALL)


def settings_table(settings: type) -> str:
    """Return a Markdown table of a settings class."""
    rows = []
    for setting in fields(settings):
        text = "" if setting.default is MISSING else _text(setting.default)
        default = "required" if setting.default is MISSING else f"`{text}`" if text else "none"
        rows.append((f"`{setting.metadata['name']}`", default, setting.metadata["doc"]))
    return _table(("variable", "default", "meaning"), rows)


def parameters_table() -> str:
    """Return a Markdown table of the template's parameters."""
    rows = []
    for name, parameter in template()["Parameters"].items():
        default = f"`{parameter['Default']}`" if parameter["Default"] != "" else "none"
        rows.append((f"`{name}`", default, _allowed(parameter), parameter["Description"]))
    return _table(("parameter", "default", "values", "meaning"), rows)


def outputs_table() -> str:
    """Return a Markdown table of the template's outputs."""
    rows = ((f"`{name}`", output["Description"]) for name, output in template()["Outputs"].items())
    return _table(("output", "meaning"), rows)


def codes_table(codes: Iterable[AnyCode]) -> str:
    """Return a Markdown table of codes of the HTTP interface."""
    rows = ((f"`{code}`", str(ANSWERS[code].status), ANSWERS[code].meaning) for code in codes)
    return _table(("code", "status", "meaning"), rows)


def metrics_table(metrics: Mapping[str, str]) -> str:
    """Return a Markdown table of a function's metrics."""
    return _table(("metric", "counts"), ((f"`{name}`", meaning) for name, meaning in metrics.items()))


TABLES: dict[str, Callable[[], str]] = {
    "parameters": parameters_table,
    "outputs": outputs_table,
    "codes: request": lambda: codes_table(get_args(RequestCode)),
    "codes: event": lambda: codes_table(EVENT_CODES),
    "metrics: ingest": lambda: metrics_table(ingest.journal.METRICS),
    "metrics: worker": lambda: metrics_table(worker.journal.METRICS),
    "settings: IngestSettings": lambda: settings_table(IngestSettings),
    "settings: WorkerSettings": lambda: settings_table(WorkerSettings),
}


def rendered(page: str) -> str:
    """Return the page with each marked table as the code has it now."""
    return _MARKED.sub(
        lambda mark: f"<!-- {mark['name']} -->\n\n{TABLES[mark['name']]()}\n<!-- end -->\n", page
    )


def pages() -> list[Path]:
    """Return the pages that hold a marked table."""
    return [path for path in sorted((ROOT / "docs").glob("*.md")) if _MARKED.search(path.read_text())]


def _allowed(parameter: dict[str, Any]) -> str:
    if values := parameter.get("AllowedValues"):
        return ", ".join(f"`{value}`" for value in values)
    least, most = parameter.get("MinValue"), parameter.get("MaxValue")
    if least is not None:
        return f"{least} to {most}" if most is not None else f"{least} or more"
    return str(parameter.get("ConstraintDescription", ""))


def _text(value: Any) -> str:
    return ",".join(value) if isinstance(value, tuple) else str(value)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    for path in pages():
        path.write_text(rendered(path.read_text()))
