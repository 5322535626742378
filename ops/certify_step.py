"""One step of a certification."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ops.certify_stage import DeployedStage


class Untried(Exception):  # noqa: N818 -- not an error
    """A step is not tried; the message says why."""


class Impossible(Exception):  # noqa: N818 -- not an error
    """A step is not possible on this stage; the message says why."""


@dataclass(frozen=True, slots=True)
class StepFinding:
    """What a step found.

    Attributes:
        said: one sentence.
        evidence: numbers and ids.
    """

    said: str
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CertifyStep:
    """A step.

    Attributes:
        name: for `--only`.
        proves: what is so if it passes.
        run: carries it out.
        promises: by number, those that it speaks for.
    """

    name: str
    proves: str
    run: Callable[[DeployedStage], StepFinding]
    promises: tuple[int, ...] = ()
