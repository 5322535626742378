"""Runs the steps of a certification, and shows its progress."""

import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import click

from ops import screen
from ops.deploy.certify.certification_report import StepReport, StepVerdict
from ops.deploy.certify.restore import handling_signals
from ops.deploy.certify.stage import DeployedStage
from ops.deploy.certify.step import CertifyStep, Impossible, Untried
from ops.failure import FORESEEN, Failure, explained, is_denied

_INTERRUPTED = "interrupted"
_STYLES = {StepVerdict.FAILED: "bold red", StepVerdict.PASSED: "green"}


def carry_out(stage: DeployedStage, steps: Sequence[CertifyStep], *, hidden: bool) -> bool:
    """Run steps on a stage, in order; return whether Ctrl-C stopped them. Everything that they broke is restored by then."""
    is_interrupted = False
    for number, step in enumerate(steps, 1):
        if is_interrupted:
            stage.reports[step.name] = StepReport(step.name, StepVerdict.NOT_TRIED, _INTERRUPTED)
            continue
        if not hidden:
            screen.note(f"{number:>2} of {len(steps)}  {step.name}: {step.proves}")
        report, is_interrupted = _report(stage, step)
        stage.reports[step.name] = report
        if not hidden:
            line = f"{report.verdict:<10} {report.step} ({report.seconds:.0f} s): {report.said}"
            screen.say(line, _STYLES.get(report.verdict, "yellow"))
    return is_interrupted


def _report(stage: DeployedStage, step: CertifyStep) -> tuple[StepReport, bool]:
    """Run a step; return what it showed, and whether Ctrl-C stopped it."""
    began, is_interrupted = stage.clock.now(), False
    evidence: Mapping[str, Any] = {}
    try:
        with _interruptible():
            found = step.on(stage)
    except Untried as reason:
        verdict, said = StepVerdict.NOT_TRIED, str(reason)
    except Impossible as reason:
        verdict, said = StepVerdict.NOT_POSSIBLE, str(reason)
    except (Failure, *FORESEEN) as error:
        said = explained(error).message
        verdict = StepVerdict.NOT_POSSIBLE if is_denied(error) else StepVerdict.FAILED
    except (KeyboardInterrupt, click.Abort):
        is_interrupted = True
        verdict, said = StepVerdict.NOT_TRIED, _INTERRUPTED
    except Exception as error:  # noqa: BLE001 -- a bug in one step must not lose the reports of the others
        said = f"unexpected {type(error).__name__}: {error}. Please report it"
        verdict = StepVerdict.FAILED
    else:
        verdict, said, evidence = StepVerdict.PASSED, found.said, found.evidence
    seconds = round(stage.clock.now() - began, 1)
    return StepReport(step.name, verdict, said, evidence, seconds), is_interrupted


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
