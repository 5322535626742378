"""The steps that test what only AWS can confirm. They are not tried on an emulator, which lacks the behaviour in question."""

from collections.abc import Iterator
from datetime import UTC, datetime

from ops import screen
from ops.deploy.certify.stage import DeployedStage
from ops.deploy.certify.step import StepFinding
from ops.deploy.certify.trouble import deployed_with
from ops.failure import Failure
from ops.logs.log_line import group_of

_PERIOD = 60


def _lines(stage: DeployedStage, group: str, pattern: str) -> Iterator[str]:
    pages = stage.stack.client("logs").get_paginator("filter_log_events")
    found = pages.paginate(logGroupName=group, startTime=int(stage.began * 1000), filterPattern=pattern)
    return (event["message"] for page in found for event in page["events"])


def _log_group(stage: DeployedStage, output: str) -> str:
    return group_of(stage.stack.client("lambda"), stage.stack.outputs[output])


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
