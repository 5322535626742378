"""Certification steps that only AWS can carry out, and the checks of a removal: botocore validates every call."""

import json
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


def resource(logical_id: str, kind: str) -> dict[str, Any]:
    """Return a stack's resource as CloudFormation lists it."""
    ids = {"LogicalResourceId": logical_id, "PhysicalResourceId": f"its-{logical_id}"}
    return ids | {"ResourceType": kind, "ResourceStatus": "CREATE_COMPLETE"}


def test_steps_that_need_aws_are_not_tried_in_an_emulator() -> None:
    """Each says what the emulator does not do."""
    stage = Rehearsal()
    stage.is_emulated = True
    only_aws = [one for one in STEPS if one.lacks]

    assert ["idle", "metrics", "access-log", "alarms", "canary"] == [one.name for one in only_aws]
    for one in only_aws:
        with pytest.raises(Untried, match=f"the emulator {one.lacks}"):
            one.on(stage)


ALARM = {
    "AlarmName": "sluice-dev-lag-page",
    "StateValue": "OK",
    "Metrics": [{"Id": "percent", "Expression": "age / 36000", "ReturnData": True}],
}


def test_alarms_that_cloudwatch_evaluates_pass() -> None:
    """Each expression has a value, and each alarm has a state."""
    found = carried_out(
        assumptions.alarms,
        {
            "DescribeAlarms": {"MetricAlarms": [ALARM]},
            "GetMetricData": {
                "MetricDataResults": [{"Id": "percent", "StatusCode": "Complete"}],
                "Messages": [],
            },
        },
    )

    assert {"lag-page": "OK"} == found.evidence["states"]


@pytest.mark.parametrize(
    "answer",
    [
        {"MetricDataResults": [{"Id": "percent", "StatusCode": "InternalError"}]},
        {"MetricDataResults": [], "Messages": [{"Code": "ValidationError", "Value": "no such function"}]},
    ],
)
def test_an_expression_that_cloudwatch_rejects_is_named(answer: dict[str, Any]) -> None:
    """An alarm on such an expression would never fire."""
    with pytest.raises(Failure, match=r"cannot evaluate.*lag-page"):
        carried_out(
            assumptions.alarms, {"DescribeAlarms": {"MetricAlarms": [ALARM]}, "GetMetricData": answer}
        )


def test_a_stage_without_alarms_fails() -> None:
    """Every stage has alarms."""
    with pytest.raises(Failure, match="no alarm"):
        carried_out(assumptions.alarms, {"DescribeAlarms": {"MetricAlarms": []}})


def canary_answers(version: str, status: str = "Succeeded") -> dict[str, Any]:
    """Return the answers about a deployment, with an alarm that watches version 7."""
    dimensions = [{"Name": "ExecutedVersion", "Value": "7"}]
    return {
        "ListStackResources": {
            "StackResourceSummaries": [
                resource("ServerlessDeploymentApplication", "AWS::CodeDeploy::Application"),
                resource("CanaryAlarm", "AWS::CloudWatch::Alarm"),
            ]
        },
        "ListDeploymentGroups": {"deploymentGroups": ["group"]},
        "ListDeployments": {"deployments": ["d-1"]},
        "GetDeployment": {
            "deploymentInfo": {
                "deploymentId": "d-1",
                "status": status,
                "deploymentConfigName": "CodeDeployDefault.LambdaAllAtOnce",
            }
        },
        "GetAlias": {"FunctionVersion": version},
        "DescribeAlarms": {"MetricAlarms": [{"AlarmName": "its-CanaryAlarm", "Dimensions": dimensions}]},
    }


def test_a_canary_that_watches_the_new_version_passes() -> None:
    """The deployments must have succeeded, too."""
    found = carried_out(assumptions.canary, canary_answers("7"))

    assert {"d-1": "CodeDeployDefault.LambdaAllAtOnce"} == found.evidence["deployments"]


def test_a_canary_that_watches_another_version_fails() -> None:
    """It would roll back a good version because of an old one."""
    with pytest.raises(Failure, match="at version 8"):
        carried_out(assumptions.canary, canary_answers("8"))


def test_a_stopped_deployment_fails() -> None:
    """The message names its status."""
    with pytest.raises(Failure, match="Stopped"):
        carried_out(assumptions.canary, canary_answers("7", "Stopped"))


def log_lines(*messages: str) -> dict[str, Any]:
    """Return the answers about the access log."""
    logs = resource("AccessLogs", "AWS::Logs::LogGroup")
    return {
        **DEPLOYED,
        "ListStackResources": {"StackResourceSummaries": [logs]},
        "FilterLogEvents": {"events": [{"message": one} for one in messages]},
    }


def test_an_access_log_of_json_passes() -> None:
    """The step switches the log on, and off again afterwards."""
    stage = Rehearsal(client=Modelled(log_lines(json.dumps({"path": '/certify-1-"quoted"'}))))
    found = assumptions.access_log(stage)

    assert '/certify-1-"quoted"' == found.evidence["path"]
    assert [{"kind": "parameter", "name": "AccessLog", "value": "off"}] == stage.broken


def test_an_access_log_with_a_broken_line_fails() -> None:
    """An unescaped quote breaks a line."""
    with pytest.raises(Failure, match="not JSON"):
        carried_out(assumptions.access_log, log_lines('{"path": "/certify-1-"quoted""}'))


def counted(*sums: float) -> dict[str, Any]:
    """Return the answers about metrics, in order."""
    answers = [{"Datapoints": [{"Sum": one}] if one else []} for one in sums]
    return {**DEPLOYED, **LOGGED, "GetMetricStatistics": answers, "FilterLogEvents": {"events": []}}


def test_metrics_that_arrive_at_each_log_level_pass() -> None:
    """They may arrive late."""
    found = carried_out(assumptions.metrics, counted(0, 1, 0, 2))

    assert {"INFO": 1.0, "WARN": 2.0} == found.evidence["EventsRejected"]


def test_metrics_that_a_log_level_drops_fail() -> None:
    """Alarms on them would stay green."""
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
