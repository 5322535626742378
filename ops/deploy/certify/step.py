"""One step of a certification."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ops.deploy.certify.stage import DeployedStage


class Untried(Exception):  # noqa: N818 -- not an error
    """A step was not tried; the message says why."""


class Impossible(Exception):  # noqa: N818 -- not an error
    """A step is not possible on this stage; the message says why."""


@dataclass(frozen=True, slots=True)
class StepFinding:
    """The finding of a step that passed: one sentence, and numbers and ids as evidence."""

    said: str
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CertifyStep:
    """A step: its name for `--only`, the claim that it proves, and the numbers of the promises that it supports.

    If only AWS can be tested, `lacks` says what emulators do not do, as the rest of a sentence.
    """

    name: str
    proves: str
    run: Callable[[DeployedStage], StepFinding]
    promises: tuple[int, ...] = ()
    lacks: str = ""

    def on(self, stage: DeployedStage) -> StepFinding:
        """Run it on a stage, and return its finding. It raises Failure if the claim is false.

        Raises:
            Untried, Impossible: the claim cannot be tested.
        """
        if self.lacks and stage.is_emulated:
            raise Untried(f"the emulator {self.lacks}")
        return self.run(stage)
