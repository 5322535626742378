"""Carries out the steps of a certification, and shows how far it is."""

import signal
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import click

from ops import screen
from ops.certify_report import StepReport, StepVerdict
from ops.certify_run import CertifyRun
from ops.certify_stage import DeployedStage
from ops.certify_step import CertifyStep, Impossible, Untried
from ops.failure import FORESEEN, Failure, explained, is_denied
from ops.interrupt import interruptible
from shared.clock import Clock


class Certification:
    """Carries out steps, one after the other.

    Args:
        stage: to carry them out on.
        run: keeps their reports; those that it has already are not carried out again.
        steps: in their order.
        show: is told of each step's beginning and of its report.
        clock: measures how long they take.

    Attributes:
        is_interrupted: Ctrl-C has stopped it.
    """

    def __init__(
        self,
        stage: DeployedStage,
        run: CertifyRun,
        steps: Sequence[CertifyStep],
        show: "Progress",
        clock: Clock,
    ) -> None:
        self._stage = stage
        self._clock = clock
        self._run = run
        self._steps = steps
        self._show = show
        self.is_interrupted = False

    def carry_out(self, names: Collection[str]) -> None:
        """Carry out steps by their names; what they break is whole again afterwards."""
        for step in self._steps:
            if step.name not in names or step.name in self._run.reports:
                continue
            if self.is_interrupted:
                report = StepReport(step.name, StepVerdict.NOT_TRIED, "interrupted")
            else:
                self._show.begin(step)
                report = self._report(step)
                self._show.end(report)
            self._run.keep(report)

    def _report(self, step: CertifyStep) -> StepReport:
        began = self._clock.now()
        evidence: Mapping[str, Any] = {}
        try:
            with interruptible(signal.SIGTERM, signal.SIGHUP):
                found = step.run(self._stage)
        except Untried as reason:
            verdict, said = StepVerdict.NOT_TRIED, str(reason)
        except Impossible as reason:
            verdict, said = StepVerdict.NOT_POSSIBLE, str(reason)
        except (Failure, *FORESEEN) as error:
            said = explained(error).message
            verdict = StepVerdict.NOT_POSSIBLE if is_denied(error) else StepVerdict.FAILED
        except (KeyboardInterrupt, click.Abort):
            self.is_interrupted = True
            verdict, said = StepVerdict.NOT_TRIED, "interrupted"
        except Exception as error:  # noqa: BLE001 -- a bug in one step must not cost the report of the others
            verdict, said = (
                StepVerdict.FAILED,
                f"unexpected {type(error).__name__}: {error}. Please report it",
            )
        else:
            verdict, said, evidence = StepVerdict.PASSED, found.said, found.evidence
        return StepReport(step.name, verdict, said, evidence, round(self._clock.now() - began, 1))


class Progress:
    """Shows a run.

    Args:
        total: how many steps there are.
        hidden: show nothing but what is restored.
    """

    def __init__(self, total: int, *, hidden: bool) -> None:
        self._total = total
        self._hidden = hidden
        self._number = 0

    def begin(self, step: CertifyStep) -> None:
        """Say which step begins."""
        self._number += 1
        if not self._hidden:
            click.echo(f"{self._number:>2} of {self._total}  {step.name}: {step.proves}", err=True)

    def end(self, report: StepReport) -> None:
        """Say what came of it."""
        if not self._hidden:
            screen.say(
                f"{report.verdict:<10} {report.step} ({report.seconds:.0f} s): {report.said}",
                {StepVerdict.FAILED: "bold red", StepVerdict.PASSED: "green"}.get(report.verdict, "yellow"),
            )
