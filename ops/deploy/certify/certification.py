"""Runs the steps of a certification, and shows its progress."""

import signal
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import current_thread, main_thread
from types import FrameType
from typing import Any

import click

from ops import screen
from ops.deploy.certify.certification_report import StepReport, StepVerdict
from ops.deploy.certify.run import CertifyRun
from ops.deploy.certify.stage import DeployedStage
from ops.deploy.certify.step import CertifyStep, Impossible, Untried
from ops.failure import FORESEEN, Failure, explained, is_denied
from shared.clock import Clock


class Certification:
    """Runs steps, one after the other.

    Args:
        stage: the stage to run them on.
        run: stores their reports. Steps that already have one are skipped.
        steps: all steps, in order.
        show: shows the start and the report of each step.
        clock: measures how long they take.

    Attributes:
        is_interrupted: whether Ctrl-C has stopped it.
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
        """Run the steps with these names. Afterwards, everything that they broke is restored."""
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
            with _interrupted_by(signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
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
        except Exception as error:  # noqa: BLE001 -- a bug in one step must not lose the reports of the others
            verdict, said = (
                StepVerdict.FAILED,
                f"unexpected {type(error).__name__}: {error}. Please report it",
            )
        else:
            verdict, said, evidence = StepVerdict.PASSED, found.said, found.evidence
        return StepReport(step.name, verdict, said, evidence, round(self._clock.now() - began, 1))


class Progress:
    """Shows a run's progress.

    Args:
        total: number of steps.
        hidden: show nothing.
    """

    def __init__(self, total: int, *, hidden: bool) -> None:
        self._total = total
        self._hidden = hidden
        self._number = 0

    def begin(self, step: CertifyStep) -> None:
        """Show that a step begins."""
        self._number += 1
        if not self._hidden:
            click.echo(f"{self._number:>2} of {self._total}  {step.name}: {step.proves}", err=True)

    def end(self, report: StepReport) -> None:
        """Show a step's report."""
        if not self._hidden:
            screen.say(
                f"{report.verdict:<10} {report.step} ({report.seconds:.0f} s): {report.said}",
                {StepVerdict.FAILED: "bold red", StepVerdict.PASSED: "green"}.get(report.verdict, "yellow"),
            )


@contextmanager
def _interrupted_by(*signals: signal.Signals) -> Iterator[None]:
    """Make these signals interrupt the block as Ctrl-C does, even where a shell has made the command ignore that.

    Python drops an exception that a handler raises within a callback of native code. The block then ends with it.
    """
    heard: list[int] = []
    before: dict[signal.Signals, Any] = {}

    def interrupt(number: int, _frame: FrameType | None) -> None:
        heard.append(number)
        raise KeyboardInterrupt

    if current_thread() is main_thread():
        before = {number: signal.signal(number, interrupt) for number in signals}
    try:
        yield
    except Exception:
        if heard:
            raise KeyboardInterrupt from None
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if heard:
        raise KeyboardInterrupt
