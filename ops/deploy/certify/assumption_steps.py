"""The steps that test what only AWS can confirm. They are not tried on an emulator, which lacks the behaviour in question."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from urllib.parse import quote

from ops import screen
from ops.deploy.certify.stage import DeployedStage
from ops.deploy.certify.step import StepFinding, Untried
from ops.deploy.certify.trouble import deployed_with
from ops.deploy.removal import resources_of
from ops.failure import Failure

_PERIOD = 60
_HARD_PATH = '/{}-"quoted"-\\back\\-\n-日本語-%'


def resources(stage: DeployedStage, kind: str) -> dict[str, str]:
    """Return the physical ids of the stack's resources of a type, by logical id."""
    return {one.logical_id: one.physical_id for one in resources_of(stage.stack) if one.kind == kind}


def _lines(stage: DeployedStage, group: str, pattern: str) -> Iterator[str]:
    pages = stage.stack.client("logs").get_paginator("filter_log_events")
    found = pages.paginate(logGroupName=group, startTime=int(stage.run.began * 1000), filterPattern=pattern)
    return (event["message"] for page in found for event in page["events"])


def _log_group(stage: DeployedStage, output: str) -> str:
    settings = stage.stack.client("lambda").get_function_configuration(
        FunctionName=stage.stack.outputs[output]
    )
    return str(settings["LoggingConfig"]["LogGroup"])


def idle(stage: DeployedStage) -> StepFinding:
    """Send nothing for minutes, then two events over connections that may have been closed on the way."""
    stage.send("before-idle")
    stage.wait_for([stage.event_id("before-idle")])
    stage.clock.sleep(stage.pace.idle)
    seconds = [stage.send(f"after-idle-{number}").seconds for number in range(2)]
    stage.wait_for([stage.event_id(f"after-idle-{number}") for number in range(2)])
    pattern = '{ $.level = "ERROR" && $.service = "ingest" }'
    lines = [*_lines(stage, _log_group(stage, "IngestFunction"), pattern)]
    if lines:
        raise Failure(
            f"the ingest logged an error after {screen.lasting(stage.pace.idle)} without traffic: {lines[0]}"
        )
    return StepFinding(
        f"After {screen.lasting(stage.pace.idle)} without traffic, events are answered and delivered.",
        {"first answer s": seconds[0], "second answer s": seconds[1]},
    )


def _sum(stage: DeployedStage, metric: str, since: float) -> float:
    """Return the sum of one of Sluice's metrics, without dimensions, since a time."""
    answer = stage.stack.client("cloudwatch").get_metric_statistics(
        Namespace=stage.stack.name,
        MetricName=metric,
        StartTime=datetime.fromtimestamp(since - _PERIOD, UTC),
        EndTime=datetime.fromtimestamp(stage.clock.now() + _PERIOD, UTC),
        Period=_PERIOD,
        Statistics=["Sum"],
    )
    return float(sum(one["Sum"] for one in answer["Datapoints"]))


def metrics(stage: DeployedStage) -> StepFinding:
    """Make the ingest reject an event under each LogLevel, and look for the metric and the worker's log lines."""
    counted = {}
    level = stage.stack.parameters["LogLevel"]
    for name in (level, "WARN" if level == "INFO" else "INFO"):
        if name == level:
            counted[name] = _rejection(stage)
        else:
            with deployed_with(stage, "LogLevel", name):
                counted[name] = _rejection(stage)
    lost = [name for name, count in counted.items() if not count]
    if lost:
        raise Failure(f"CloudWatch did not count a rejected event under LogLevel={lost[0]}")
    group = _log_group(stage, "WorkerFunction")
    levels = {
        name: sum(1 for _ in _lines(stage, group, f'{{ $.level = "{name}" }}'))
        for name in ("INFO", "WARNING")
    }
    return StepFinding(
        f"CloudWatch counted rejected events under LogLevel={' and '.join(counted)}.",
        {"EventsRejected": counted, "lines by level": levels},
    )


def _rejection(stage: DeployedStage) -> float:
    """Send an event without a table, which the ingest rejects; return how many CloudWatch has counted since."""
    began = stage.clock.now()
    stage.api.request("POST", "/v1/events", '[{"n": 1}]', {"x-write-key": stage.key})
    return stage.until(lambda: _sum(stage, "EventsRejected", began), seconds=stage.pace.metrics)


def access_log(stage: DeployedStage) -> StepFinding:
    """Request a path with quotes, backslashes, a line break and non-Latin characters, and parse its lines in the log."""
    if stage.stack.parameters["AccessLog"] == "on":
        return _access_log(stage)
    with deployed_with(stage, "AccessLog", "on"):
        return _access_log(stage)


def _access_log(stage: DeployedStage) -> StepFinding:
    group = resources(stage, "AWS::Logs::LogGroup")["AccessLogs"]
    answer = stage.api.request("GET", quote(_HARD_PATH.format(stage.run.name), safe="/"))
    lines = stage.until(lambda: [*_lines(stage, group, f'"{stage.run.name}"')], seconds=stage.pace.metrics)
    if not lines:
        raise Failure("the access log has no line for the request")
    for line in lines:
        try:
            json.loads(line)
        except ValueError as error:
            raise Failure(f"a line of the access log is not JSON: {line}") from error
    return StepFinding(
        f"{len(lines)} lines are JSON.", {"answered": answer.status, "path": json.loads(lines[-1])["path"]}
    )


def alarms(stage: DeployedStage) -> StepFinding:
    """Get the value of each alarm's expression, and the state of each alarm, from CloudWatch."""
    cloudwatch = stage.stack.client("cloudwatch")
    pages = cloudwatch.get_paginator("describe_alarms").paginate(AlarmNamePrefix=f"{stage.stack.name}-")
    found = [alarm for page in pages for alarm in page["MetricAlarms"]]
    if not found:
        raise Failure(f"there is no alarm whose name begins with {stage.stack.name}-")
    wrong, states = {}, {}
    for alarm in found:
        name = alarm["AlarmName"].removeprefix(f"{stage.stack.name}-")
        states[name] = alarm["StateValue"]
        if not alarm.get("Metrics"):
            continue
        answer = cloudwatch.get_metric_data(
            MetricDataQueries=alarm["Metrics"],
            StartTime=datetime.fromtimestamp(stage.clock.now() - 3600, UTC),
            EndTime=datetime.fromtimestamp(stage.clock.now(), UTC),
        )
        said = [*answer.get("Messages", ())]
        for one in answer["MetricDataResults"]:
            said += one.get("Messages", ())
            if one["StatusCode"] not in ("Complete", "PartialData"):
                said.append({"Code": one["StatusCode"]})
        if said:
            wrong[name] = json.dumps(said)
    if wrong:
        raise Failure(f"CloudWatch cannot evaluate {wrong}")
    missing = [name for name, state in states.items() if state == "INSUFFICIENT_DATA"]
    return StepFinding(
        f"{len(found)} alarms; {len(missing)} have no data yet.", {"states": states, "no data": missing}
    )


def canary(stage: DeployedStage) -> StepFinding:
    """Check CodeDeploy's deployments in this run, and the version that the canary's alarm watches."""
    (application,) = resources(stage, "AWS::CodeDeploy::Application").values()
    codedeploy = stage.stack.client("codedeploy")
    (group,) = codedeploy.list_deployment_groups(applicationName=application)["deploymentGroups"]
    listed = codedeploy.list_deployments(
        applicationName=application,
        deploymentGroupName=group,
        createTimeRange={"start": datetime.fromtimestamp(stage.run.began, UTC)},
    )["deployments"]
    if not listed:
        raise Untried("nothing was deployed in this run: run the step `parameter` first")
    deployments = [codedeploy.get_deployment(deploymentId=one)["deploymentInfo"] for one in listed]
    wrong = {one["deploymentId"]: one["status"] for one in deployments if one["status"] != "Succeeded"}
    if wrong:
        raise Failure(f"deployments did not succeed: {wrong}")
    ingest = stage.stack.outputs["IngestFunction"]
    version = stage.stack.client("lambda").get_alias(FunctionName=ingest, Name="live")["FunctionVersion"]
    watched = resources(stage, "AWS::CloudWatch::Alarm").get("CanaryAlarm", "")
    (alarm,) = stage.stack.client("cloudwatch").describe_alarms(AlarmNames=[watched])["MetricAlarms"]
    if f'"{version}"' not in json.dumps(alarm, default=str):
        raise Failure(f"the alias is at version {version}, but the alarm {watched} watches another one")
    return StepFinding(
        f"{len(deployments)} deployments succeeded, and the alarm watches version {version}.",
        {"deployments": {one["deploymentId"]: one["deploymentConfigName"] for one in deployments}},
    )
