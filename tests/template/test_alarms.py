"""Alarms, and the commands that they recommend."""

import re
import shlex
from collections.abc import Iterator
from typing import Any

import click
import pytest

from ops import cli
from shared.telemetry import ATTENTION, METRICS, NOT_READY
from tests.support.ingest import Site
from tests.support.modes import Mode
from tests.support.sam import FUNCTIONS, properties, resources

ALARMS = resources("AWS::CloudWatch::Alarm")
THROTTLES = "StreamThrottlesAlarm"
"""With an AUTO stream this alarm invokes a function; it notifies nobody."""
CANARY = "CanaryAlarm"
"""This alarm watches one version of the ingest, and only CodeDeploy uses it."""
RUNS = "NotRunningAlarm"
"""This alarm is raised by what is missing."""
MOST_PAID = 22
"""The number of metrics that alarms read; AWS charges for each."""
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


def _queries(alarm: dict[str, Any]) -> list[dict[str, Any]]:
    """Return an alarm's metrics and expressions, in a stack with all optional resources."""
    return [one["Fn::If"][1] if "Fn::If" in one else one for one in alarm.get("Metrics", ())]


def _metrics(alarm: dict[str, Any]) -> Iterator[tuple[Any, str, dict[str, Any]]]:
    """Yield namespace, name and dimensions of each metric that an alarm uses."""
    looked = [one["MetricStat"]["Metric"] for one in _queries(alarm) if "MetricStat" in one] or [alarm]
    for one in looked:
        dimensions = {dimension["Name"]: dimension["Value"] for dimension in one.get("Dimensions", ())}
        yield one["Namespace"], one["MetricName"], dimensions


def _said(alarm: dict[str, Any]) -> str:
    said = alarm["AlarmDescription"]
    return str(said["Fn::Sub"] if isinstance(said, dict) else said)


def _names() -> set[str]:
    """Return the names of all alarms except the canary's."""
    return {alarm["Properties"]["AlarmName"]["Fn::Sub"] for name, alarm in ALARMS.items() if name != CANARY}


def test_every_failure_has_an_alarm() -> None:
    """Alarms cover lag, failures that need a person, dependencies, overflow, throttles and the ingest."""
    assert _names() == {
        f"${{AWS::StackName}}-{name}"
        for name in (
            *("lag-warn", "lag-page", "waiting-warn", "waiting-page", "attention", "dependency", "discarded"),
            *("not-running", "overflow-age", "overflow-volume", "stream-throttles"),
            *("ingest-5xx", "ingest-4xx", "rejected"),
        )
    }


@pytest.mark.parametrize(
    "said",
    [
        *(
            "on the stream for more than 5 minutes",
            "waiting in S3",
            "a quarter of its retention",
            "an hour without an invocation",
        ),
        *("Rows are dead", "may be duplicated", "one of its databases", "in doubt", "S3"),
        *("API key", "the ledger", "Redis", "signing secrets", "MaxShards", "unexpected error"),
        *(
            "failed, timed out",
            "waiting in the overflow queue",
            "600 envelopes or 64 MB a minute",
            "fail with 5xx",
            "a fifth of all requests",
            "rejected event",
        ),
        *("given up on records", "has not run for 15 minutes"),
        *("throttling puts", "IngestConcurrency", "WorkerConcurrency", "rolls its newest version back"),
    ],
)
def test_the_alarms_name_every_possible_cause(said: str) -> None:
    """The descriptions of a few alarms mention everything that may need an operator."""
    assert any(said in _said(alarm["Properties"]) for alarm in ALARMS.values())


def test_the_alarms_read_few_metrics() -> None:
    """AWS charges for each metric that an alarm reads, also within an expression."""
    assert MOST_PAID == sum(len(list(_metrics(alarm["Properties"]))) for alarm in ALARMS.values())


def test_sluice_has_few_metrics_of_its_own() -> None:
    """AWS charges for each metric and dimension value in every hour in which it is sent."""
    assert len(METRICS) <= 6


@pytest.mark.parametrize("name", ALARMS)
def test_alarms_use_existing_metrics(name: str) -> None:
    """Sluice's metrics are in the stack's namespace; AWS's belong to the stack's resources."""
    for namespace, metric, dimensions in _metrics(ALARMS[name]["Properties"]):
        if namespace == STACK:
            assert metric in METRICS
            assert dimensions.keys() == ({"version"} if name == CANARY else set())
        else:
            assert metric in OF_AWS[namespace]


@pytest.mark.parametrize("name", ALARMS)
def test_an_alarms_expression_uses_its_metrics(name: str) -> None:
    """It returns one value and uses exactly the metrics that the alarm reads."""
    metrics = _queries(ALARMS[name]["Properties"])
    if not metrics:
        return
    (expression,) = (one["Expression"] for one in metrics if "Expression" in one)
    read = {one["Id"] for one in metrics if "MetricStat" in one}
    text = re.sub(r"\$\{\w+\}", "", expression["Fn::Sub"] if isinstance(expression, dict) else expression)

    assert read == {one["Id"] for one in metrics if one.get("ReturnData") is False}
    if text != "SUM(FILL(METRICS(), 0))":
        assert read == set(re.findall(r"\b[a-z]+\b", text))


@pytest.mark.parametrize("name", ALARMS)
def test_a_metric_without_data_does_not_hide_others(name: str) -> None:
    """An expression has a value even if only one of its metrics has data: a function that never failed has none.

    CloudWatch also fills the newest period before its data has arrived, so such an alarm evaluates one period more. Where a period
    without data raises the alarm, all of them must.
    """
    alarm = ALARMS[name]["Properties"]
    metrics = [one for one in _queries(alarm) if "MetricStat" in one]
    if len(metrics) < 2:
        return
    (found,) = (one["Expression"] for one in _queries(alarm) if "Expression" in one)
    expression = found["Fn::Sub"] if isinstance(found, dict) else found
    filled = re.sub(r"FILL\([^()]+(\(\))?, (0|-1|REPEAT)\)|\$\{\w+\}", "", expression)
    unfilled = set(re.findall(r"\b[a-z]+\b|METRICS", filled))

    assert unfilled <= {"requests"}  # without requests there is no fraction
    assert alarm["EvaluationPeriods"] == (4 if name == RUNS else alarm["DatapointsToAlarm"] + 1)


@pytest.mark.parametrize("name", ALARMS)
def test_an_alarm_says_what_to_run(name: str) -> None:
    """Its description has a command with the stack and the region, and the `sluice` commands exist."""
    said = _said(ALARMS[name]["Properties"])
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


@pytest.mark.parametrize("name", ALARMS)
def test_missing_data_is_not_an_alarm(name: str) -> None:
    """A stack without traffic is healthy, unless its schedule has stopped. A lag or a wait lasts until a function reports its end."""
    lasting = ("LagWarnAlarm", "LagPageAlarm", "WaitingWarnAlarm", "WaitingPageAlarm")
    others = {RUNS: "breaching"} | dict.fromkeys(lasting, "ignore")

    assert others.get(name, "notBreaching") == ALARMS[name]["Properties"]["TreatMissingData"]


def test_one_late_invocation_raises_a_lag_alarm() -> None:
    """While the worker holds, invocations are minutes apart, so one period is enough or the last age is repeated."""
    warn, page = (ALARMS[name]["Properties"] for name in ("LagWarnAlarm", "LagPageAlarm"))

    assert 1 == warn["EvaluationPeriods"]
    assert "FILL(age, REPEAT)" in page["Metrics"][0]["Expression"]


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
    """Either of the two functions that a schedule runs is enough, after three periods of five minutes."""
    alarm = ALARMS[RUNS]["Properties"]
    runs, *read = alarm["Metrics"]

    assert "MIN([FILL(sender, 0), FILL(scale, 0)])" == runs["Expression"]
    assert [300, 300] == [one["MetricStat"]["Period"] for one in read]
    assert ("LessThanThreshold", 1) == (alarm["ComparisonOperator"], alarm["Threshold"])


def test_health_checks_are_not_failed_requests() -> None:
    """A check that is answered with 503 carries no event: the ingest counts it, and the alarm subtracts it."""
    site = Site()
    site.kinesis.faults = [{}]
    assert 503 == site.get("/health/ready").status
    (lost,) = (
        one["Expression"] for one in _queries(ALARMS["Ingest5xxAlarm"]["Properties"]) if "Expression" in one
    )

    assert {NOT_READY: 1} == site.telemetry.counts
    assert "FILL(failed, 0) - FILL(unready, 0)" == lost


def test_a_throttled_put_invokes_the_scaler() -> None:
    """The alarm invokes it within a minute, and only that alarm may."""
    mode = Mode({"AlarmEmail": "a@example.com"})
    alarm, permission = mode.properties(THROTTLES), mode.properties("StreamThrottlesPermission")

    assert [{"Fn::GetAtt": ["ScaleFunction", "Arn"]}] == alarm["AlarmActions"]
    assert "OKActions" not in alarm
    assert ("WriteProvisionedThroughputExceeded", 60, 1, 1) == (
        alarm["MetricName"],
        alarm["Period"],
        alarm["EvaluationPeriods"],
        alarm["Threshold"],
    )
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
    assert [{"MetricNamespace": STACK, "MetricName": ATTENTION, "MetricValue": "1"}] == failures[
        "MetricTransformations"
    ]
    for function in FUNCTIONS:
        assert {"Ref": "Logs"} == properties(function)["LoggingConfig"]["LogGroup"]


def test_only_the_stacks_alarms_publish_to_the_topic() -> None:
    """CloudWatch may publish for alarms of this stack, and nobody else may."""
    (statement,) = Mode({"AlarmEmail": "a@example.com"}).properties("AlarmTopicPolicy")["PolicyDocument"][
        "Statement"
    ]

    assert ("Allow", "sns:Publish") == (statement["Effect"], statement["Action"])
    assert {"Service": "cloudwatch.amazonaws.com"} == statement["Principal"]
    assert "alarm:${AWS::StackName}-*" in str(statement["Condition"])


def test_lag_is_measured_against_the_retention() -> None:
    """The urgent alarm is raised at a quarter of the retention, long before it loses records."""
    alarm = properties("LagPageAlarm")
    hours = properties("Stream")["RetentionPeriodHours"]

    assert f"/ ({hours} * 36000))" in alarm["Metrics"][0]["Expression"]  # 1 % of 24 h is 24 * 36000 ms
    assert 25 == alarm["Threshold"]


def test_the_canary_watches_only_the_new_version() -> None:
    """Failures of the old version, or earlier ones, must not stop the deployment of a fix."""
    (errors, failed) = (dimensions for _, _, dimensions in _metrics(ALARMS[CANARY]["Properties"]))
    (version,) = resources("AWS::Lambda::Version")
    executed = {"Fn::GetAtt": [version, "Version"]}

    assert {
        "FunctionName": {"Ref": "IngestFunction"},
        "Resource": {"Fn::Sub": "${IngestFunction}:live"},
        "ExecutedVersion": executed,
    } == errors
    assert {"version": executed} == failed
    assert [{"Name": {"Ref": CANARY}}] == properties("IngestFunctionDeploymentGroup")["AlarmConfiguration"][
        "Alarms"
    ]


def test_each_version_has_a_canary_alarm_of_its_own() -> None:
    """CloudWatch keeps the state of an alarm that is changed; an alarm with a new name starts without a state."""
    (version,) = resources("AWS::Lambda::Version")
    text, own = ALARMS[CANARY]["Properties"]["AlarmName"]["Fn::Sub"]

    assert "${Version}" in text
    assert {"Version": {"Fn::GetAtt": [version, "Version"]}} == own
