"""The report of a certification: a verdict for each step and each promise."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class StepVerdict(StrEnum):
    """The verdict on a step."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_POSSIBLE = "not possible here"
    NOT_TRIED = "not tried"


@dataclass(frozen=True, slots=True)
class StepReport:
    """The report of one step: one sentence, with the reason unless it passed, and numbers and ids as evidence."""

    step: str
    verdict: StepVerdict
    said: str
    evidence: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    def line(self) -> str:
        """Return it as a line of Markdown."""
        evidence = "".join(f" {name}: {_text(value)}." for name, value in self.evidence.items())
        return f"**{self.step}**: {self.verdict} ({self.seconds:.0f} s). {self.said}{evidence}"


@dataclass(frozen=True, slots=True)
class Conclusion:
    """The verdict on a promise, and the reason unless it passed.

    It is `failed` if one of its steps failed, `passed` if all passed, else `not possible here` or `not tried`, in this order.
    """

    name: str
    verdict: StepVerdict
    said: str
    steps: tuple[str, ...]

    def line(self, number: str = "") -> str:
        """Return it as a line of Markdown."""
        return f"{number}{self.name}: **{self.verdict}**{f' ({self.said})' if self.said else ''}"


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
    """Return the conclusion about a promise from steps, by their names. A step without a report was not tried."""
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
    """The report of a run on AWS or, as `where` says, at an emulator's address. Times are ISO 8601."""

    stack: str
    region: str
    where: str
    version: str
    run: str
    began: str
    ended: str
    steps: tuple[StepReport, ...]
    promises: tuple[Conclusion, ...]
    timings: Mapping[str, str]

    @property
    def failed(self) -> bool:
        """Whether a step failed."""
        return any(one.verdict is StepVerdict.FAILED for one in self.steps)

    def document(self) -> dict[str, Any]:
        """Return the report as a JSON object."""
        return {"failed": self.failed} | asdict(self)

    def markdown(self) -> str:
        """Return the report as Markdown."""
        emulated = " This run used an emulator: it tests Sluice, and confirms no assumption about AWS."
        parts = {
            "Promises": [one.line(f"{number}. ") for number, one in enumerate(self.promises, 1)],
            "Timings": [f"{name}: {value}" for name, value in self.timings.items()],
            "Steps": [one.line() for one in self.steps],
        }
        text = (
            f"# Certification of {self.stack}\n\nRun {self.run} against {self.where}, region {self.region}, with sluice {self.version}, "
            f"from {self.began} to {self.ended}.{'' if self.where == 'AWS' else emulated}\n"
        )
        for title, lines in parts.items():
            text += f"\n## {title}\n\n" + "".join(f"- {' '.join(line.split())}\n" for line in lines)
        return text


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_text(one)}" for name, one in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    return f"{value:,.2f}" if isinstance(value, float) else str(value)
