"""The report of a certification: a verdict for each step, each promise, and each assumption that only AWS can confirm."""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

_WIDTH = 80


class StepVerdict(StrEnum):
    """The verdict on a step."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_POSSIBLE = "not possible here"
    NOT_TRIED = "not tried"


@dataclass(frozen=True, slots=True)
class StepReport:
    """The report of one step.

    Attributes:
        step: its name.
        verdict: its verdict.
        said: one sentence, with the reason unless it passed.
        evidence: numbers and ids.
        seconds: how long it took.
    """

    step: str
    verdict: StepVerdict
    said: str
    evidence: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Conclusion:
    """The verdict on a promise or an assumption.

    Attributes:
        name: its name.
        verdict: `failed` if a step failed, `passed` if all passed, else `not possible here` or `not tried`, in this order.
        said: the reason, unless it passed.
        steps: the steps that it rests on.
    """

    name: str
    verdict: StepVerdict
    said: str
    steps: tuple[str, ...]


PROMISES: Mapping[int, str] = {
    1: "A 2xx means durable",
    2: "Nothing is lost",
    3: "Nothing is duplicated",
    4: "Accounts are isolated",
    5: "Visitors never see an outage",
    6: "The books balance",
    7: "Only proof settles",
}
"""Sluice's promises, by number."""


def conclude(name: str, steps: Sequence[str], reports: Mapping[str, StepReport]) -> Conclusion:
    """Return the conclusion from steps. A step without a report was not tried.

    Args:
        name: the promise or assumption.
        steps: the names of the steps.
        reports: reports by step.
    """
    found = [reports.get(one, StepReport(one, StepVerdict.NOT_TRIED, "not selected")) for one in steps]
    order = (StepVerdict.FAILED, StepVerdict.NOT_POSSIBLE, StepVerdict.NOT_TRIED)
    for verdict in order:
        because = [f"{one.step}: {one.said}" for one in found if one.verdict is verdict]
        if because:
            return Conclusion(name, verdict, "; ".join(because), tuple(steps))
    return Conclusion(
        name, StepVerdict.PASSED if found else StepVerdict.NOT_TRIED, "" if found else "no step", tuple(steps)
    )


@dataclass(frozen=True, slots=True)
class CertificationReport:
    """The report of a run.

    Attributes:
        stack: the stack's name.
        region: its region.
        where: `AWS`, or the address of an emulator.
        version: the version of the `sluice` command.
        run: the run's id.
        began: ISO 8601.
        ended: ISO 8601.
        steps: reports of the steps, in order.
        promises: conclusions about the promises, in the order of their numbers.
        assumptions: conclusions about the assumptions.
        timings: measured times by name.
    """

    stack: str
    region: str
    where: str
    version: str
    run: str
    began: str
    ended: str
    steps: tuple[StepReport, ...]
    promises: tuple[Conclusion, ...]
    assumptions: tuple[Conclusion, ...]
    timings: Mapping[str, str]

    @property
    def failed(self) -> bool:
        """Whether a step failed."""
        return any(one.verdict is StepVerdict.FAILED for one in self.steps)

    def document(self) -> dict[str, Any]:
        """Return the report as a JSON object."""
        return {"failed": self.failed} | asdict(self)

    def markdown(self) -> str:
        """Return the report as Markdown, wrapped at 80 columns except for longer ids."""
        head = [
            f"# Certification of {self.stack}",
            "",
            *_wrapped(
                f"Run {self.run} against {self.where}, region {self.region}, with sluice {self.version}, "
                f"from {self.began} to {self.ended}."
            ),
        ]
        if self.where != "AWS":
            said = "This run used an emulator. It tests Sluice, not AWS, and does not confirm any assumption about AWS."
            head += ["", *_wrapped(said)]
        parts = [
            head,
            _part("Promises", ("#", "promise", "verdict"), _numbered(self.promises), self.promises),
            _part("Assumptions", ("assumption", "verdict"), _plain(self.assumptions), self.assumptions),
            ["## Timings", "", *_table(("measured", "value"), list(self.timings.items()))],
            ["## Steps", "", *_steps(self.steps)],
        ]
        return "\n\n".join("\n".join(part) for part in parts) + "\n"


def _numbered(conclusions: Iterable[Conclusion]) -> list[tuple[str, ...]]:
    return [(str(number), one.name, one.verdict) for number, one in enumerate(conclusions, 1)]


def _plain(conclusions: Iterable[Conclusion]) -> list[tuple[str, ...]]:
    return [(one.name, one.verdict) for one in conclusions]


def _part(
    title: str, columns: tuple[str, ...], rows: list[tuple[str, ...]], found: Iterable[Conclusion]
) -> list[str]:
    lines = [f"## {title}", "", *_table(columns, rows)]
    reasons = [line for one in found if one.said for line in _item(f"{one.name}: {one.said}")]
    return [*lines, *(["", *reasons] if reasons else [])]


def _steps(steps: Iterable[StepReport]) -> list[str]:
    lines: list[str] = []
    for one in steps:
        lines += _item(f"**{one.step}**: {one.verdict} ({one.seconds:.0f} s). {one.said}")
        for name, value in one.evidence.items():
            lines += _item(f"{name}: {_text(value)}", indent="  ")
    return lines


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_text(one)}" for name, one in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    return f"{value:,.2f}" if isinstance(value, float) else str(value)


def _item(text: str, indent: str = "") -> list[str]:
    return _wrapped(" ".join(text.split()), first=f"{indent}- ", rest=f"{indent}  ")


def _wrapped(text: str, first: str = "", rest: str = "") -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _table(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[at]) for row in (columns, *rows)) for at in range(len(columns))]

    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))} |"

    return [line(columns), line(["-" * width for width in widths]), *map(line, rows)]
