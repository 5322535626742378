"""Runs the steps of a certification, and shows its progress."""

import signal
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass
from typing import Any

import click

from ops import screen
from ops.deploy.certify.certification_report import StepReport, StepVerdict
from ops.deploy.certify.restore import handling_signals
from ops.deploy.certify.stage import DeployedStage
from ops.deploy.certify.step import CertifyStep, Impossible, Untried
from ops.failure import FORESEEN, Failure, explained, is_denied

_STYLES = {StepVerdict.FAILED: "bold red", StepVerdict.PASSED: "green"}


@dataclass
class Certification:
    """Runs steps on a stage, in order. After Ctrl-C it `is_interrupted`."""

    stage: DeployedStage
    steps: Sequence[CertifyStep]
    _: KW_ONLY
    hidden: bool
    is_interrupted: bool = False

    def carry_out(self, names: Collection[str]) -> None:
        """Run the steps with these names. Afterwards, everything that they broke is restored."""
        chosen = [step for step in self.steps if step.name in names]
        for number, step in enumerate(chosen, 1):
            if self.is_interrupted:
                self.stage.run.reports[step.name] = StepReport(
                    step.name, StepVerdict.NOT_TRIED, "interrupted"
                )
                continue
            if not self.hidden:
                click.echo(f"{number:>2} of {len(chosen)}  {step.name}: {step.proves}", err=True)
            self.keep(self._report(step))

    def keep(self, report: StepReport) -> None:
        """Store a report, and show it."""
        self.stage.run.reports[report.step] = report
        if not self.hidden:
            line = f"{report.verdict:<10} {report.step} ({report.seconds:.0f} s): {report.said}"
            screen.say(line, _STYLES.get(report.verdict, "yellow"))

    def _report(self, step: CertifyStep) -> StepReport:
        clock = self.stage.clock
        began = clock.now()
        evidence: Mapping[str, Any] = {}
        try:
            with _interruptible():
                found = step.on(self.stage)
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
            said = f"unexpected {type(error).__name__}: {error}. Please report it"
            verdict = StepVerdict.FAILED
        else:
            verdict, said, evidence = StepVerdict.PASSED, found.said, found.evidence
        return StepReport(step.name, verdict, said, evidence, round(clock.now() - began, 1))


@contextmanager
def _interruptible() -> Iterator[None]:
    """Make SIGTERM and SIGHUP interrupt the block as Ctrl-C does, which may itself be ignored by a shell's doing.

    Python drops an exception that a handler raises within a callback of native code. The block then ends with it.
    """
    heard: list[signal.Signals] = []

    def interrupt() -> None:
        heard.append(signal.SIGINT)
        raise KeyboardInterrupt

    with handling_signals(interrupt):
        try:
            yield
        except Exception:
            if heard:
                raise KeyboardInterrupt from None
            raise
    if heard:
        raise KeyboardInterrupt
