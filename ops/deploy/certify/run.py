"""One run of a certification, kept on disk so that it can be resumed."""

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Self
from uuid import uuid4

from ops.deploy.certify.certification_report import StepReport, StepVerdict
from ops.failure import Failure


@dataclass(slots=True)
class CertifyRun:
    """A run, and the file that stores it. All its event ids begin with its name, and it began at a time in UNIX seconds.

    Reports are by step, in the order in which the steps ran; `copies` are the numbers of rows that Treasure Data
    must have, by table and event id.
    """

    file: Path
    name: str
    began: float
    reports: dict[str, StepReport] = field(default_factory=dict)
    copies: dict[str, Counter[str]] = field(default_factory=dict)
    timings: dict[str, str] = field(default_factory=dict)

    @classmethod
    def new(cls, file: Path, now: float) -> Self:
        """Return a run that begins now."""
        at = datetime.fromtimestamp(now, UTC)
        return cls(file, f"certify-{at:%Y%m%dt%H%M%S}-{uuid4().hex[:6]}", now)

    @classmethod
    def resumed(cls, file: Path) -> Self:
        """Return the last run, without the reports of steps that did not pass.

        Raises:
            Failure: there is no last run.
        """
        try:
            found = json.loads(file.read_text())
        except FileNotFoundError:
            raise Failure("there is no run to resume: start one without --resume") from None
        reports = [StepReport(**one | {"verdict": StepVerdict(one["verdict"])}) for one in found["reports"]]
        return cls(
            file,
            found["name"],
            found["began"],
            {one.step: one for one in reports if one.verdict is StepVerdict.PASSED},
            {table: Counter(counts) for table, counts in found["copies"].items()},
            found["timings"],
        )

    def accept(self, table: str, event_id: str) -> None:
        """Expect one more copy of a row."""
        self.copies.setdefault(table, Counter())[event_id] += 1

    def keep(self, report: StepReport) -> None:
        """Add a step's report, and write everything to disk."""
        self.reports[report.step] = report
        self.file.parent.mkdir(parents=True, exist_ok=True)
        found = {
            "name": self.name,
            "began": self.began,
            "reports": [asdict(one) for one in self.reports.values()],
            "copies": self.copies,
            "timings": self.timings,
        }
        scratch = self.file.with_suffix(".new")
        scratch.write_text(json.dumps(found, default=str))
        scratch.replace(self.file)
