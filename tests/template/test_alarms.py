"""Alarms, what they tell operators to do, and the dashboard."""

import json
import re
import shlex
from collections.abc import Iterator
from typing import Any

import click
import pytest

from doubles.clock import ManualClock
from ops import cli
from shared.telemetry import DELIVERY_METRICS, INGEST_METRICS
from tests.support.modes import Mode
from tests.support.sam import FUNCTIONS, properties, resources, template
from tests.support.telemetry import Output

ALARMS = resources("AWS::CloudWatch::Alarm")
FULL = ALARMS.pop("StreamFullAlarm")["Properties"]  # it calls a function, not a person
CANARY = "CanaryAlarm"
"""It is about one version of the ingest, and only CodeDeploy looks at it."""
# What our metrics are told apart by: which functions count, and what.
COUNTS = {
    "ingest": INGEST_METRICS,
    **dict.fromkeys(("worker", "redrive", "drain"), DELIVERY_METRICS),
}
OF_AWS = {
    "AWS/Lambda": {"Errors", "Throttles", "IteratorAge", "Invocations", "Duration"},
    "AWS/Kinesis": {"IncomingRecords", "IncomingBytes", "WriteProvisionedThroughputExceeded"},
    "AWS/SQS": {"ApproximateNumberOfMessagesVisible", "ApproximateAgeOfOldestMessage"},
    "AWS/ApiGateway": {"Count", "4xx", "5xx", "Latency"},
    "AWS/DynamoDB": {"ConsumedWriteCapacityUnits"},
}
(_FAILURES,) = properties("IngestFailures")["MetricTransformations"]
TOPIC = {"Ref": "AlarmTopic"}
TOPIC_ARN = "arn:aws:sns:us-east-1:123456789012:ours"


def _queries(alarm: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what an alarm reads and calculates, in a stack that has everything that it may read."""
    return [one["Fn::If"][1] if "Fn::If" in one else one for one in alarm.get("Metrics", ())]


def _metrics(alarm: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield namespace, name and dimensions of each metric that an alarm uses."""
    looked = [one["MetricStat"]["Metric"] for one in _queries(alarm) if "MetricStat" in one] or [alarm]
    for one in looked:
        dimensions = {dimension["Name"]: dimension["Value"] for dimension in one["Dimensions"]}
        yield one["Namespace"], one["MetricName"], dimensions


def _said(alarm: dict[str, Any]) -> str:
    said = alarm["AlarmDescription"]
    return str(said["Fn::Sub"] if isinstance(said, dict) else said)


def _names() -> set[str]:
    """Return the names of all alarms but the canary's."""
    return {alarm["Properties"]["AlarmName"]["Fn::Sub"] for name, alarm in ALARMS.items() if name != CANARY}


def test_every_failure_has_an_alarm() -> None:
    """Lag, set-aside rows, overflow, Treasure Data, Redis, the ingest, limits and errors."""
    assert _names() == {
        f"${{AWS::StackName}}-{name}"
        for name in (
            *("lag-warn", "lag-page", "worker-idle"),
            *("dead-letters", "parked", "in-doubt", "rows-ambiguous", "rows-missing"),
            *("overflow-depth", "overflow-age"),
            *("key-refused", "redis-errors", "ledger-errors", "signing-secrets"),
            *("ingest-5xx", "ingest-4xx", "ingest-errors"),
            *("throttles", "stream-throttles"),
            *("worker-errors", "other-errors", "unforeseen-errors"),
        )
    }


@pytest.mark.parametrize("name", ALARMS)
def test_alarms_use_existing_metrics(name: str) -> None:
    """Sluice's metrics are counted by the named function under the stack's stage; AWS's belong to the stack's resources."""
    for namespace, metric, dimensions in _metrics(ALARMS[name]["Properties"]):
        if metric == _FAILURES["MetricName"]:
            assert {one["Key"] for one in _FAILURES["Dimensions"]} == dimensions.keys()
        elif namespace == "Sluice":
            assert metric in COUNTS[dimensions["service"]]
            assert {"service", "stage"} == dimensions.keys()
            assert {"Ref": "Stage"} == dimensions["stage"]
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
def test_a_series_without_data_hides_no_other(name: str) -> None:
    """An expression over several series has a value while only one of them has, as a function that never failed has none.

    CloudWatch fills in the newest period too, before its data has arrived. So such an alarm looks at one period more.
    """
    alarm = ALARMS[name]["Properties"]
    metrics = [one for one in _queries(alarm) if "MetricStat" in one]
    if len(metrics) < 2:
        return
    (expression,) = (one["Expression"] for one in _queries(alarm) if "Expression" in one)
    unfilled = set(re.findall(r"\b[a-z]+\b|METRICS", re.sub(r"FILL\([^()]+(\(\))?, 0\)", "", expression)))

    assert unfilled <= {"requests"}  # a fraction of no requests is none
    assert alarm["EvaluationPeriods"] == alarm["DatapointsToAlarm"] + 1


@pytest.mark.parametrize("name", ALARMS)
def test_an_alarm_says_what_to_run(name: str) -> None:
    """Its description names a command with the stack and the region; `sluice` commands exist."""
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
    """A stack without traffic is healthy. Only a lag lasts until an invocation reports that it is over."""
    lasts = name in ("LagWarnAlarm", "LagPageAlarm")

    assert ("ignore" if lasts else "notBreaching") == ALARMS[name]["Properties"]["TreatMissingData"]


@pytest.mark.parametrize("name", ["LagWarnAlarm", "LagPageAlarm"])
def test_one_late_invocation_is_a_lag(name: str) -> None:
    """While the worker holds, invocations are minutes apart, so several in a row would never be seen."""
    assert 1 == ALARMS[name]["Properties"]["EvaluationPeriods"]


@pytest.mark.parametrize(
    ("parameters", "actions"),
    [({}, None), ({"AlarmEmail": "a@example.com"}, [TOPIC]), ({"AlarmTopicArn": TOPIC_ARN}, [TOPIC_ARN])],
)
def test_alarms_notify_by_email_or_topic(parameters: dict[str, str], actions: list[Any] | None) -> None:
    """All alarms notify when they are raised and when they end, or none does."""
    mode = Mode(parameters)

    assert ("AlarmTopic" in mode.resources()) == ("AlarmEmail" in parameters)
    for name in ALARMS:
        alarm = mode.properties(name)
        assert (actions, actions) == (alarm.get("AlarmActions"), alarm.get("OKActions"))


def test_a_throttled_put_calls_the_scaler() -> None:
    """Within a minute, whoever is notified of alarms; only that alarm may call it."""
    permission = Mode({}).properties("StreamFullPermission")

    assert [{"Fn::GetAtt": ["ScaleFunction", "Arn"]}] == FULL["AlarmActions"]
    assert ("WriteProvisionedThroughputExceeded", 60, 1) == (
        FULL["MetricName"],
        FULL["Period"],
        FULL["Threshold"],
    )
    assert {"Ref": "ScaleFunction"} == permission["FunctionName"]
    assert {"Fn::GetAtt": ["StreamFullAlarm", "Arn"]} == permission["SourceArn"]


def test_an_alarm_watches_every_function() -> None:
    """Each function's errors raise one."""
    watched = {
        dimensions["FunctionName"]["Ref"]
        for alarm in ALARMS.values()
        for _, metric, dimensions in _metrics(alarm["Properties"])
        if metric == "Errors"
    }

    assert set(FUNCTIONS) == watched


def test_only_our_alarms_publish_to_the_topic() -> None:
    """CloudWatch may publish for alarms of this stack, and nobody else may."""
    (statement,) = Mode({"AlarmEmail": "a@example.com"}).properties("AlarmTopicPolicy")["PolicyDocument"][
        "Statement"
    ]

    assert ("Allow", "sns:Publish") == (statement["Effect"], statement["Action"])
    assert {"Service": "cloudwatch.amazonaws.com"} == statement["Principal"]
    assert "alarm:${AWS::StackName}-*" in str(statement["Condition"])


def test_lag_is_measured_against_the_retention() -> None:
    """The urgent alarm is raised at a quarter of the retention, long before rows are set aside."""
    alarm = Mode({"RetentionHours": "24"}).properties("LagPageAlarm")

    assert "age / (24 * 36000)" == alarm["Metrics"][0]["Expression"]  # 24 h are 24 * 36000 ms per cent
    assert 25 == alarm["Threshold"]


def _dashboard() -> list[dict[str, Any]]:
    body = template()["Resources"]["Dashboard"]["Properties"]["DashboardBody"]["Fn::Sub"]
    widgets: list[dict[str, Any]] = json.loads(body)["widgets"]
    return widgets


def test_the_dashboard_follows_the_data() -> None:
    """Alarms on top, then requests, stream and delivery from left to right, then lag, failures and cost drivers."""
    placed = sorted((widget["y"], widget["x"], widget["properties"]["title"]) for widget in _dashboard())

    assert ["Alarms", "Requests", "Stream", "Delivered", "Lag", "Failures", "Cost"] == [
        title.lstrip("0123456789 ").split()[0].rstrip(":") for _, _, title in placed
    ]


def test_widgets_do_not_overlap() -> None:
    """Each has its own place in the 24 columns."""
    cells = [
        (x, y)
        for widget in _dashboard()
        for x in range(widget["x"], widget["x"] + widget["width"])
        for y in range(widget["y"], widget["y"] + widget["height"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24


def test_the_dashboard_shows_every_alarm() -> None:
    """And no others."""
    (shown,) = (widget["properties"]["alarms"] for widget in _dashboard() if widget["type"] == "alarm")

    assert _names() == {arn.rpartition(":alarm:")[2] for arn in shown}


def test_the_dashboard_shows_existing_metrics() -> None:
    """Sluice's metrics are counted by the named function; AWS's belong to the template's resources."""
    named = {"Stream", "OverflowQueue.QueueName", "Ledger", "Api", *FUNCTIONS}
    for widget in _dashboard():
        for metric in widget["properties"].get("metrics", ()):
            match [part for part in metric if isinstance(part, str)]:
                case ["Sluice", name, "service", service, "stage", "${Stage}"]:
                    assert name in COUNTS[service]
                case [namespace, name, _, value]:
                    assert name in OF_AWS[namespace]
                    assert value.strip("${}") in named
                case []:
                    assert "expression" in metric[0]
                case other:
                    raise AssertionError(f"a metric that this test does not know: {other}")


def test_the_dashboard_counts_gigabyte_seconds() -> None:
    """AWS bills milliseconds times memory in GB of 1024 MB."""
    (cost,) = (widget for widget in _dashboard() if widget["properties"]["title"].endswith("Cost drivers"))
    functions = {
        metric[-1]["id"]: metric[3].strip("${}")
        for metric in cost["properties"]["metrics"]
        if len(metric) > 4 and "id" in metric[-1]
    }
    factors = {
        found[1]: float(found[2])
        for metric in cost["properties"]["metrics"]
        if (
            found := re.fullmatch(
                r"(\w+) \* ([\d.]+) / 1000", metric[0].get("expression", "") if len(metric) == 1 else ""
            )
        )
    }

    assert {
        name: properties(functions[name])["MemorySize"] / 1024 for name in ("ingest", "worker")
    } == factors


def test_the_canary_looks_at_the_new_version_only() -> None:
    """What the old version does, or did before, must not stop the deploy of its fix."""
    (errors, failed) = (dimensions for _, _, dimensions in _metrics(ALARMS[CANARY]["Properties"]))
    (version,) = resources("AWS::Lambda::Version")
    executed = {"Fn::GetAtt": [version, "Version"]}

    assert {
        "FunctionName": {"Ref": "IngestFunction"},
        "Resource": {"Fn::Sub": "${IngestFunction}:live"},
        "ExecutedVersion": executed,
    } == errors
    assert {"stage": {"Ref": "Stage"}, "version": executed} == failed
    assert [{"Name": {"Ref": CANARY}}] == properties("IngestFunctionDeploymentGroup")["AlarmConfiguration"][
        "Alarms"
    ]


def test_each_version_has_a_canary_alarm_of_its_own() -> None:
    """CloudWatch keeps the state of an alarm that is changed; one with another name is new, and not raised."""
    (version,) = resources("AWS::Lambda::Version")
    text, own = ALARMS[CANARY]["Properties"]["AlarmName"]["Fn::Sub"]

    assert "${Version}" in text
    assert {"Version": {"Fn::GetAtt": [version, "Version"]}} == own


def test_the_canary_counts_the_failures_that_the_ingest_answers_itself() -> None:
    """The metric filter finds them, with stage and version, in the line with metrics that the ingest writes."""
    output = Output(ManualClock(), AWS_LAMBDA_FUNCTION_VERSION="7")
    output.telemetry.count("RequestsFailed", 2)
    output.telemetry.flush()
    (line,) = output.lines()
    found = re.fullmatch(r"\{ \$\.(\w+)\[0\] > 0 \}", properties("IngestFailures")["FilterPattern"])

    assert found is not None
    assert [2] == line[found[1]]
    assert {"stage": line["stage"], "version": "7"} == {
        one["Key"]: line[one["Value"].removeprefix("$.")] for one in _FAILURES["Dimensions"]
    }
    assert {"Ref": "IngestLogs"} == properties("IngestFailures")["LogGroupName"]
