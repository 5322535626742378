"""The steps that try what only AWS can confirm. An emulator does not do what they look at, so that nothing is tried there."""

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from functools import wraps
from typing import Any
from urllib.parse import quote

from ops import screen
from ops.certify_stage import TABLE, DeployedStage
from ops.certify_step import StepFinding, Untried
from ops.failure import Failure

_PERIOD = 60
_HARD_PATH = '/{}-"quoted"-\\back\\-\n-日本語-%'
_STARTED = '{ $.type = "platform.report" && $.record.metrics.initDurationMs > 0 }'
_FUNCTIONS = ("IngestFunction", "WorkerFunction", "RedriveFunction", "DrainFunction", "AdminFunction")

type _Run = Callable[[DeployedStage], StepFinding]


def _only_aws(lacks: str) -> Callable[[_Run], _Run]:
    """Try a step on AWS only.

    Args:
        lacks: what emulators do not do, as a clause.
    """

    def limited(run: _Run) -> _Run:
        @wraps(run)
        def wrapped(stage: DeployedStage) -> StepFinding:
            if stage.is_emulated:
                raise Untried(f"the emulator {lacks}")
            return run(stage)

        return wrapped

    return limited


def resources(stage: DeployedStage, kind: str) -> dict[str, str]:
    """Return the physical ids of the stack's resources of a type, by logical id."""
    pages = stage.client("cloudformation").get_paginator("list_stack_resources")
    return {
        one["LogicalResourceId"]: one["PhysicalResourceId"]
        for page in pages.paginate(StackName=stage.stack.name)
        for one in page["StackResourceSummaries"]
        if one["ResourceType"] == kind
    }


def _lines(stage: DeployedStage, group: str, pattern: str) -> Iterator[str]:
    pages = stage.client("logs").get_paginator("filter_log_events")
    found = pages.paginate(logGroupName=group, startTime=int(stage.began * 1000), filterPattern=pattern)
    return (event["message"] for page in found for event in page["events"])


def _until[Found](stage: DeployedStage, look: Callable[[], Found]) -> Found:
    """Return the first result that is not empty, or the last one when CloudWatch has had its time."""
    until = stage.clock.now() + stage.pace.metrics
    while not (found := look()) and stage.clock.now() < until:
        stage.clock.sleep(stage.pace.poll)
    return found


def _log_group(stage: DeployedStage, output: str) -> str:
    settings = stage.client("lambda").get_function_configuration(FunctionName=stage.stack.outputs[output])
    return str(settings["LoggingConfig"]["LogGroup"])


@_only_aws("closes no idle connection")
def idle(stage: DeployedStage) -> StepFinding:
    """Send nothing for minutes, then two events over connections that something on the way may have closed."""
    stage.send("before-idle")
    stage.wait_for([stage.event_id("before-idle")])
    stage.clock.sleep(stage.pace.idle)
    seconds = [stage.send(f"after-idle-{number}").seconds for number in range(2)]
    stage.wait_for([stage.event_id(f"after-idle-{number}") for number in range(2)])
    lines = [*_lines(stage, _log_group(stage, "IngestFunction"), '{ $.level = "ERROR" }')]
    if lines:
        raise Failure(
            f"the ingest logged an error after {screen.lasting(stage.pace.idle)} without traffic: {lines[0]}"
        )
    return StepFinding(
        f"After {screen.lasting(stage.pace.idle)} without traffic, events are answered and delivered.",
        {"first answer s": seconds[0], "second answer s": seconds[1]},
    )


@_only_aws("reports no initialization")
def cold_start(stage: DeployedStage) -> StepFinding:
    """Read from the functions' logs how long their instances took to start in this run."""
    found: dict[str, list[float]] = {}
    for output in _FUNCTIONS:
        group = _log_group(stage, output)
        lines = _until(stage, lambda group=group: [*_lines(stage, group, _STARTED)])  # type: ignore[misc]  # a default binds the group
        found[output] = [json.loads(line)["record"]["metrics"]["initDurationMs"] for line in lines]
    if not found["IngestFunction"]:
        raise Untried("no instance of the ingest has started in this run: run the step parameter before it")
    for output, durations in found.items():
        if durations:
            stage.timings[f"cold start, {output}"] = f"{min(durations):.0f} to {max(durations):.0f} ms"
    slowest = max(found["IngestFunction"])
    return StepFinding(f"The ingest starts in {slowest:.0f} ms at most.", {"init ms": found})


def _sums(stage: DeployedStage) -> dict[str, float]:
    """Return the sums of Sluice's own metrics since the run began, by service and name."""
    cloudwatch = stage.client("cloudwatch")
    wanted = [{"Name": "stage", "Value": stage.parameters["Stage"]}]
    pages = cloudwatch.get_paginator("list_metrics").paginate(Namespace="Sluice", Dimensions=wanted)
    metrics = [one for page in pages for one in page["Metrics"]]
    queries = [
        {"Id": f"m{number}", "MetricStat": {"Metric": one, "Period": _PERIOD, "Stat": "Sum"}}
        for number, one in enumerate(metrics)
    ]
    if not queries:
        return {}
    answer = cloudwatch.get_metric_data(
        MetricDataQueries=queries,
        StartTime=datetime.fromtimestamp(stage.began, UTC),
        EndTime=datetime.fromtimestamp(stage.clock.now() + _PERIOD, UTC),
    )
    sums = {one["Id"]: sum(one["Values"]) for one in answer["MetricDataResults"]}
    return {_named(one): sums[f"m{number}"] for number, one in enumerate(metrics) if sums.get(f"m{number}")}


def _named(metric: Mapping[str, Any]) -> str:
    dimensions = {one["Name"]: one["Value"] for one in metric["Dimensions"]}
    return f"{dimensions.get('service', '?')} {metric['MetricName']}"


@_only_aws("makes no metrics of log lines")
def metrics(stage: DeployedStage) -> StepFinding:
    """Look for metrics of the ingest and of the worker, and for the warnings that the step `key` has caused.

    Where all is well, the functions write no metrics.
    """
    if not stage.accepted.copies.get(TABLE, {}).get(stage.event_id("key")):
        raise Untried("nothing has gone wrong in this run: run the step key before it")
    refused = stage.request("POST", "/v1/events", "[]", {"x-write-key": "no.such.key"}).status
    found = _until(stage, lambda: _sums(stage))
    if not found:
        raise Failure("CloudWatch has no metric of this stage since the run began")
    group = _log_group(stage, "WorkerFunction")
    levels = {
        level: sum(1 for _ in _lines(stage, group, f'{{ $.level = "{level}" }}'))
        for level in ("INFO", "WARNING", "ERROR")
    }
    return StepFinding(
        f"{len(found)} metrics have arrived, with LogLevel={stage.parameters['LogLevel']} and with the other one.",
        {"metrics": found, "lines of the worker": levels, "a forged key got": refused},
    )


@_only_aws("writes no access log")
def access_log(stage: DeployedStage) -> StepFinding:
    """Request a path with quotes, backslashes, a line break and other scripts, and parse what is logged."""
    group = resources(stage, "AWS::Logs::LogGroup")["ApiLogs"]
    answer = stage.request("GET", quote(_HARD_PATH.format(stage.run), safe="/"))
    lines = _until(stage, lambda: [*_lines(stage, group, f'"{stage.run}"')])
    if not lines:
        raise Failure("the access log has no line of a request")
    for line in lines:
        try:
            json.loads(line)
        except ValueError as error:
            raise Failure(f"a line of the access log is not JSON: {line}") from error
    return StepFinding(
        f"{len(lines)} lines are JSON.", {"answered": answer.status, "path": json.loads(lines[-1])["path"]}
    )


@_only_aws("evaluates no alarm")
def alarms(stage: DeployedStage) -> StepFinding:
    """Ask CloudWatch for the value of each alarm's expression, and for the state of each alarm."""
    cloudwatch = stage.client("cloudwatch")
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


@_only_aws("does not move the alias by CodeDeploy")
def canary(stage: DeployedStage) -> StepFinding:
    """Look at CodeDeploy's last deployment, and at the version that the canary's alarm is about."""
    (application,) = resources(stage, "AWS::CodeDeploy::Application").values()
    codedeploy = stage.client("codedeploy")
    (group,) = codedeploy.list_deployment_groups(applicationName=application)["deploymentGroups"]
    listed = codedeploy.list_deployments(
        applicationName=application,
        deploymentGroupName=group,
        createTimeRange={"start": datetime.fromtimestamp(stage.began, UTC)},
    )["deployments"]
    if not listed:
        raise Untried("nothing was deployed in this run: run the step parameter before it")
    deployments = [codedeploy.get_deployment(deploymentId=one)["deploymentInfo"] for one in listed]
    wrong = {one["deploymentId"]: one["status"] for one in deployments if one["status"] != "Succeeded"}
    if wrong:
        raise Failure(f"deployments have not succeeded: {wrong}")
    ingest = stage.stack.outputs["IngestFunction"]
    version = stage.client("lambda").get_alias(FunctionName=ingest, Name="live")["FunctionVersion"]
    watched = resources(stage, "AWS::CloudWatch::Alarm").get("CanaryAlarm", "")
    (alarm,) = stage.client("cloudwatch").describe_alarms(AlarmNames=[watched])["MetricAlarms"]
    if f'"{version}"' not in json.dumps(alarm, default=str):
        raise Failure(f"the alias is at version {version}, and the alarm {watched} looks at another one")
    return StepFinding(
        f"{len(deployments)} deployments succeeded, and the alarm looks at version {version}.",
        {"deployments": {one["deploymentId"]: one["deploymentConfigName"] for one in deployments}},
    )
