"""Alarms, and the commands that they recommend."""

import re
import shlex
from collections.abc import Iterator
from typing import Any

import click
import pytest

from ops import cli
from ops.cost.estimate import Setup
from shared.telemetry import ATTENTION, METRICS, NOT_READY, OLDEST
from tests.support.ingest import Site
from tests.support.modes import Mode
from tests.support.sam import properties, resources, template

ALARMS = {name: one["Properties"] for name, one in resources("AWS::CloudWatch::Alarm").items()}
THROTTLES = "StreamThrottlesAlarm"
"""With an AUTO stream this alarm invokes a function; it notifies nobody."""
CANARY = "CanaryAlarm"
"""This alarm watches one version of the ingest, and only CodeDeploy uses it."""
RUNS = "NotRunningAlarm"
"""This alarm is raised by what is missing."""
STACK = {"Ref": "AWS::StackName"}
"""The namespace of Sluice's own metrics."""
OF_AWS = {
    "AWS/Lambda": {"Errors", "Invocations", "IteratorAge", "OnFailureDestinationDeliveredEventCount"},
    "AWS/Kinesis": {"IncomingRecords", "WriteProvisionedThroughputExceeded"},
    "AWS/SQS": {"ApproximateAgeOfOldestMessage", "NumberOfMessagesSent", "SentMessageSize"},
    "AWS/ApiGateway": {"Count", "4xx", "5xx", "Latency"},
}
TOPIC = {"Ref": "AlarmTopic"}
TOPIC_ARN = "arn:aws:sns:us-east-1:123456789012:ours"
of_each = pytest.mark.parametrize("name", ALARMS)


def _queries(alarm: dict[str, Any]) -> list[dict[str, Any]]:
    """Return an alarm's metrics and expressions, in a stack with all optional resources."""
    return [one["Fn::If"][1] if "Fn::If" in one else one for one in alarm.get("Metrics", ())]


def _metrics(alarm: dict[str, Any]) -> Iterator[tuple[Any, str, dict[str, Any]]]:
    """Yield namespace, name and dimensions of each metric that an alarm uses."""
    looked = [one["MetricStat"]["Metric"] for one in _queries(alarm) if "MetricStat" in one] or [alarm]
    for one in looked:
        dimensions = {dimension["Name"]: dimension["Value"] for dimension in one.get("Dimensions", ())}
        yield one["Namespace"], one["MetricName"], dimensions


def _text(found: Any) -> str:
    """Return a text with or without `Fn::Sub`."""
    return str(found["Fn::Sub"] if isinstance(found, dict) else found)


def _expression(alarm: dict[str, Any]) -> str:
    (found,) = (one["Expression"] for one in _queries(alarm) if "Expression" in one)
    return re.sub(r"\$\{\w+\}", "", _text(found))


def test_few_metrics_are_paid_for() -> None:
    """AWS charges for each metric that an alarm reads, as docs/costs.md counts them, and for each that Sluice sends."""
    assert Setup().alarms == sum(len(list(_metrics(alarm))) for alarm in ALARMS.values())
    assert len(METRICS) <= 6


@of_each
def test_an_alarm_uses_existing_metrics(name: str) -> None:
    """Sluice's metrics are in the stack's namespace; AWS's belong to the stack's resources."""
    for namespace, metric, dimensions in _metrics(ALARMS[name]):
        if namespace == STACK:
            assert metric in METRICS
            assert dimensions.keys() == ({"version"} if name == CANARY else set())
        else:
            assert metric in OF_AWS[namespace]


@pytest.mark.parametrize("name", [name for name, alarm in ALARMS.items() if _queries(alarm)])
def test_an_expression_has_a_value_whichever_metric_has_data(name: str) -> None:
    """It fills each, also in the newest period, before its data has arrived: so such an alarm evaluates one period more."""
    alarm, expression = ALARMS[name], _expression(ALARMS[name])
    read = {one["Id"] for one in _queries(alarm) if "MetricStat" in one}
    filled = re.sub(r"FILL\([^()]+(\(\))?, (0|-1|REPEAT)\)", "", expression)

    assert read == {one["Id"] for one in _queries(alarm) if one.get("ReturnData") is False}
    assert expression == "SUM(FILL(METRICS(), 0))" or read == set(re.findall(r"\b[a-z]+\b", expression))
    if len(read) > 1:
        assert set(re.findall(r"\b[a-z]+\b|METRICS", filled)) <= {"requests"}  # the divisor of a fraction
        assert alarm["EvaluationPeriods"] == (4 if name == RUNS else alarm["DatapointsToAlarm"] + 1)


@of_each
def test_an_alarm_says_what_to_run(name: str) -> None:
    """Its description has a command with the stack and the region, and the `sluice` commands exist."""
    said = _text(ALARMS[name]["AlarmDescription"])
    commands = [shlex.split(command) for command in re.findall(r"`([^`]+)`", said)]

    assert commands
    assert len(said) < 1024
    for command in commands:
        if command[0] == "sluice":
            assert ["--stack", "${AWS::StackName}", "--region", "${AWS::Region}"] == command[-4:]
            assert _is_command(cli.main, command[1:-4]), command


def _is_command(group: click.Command, words: list[str]) -> bool:
    if not isinstance(group, click.Group):
        return len(words) <= len(group.params)
    return bool(words) and words[0] in group.commands and _is_command(group.commands[words[0]], words[1:])


@of_each
def test_missing_data_is_not_an_alarm(name: str) -> None:
    """A stack without traffic is healthy, unless its schedule has stopped. A lag or a wait lasts until a function reports its end."""
    lasting = ("LagWarnAlarm", "LagPageAlarm", "WaitingWarnAlarm", "WaitingPageAlarm")
    others = {RUNS: "breaching"} | dict.fromkeys(lasting, "ignore")

    assert others.get(name, "notBreaching") == ALARMS[name]["TreatMissingData"]


def test_the_lag_alarms_are_early() -> None:
    """While the worker holds, invocations are minutes apart, so the last age is repeated; at a quarter of the retention it is urgent."""
    warn, page = ALARMS["LagWarnAlarm"], ALARMS["LagPageAlarm"]
    hours = properties("Stream")["RetentionPeriodHours"]

    assert 1 == warn["EvaluationPeriods"]
    assert 1000 * template()["Parameters"]["BatchWindowSeconds"]["MaxValue"] < warn["Threshold"]
    assert "FILL(age, REPEAT)" in page["Metrics"][0]["Expression"]
    assert f"/ ({hours} * 36000))" in page["Metrics"][0]["Expression"]  # 1 % of 24 h is 24 * 36000 ms
    assert 25 == page["Threshold"]


@pytest.mark.parametrize(
    ("parameters", "actions"),
    [({}, None), ({"AlarmEmail": "a@example.com"}, [TOPIC]), ({"AlarmTopicArn": TOPIC_ARN}, [TOPIC_ARN])],
)
def test_alarms_notify_by_email_or_topic(parameters: dict[str, str], actions: list[Any] | None) -> None:
    """Either all alarms notify when they are raised and when they end, or none does."""
    mode = Mode(parameters | {"StreamMode": "ON_DEMAND"})

    assert ("AlarmTopic" in mode.resources()) == ("AlarmEmail" in parameters)
    for name in ALARMS:
        alarm = mode.properties(name)
        assert (actions, actions) == (alarm.get("AlarmActions"), alarm.get("OKActions"))


def test_a_function_that_does_not_run_raises_an_alarm() -> None:
    """Either of the two functions that a schedule runs is enough, after three periods of five minutes. Of the sender's, only a run that sends counts."""
    alarm = ALARMS[RUNS]
    runs, *read = alarm["Metrics"]
    sender, scale = ((one["MetricStat"]["Metric"]["MetricName"], one["MetricStat"]["Stat"]) for one in read)

    assert "MIN([FILL(sender, 0), FILL(scale, 0)])" == runs["Expression"]
    assert ((OLDEST, "SampleCount"), ("Invocations", "Sum")) == (sender, scale)
    assert [300, 300] == [one["MetricStat"]["Period"] for one in read]
    assert ("LessThanThreshold", 1) == (alarm["ComparisonOperator"], alarm["Threshold"])


def test_health_checks_are_not_failed_requests() -> None:
    """The alarm subtracts them. Five failures in a minute raise it; fewer, if no other request succeeds."""
    site = Site()
    site.kinesis.faults = [{}]
    assert 503 == site.get("/health/ready").status

    assert {NOT_READY: 1} == site.telemetry.counts
    lost, alarm = "FILL(failed, 0) - FILL(unready, 0)", ALARMS["Ingest5xxAlarm"]
    all_fail = f"FILL(requests, 0) > 0 AND {lost} >= FILL(requests, 0)"
    assert (5, f"{lost} + IF({all_fail}, 4, 0)") == (alarm["Threshold"], _expression(alarm))


def test_a_throttled_put_invokes_the_scaler() -> None:
    """The alarm invokes it within a minute, and only that alarm may."""
    mode = Mode({"AlarmEmail": "a@example.com"})
    alarm, permission = mode.properties(THROTTLES), mode.properties("StreamThrottlesPermission")

    assert [{"Fn::GetAtt": ["ScaleFunction", "Arn"]}] == alarm["AlarmActions"]
    assert "OKActions" not in alarm
    assert "WriteProvisionedThroughputExceeded" == alarm["MetricName"]
    assert {"Period": 60, "EvaluationPeriods": 1, "Threshold": 1}.items() <= alarm.items()
    assert {"Ref": "ScaleFunction"} == permission["FunctionName"]
    assert {"Fn::GetAtt": [THROTTLES, "Arn"]} == permission["SourceArn"]


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"status": "success"}, False),
        ({"status": "error", "errorType": "Runtime.ImportModuleError"}, True),
        ({"status": "timeout"}, True),
    ],
)
def test_a_failed_invocation_needs_attention(record: dict[str, str], *, expected: bool) -> None:
    """Lambda's own report counts, for every function, because a function that was killed cannot count itself."""
    failures = properties("FailedInvocations")
    pattern = r"\{ \$\.type = \"([\w.]+)\" && \$\.record\.(\w+) != \"(\w+)\" \}"
    kind, member, other = re.fullmatch(pattern, failures["FilterPattern"]).groups()  # type: ignore[union-attr]  # else it fails

    assert "platform.report" == kind
    assert expected == (record[member] != other)
    assert {"Ref": "Logs"} == failures["LogGroupName"]
    counted = {"MetricNamespace": STACK, "MetricName": ATTENTION, "MetricValue": "1"}
    assert [counted] == failures["MetricTransformations"]


def test_only_the_stacks_alarms_publish_to_the_topic() -> None:
    """CloudWatch may publish for alarms of this stack, and nobody else may."""
    policy = Mode({"AlarmEmail": "a@example.com"}).properties("AlarmTopicPolicy")
    (statement,) = policy["PolicyDocument"]["Statement"]

    assert ("Allow", "sns:Publish") == (statement["Effect"], statement["Action"])
    assert {"Service": "cloudwatch.amazonaws.com"} == statement["Principal"]
    assert "alarm:${AWS::StackName}-*" in str(statement["Condition"])


def test_the_canary_watches_only_the_new_version() -> None:
    """Failures of the old version must not stop the deployment of a fix. An alarm with a new name starts without a state."""
    errors, failed = (dimensions for _, _, dimensions in _metrics(ALARMS[CANARY]))
    (version,) = resources("AWS::Lambda::Version")
    executed = {"Fn::GetAtt": [version, "Version"]}
    ingest = {"FunctionName": {"Ref": "IngestFunction"}, "Resource": {"Fn::Sub": "${IngestFunction}:live"}}
    text, own = ALARMS[CANARY]["AlarmName"]["Fn::Sub"]
    stops = properties("IngestFunctionDeploymentGroup")["AlarmConfiguration"]["Alarms"]

    assert (ingest | {"ExecutedVersion": executed}, {"version": executed}) == (errors, failed)
    assert ("${Version}" in text, {"Version": executed}) == (True, own)
    assert [{"Name": {"Ref": CANARY}}] == stops
