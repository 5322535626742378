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
    """The finding of a step that passed.

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
        name: its name, for `--only`.
        proves: the claim that it tests.
        run: runs it.
        promises: the numbers of the promises that it supports.
    """

    name: str
    proves: str
    run: Callable[[DeployedStage], StepFinding]
    promises: tuple[int, ...] = ()
