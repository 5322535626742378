"""One run of a certification."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Self
from uuid import uuid4

from ops.deploy.certify.certification_report import StepReport


@dataclass(slots=True)
class CertifyRun:
    """A run. All its event ids begin with its name, and it began at a time in UNIX seconds.

    Reports are by step, in the order in which the steps ran; `copies` are the numbers of rows that Treasure Data
    must have, by table and event id.
    """

    name: str
    began: float
    reports: dict[str, StepReport] = field(default_factory=dict)
    copies: dict[str, Counter[str]] = field(default_factory=dict)
    timings: dict[str, str] = field(default_factory=dict)

    @classmethod
    def new(cls, now: float) -> Self:
        """Return a run that begins now."""
        at = datetime.fromtimestamp(now, UTC)
        return cls(f"certify-{at:%Y%m%dt%H%M%S}-{uuid4().hex[:6]}", now)

    def accept(self, table: str, event_id: str) -> None:
        """Expect one more copy of a row."""
        self.copies.setdefault(table, Counter())[event_id] += 1
