"""Certification steps that only AWS can carry out, and the checks of a removal: botocore validates every call."""

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from ops.deploy.certify import assumption_steps as assumptions
from ops.deploy.certify.step import Untried
from ops.deploy.certify.steps import STEPS
from ops.deploy.removal import LOOKS
from ops.failure import Failure
from tests.support.modelled import DEPLOYED, Modelled
from tests.support.rehearsal import Rehearsal


def carried_out(step: Callable[[Any], Any], answers: Mapping[str, Any]) -> Any:
    """Carry out a step on AWS."""
    return step(Rehearsal(client=Modelled(answers)))


LOGGED = {"GetFunctionConfiguration": {"LoggingConfig": {"LogGroup": "sluice-dev-Logs"}}}


def test_steps_that_need_aws_are_not_tried_in_an_emulator() -> None:
    """Each says what the emulator does not do."""
    stage = Rehearsal()
    stage.is_emulated = True
    only_aws = [one for one in STEPS if one.lacks]

    assert ["idle", "metrics"] == [one.name for one in only_aws]
    for one in only_aws:
        with pytest.raises(Untried, match=f"the emulator {one.lacks}"):
            one.on(stage)


def counted(*sums: float) -> dict[str, Any]:
    """Return the answers about metrics, in order."""
    answers = [{"Datapoints": [{"Sum": one}] if one else []} for one in sums]
    return {**DEPLOYED, **LOGGED, "GetMetricStatistics": answers, "FilterLogEvents": {"events": []}}


def test_metrics_must_arrive_at_each_log_level() -> None:
    """They may arrive late. If a level drops them, alarms on them would stay green."""
    found = carried_out(assumptions.metrics, counted(0, 1, 0, 2))

    assert {"INFO": 1.0, "WARN": 2.0} == found.evidence["EventsRejected"]
    with pytest.raises(Failure, match="LogLevel=WARN"):
        carried_out(assumptions.metrics, counted(1, 0))


def test_an_error_after_idle_minutes_fails() -> None:
    """A connection that was closed while idle has cost an event its first attempt."""
    broken = {**LOGGED, "FilterLogEvents": {"events": [{"message": "connection reset"}]}}
    with pytest.raises(Failure, match="connection reset"):
        carried_out(assumptions.idle, broken)
    carried_out(assumptions.idle, {**LOGGED, "FilterLogEvents": {"events": []}})


@pytest.mark.parametrize("kind", LOOKS)
def test_the_checks_of_a_removal_make_valid_calls(kind: str) -> None:
    """A resource that is not found counts as gone."""
    listed = {
        "DescribeAlarms": {"MetricAlarms": [], "CompositeAlarms": []},
        "DescribeLogGroups": {"logGroups": []},
    }
    stack: Any = SimpleNamespace(client=Modelled(listed))

    assert LOOKS[kind](stack, "0f5e1c4a-0000-4000-8000-000000000000") is False
