"""How the stream and the overflow queue invoke their functions."""

import json
import re
from typing import Any

import pytest

from tests.support.modes import Mode
from tests.support.sam import properties, resources, template, transformed
from worker.ledger import WORKLIST
from worker.watermark_rows import PERIOD_SECONDS


def test_the_stream_never_discards_a_record() -> None:
    """The worker reads each shard in order from its start, reports partial progress, and retries without a limit."""
    mapping = properties("WorkerFunctionStream")
    expected = {
        "EventSourceArn": {"Fn::GetAtt": ["Stream", "Arn"]},
        "FunctionName": {"Ref": "WorkerFunction"},
        "StartingPosition": "TRIM_HORIZON",
        "BatchSize": 5000,
        "MaximumBatchingWindowInSeconds": {"Ref": "BatchWindowSeconds"},
        "FunctionResponseTypes": ["ReportBatchItemFailures"],
        "MaximumRetryAttempts": -1,
        "MaximumRecordAgeInSeconds": -1,
        "BisectBatchOnFunctionError": False,
        "ParallelizationFactor": 1,
        "DestinationConfig": {"OnFailure": {"Destination": {"Fn::GetAtt": ["DataBucket", "Arn"]}}},
        "MetricsConfig": {"Metrics": ["EventCount"]},
    }
    assert expected == mapping


def test_the_drainer_reports_each_failed_message() -> None:
    """One invocation handles many messages with one search of the stream."""
    mapping = properties("DrainFunctionQueue")
    expected = {
        "EventSourceArn": {"Fn::GetAtt": ["OverflowQueue", "Arn"]},
        "FunctionName": {"Ref": "DrainFunction"},
        "BatchSize": 1000,
        "MaximumBatchingWindowInSeconds": 5,
        "FunctionResponseTypes": ["ReportBatchItemFailures"],
        "ScalingConfig": {"MaximumConcurrency": 2},
    }
    assert expected == mapping


def test_the_queue_hides_messages_longer_than_the_drainer_runs() -> None:
    """Messages are delayed until no late put can arrive, hidden for six timeouts, and kept for 14 days."""
    queue = properties("OverflowQueue")

    assert 120 == queue["DelaySeconds"]
    assert 6 * properties("DrainFunction")["Timeout"] == queue["VisibilityTimeout"]
    assert 14 * 24 * 3600 == queue["MessageRetentionPeriod"]


def test_the_queue_drops_no_message() -> None:
    """It has no dead-letter queue."""
    assert "RedrivePolicy" not in properties("OverflowQueue")


def test_the_queue_accepts_the_largest_envelope() -> None:
    """An envelope of 700 KiB in base64 fits into a message."""
    assert 700 * 1024 * 4 / 3 < properties("OverflowQueue")["MaximumMessageSize"]


def test_runs_of_the_redrive_do_not_overlap() -> None:
    """A claim keeps a run that lasts longer from meeting the next one, and Lambda does not retry a failed one."""
    assert "rate(1 minute)" == properties("SenderFunctionSchedule")["ScheduleExpression"]
    assert 0 == properties("SenderFunctionEventInvokeConfig")["MaximumRetryAttempts"]


def test_every_request_reaches_the_ingest() -> None:
    """The default route is the only one and uses payload format 2.0, and the gateway does not handle CORS."""
    assert [
        {
            "ApiId": {"Ref": "Api"},
            "RouteKey": "$default",
            "Target": {"Fn::Sub": "integrations/${ApiIntegration}"},
        }
    ] == [route["Properties"] for route in resources("AWS::ApiGatewayV2::Route").values()]
    assert properties("ApiIntegration")["IntegrationUri"]["Fn::Sub"].endswith(
        "/functions/${IngestFunction.Arn}:live/invocations"
    )
    assert {"Ref": "IngestFunctionAliaslive"} == properties("ApiPermission")["FunctionName"]
    assert "2.0" == properties("ApiIntegration")["PayloadFormatVersion"]
    assert "CorsConfiguration" not in properties("Api")


def test_the_ingest_times_out_before_the_gateway() -> None:
    """The ingest's log then shows the timeout. The gateway's limit is 30 s."""
    waits = properties("ApiIntegration")["TimeoutInMillis"]

    assert 1000 * properties("IngestFunction")["Timeout"] < waits <= 30_000


def test_the_gateway_throttles_by_parameter() -> None:
    """The stage's rate and burst are parameters."""
    settings = properties("ApiStage")["DefaultRouteSettings"]

    assert {"Ref": "ThrottlingRate"} == settings["ThrottlingRateLimit"]
    assert {"Ref": "ThrottlingBurst"} == settings["ThrottlingBurstLimit"]


@pytest.mark.parametrize(
    "logical_id", ["Stream", "OverflowQueue", "Ledger", "DataBucket", "SdkBucket", "WriteKeySecret"]
)
def test_resources_with_data_outlive_the_stack_in_prod_only(logical_id: str) -> None:
    """They are retained in prod, and deleted with the stack in dev and stg."""
    resource = transformed()["Resources"][logical_id]

    assert ["RetainExceptOnCreate", "Retain"] == [
        resource[policy]["Fn::If"][1] for policy in ("DeletionPolicy", "UpdateReplacePolicy")
    ]
    assert ["Delete", "Delete"] == [
        resource[policy]["Fn::If"][2] for policy in ("DeletionPolicy", "UpdateReplacePolicy")
    ]


def test_a_failed_first_deploy_leaves_nothing() -> None:
    """If the stack's creation is rolled back, no resource is retained or protected from deletion."""
    made = Mode({"Stage": "prod"}).resources()

    assert [] == [
        name for name, one in made.items() if one.get("DeletionPolicy") == "Retain" and not _is_version(one)
    ]
    assert [] == [name for name, one in made.items() if one["Properties"].get("DeletionProtectionEnabled")]


def _is_version(resource: dict[str, Any]) -> bool:
    """Return whether it is a version of a function, which is deleted with its function."""
    return bool(resource["Type"] == "AWS::Lambda::Version")


def test_resources_have_no_fixed_names() -> None:
    """CloudFormation names everything, so stages can coexist and a retained resource blocks no deployment."""
    names = {"BucketName", "StreamName", "TableName", "QueueName", "FunctionName", "RoleName", "LogGroupName"}
    named = {
        logical_id: sorted(names & resource.get("Properties", {}).keys())
        for logical_id, resource in template()["Resources"].items()
        if resource["Type"] not in ("AWS::Lambda::Permission", "AWS::Logs::MetricFilter")
    }
    # API Gateway needs a prefix for its log, which the stack deletes in every stage.
    assert ["AccessLogs"] == sorted(logical_id for logical_id, found in named.items() if found)


def test_the_bucket_is_swept_hourly() -> None:
    """The schedule's event tells the redrive to sweep."""
    sweep = properties("SenderFunctionSweep")
    (target,) = sweep["Targets"]

    assert "rate(1 hour)" == sweep["ScheduleExpression"]
    assert {"sweep": True} == json.loads(target["Input"])


def test_watermarks_are_written_if_a_table_is_set() -> None:
    """They are written every five minutes, which is the period that gives rows the same id."""
    off, on = (
        Mode(parameters).properties("SenderFunctionWatermarks")
        for parameters in ({}, {"WatermarkTable": "sluice_watermarks"})
    )

    assert ("DISABLED", "ENABLED") == (off["State"], on["State"])
    assert {"watermark": True} == json.loads(on["Targets"][0]["Input"])
    assert f"rate({PERIOD_SECONDS // 60} minutes)" == on["ScheduleExpression"]


def test_the_ledger_has_an_index_of_spans_with_work() -> None:
    """The index contains only keys, and the worker knows its name."""
    (index,) = properties("Ledger")["GlobalSecondaryIndexes"]

    assert WORKLIST == index["IndexName"]
    assert [("wk", "HASH"), ("at", "RANGE")] == [
        (key["AttributeName"], key["KeyType"]) for key in index["KeySchema"]
    ]
    assert {"ProjectionType": "KEYS_ONLY"} == index["Projection"]


def test_the_ledger_has_the_keys_of_its_items() -> None:
    """Items have the string keys `pk` and `sk` and expire by `ttl`."""
    ledger: dict[str, Any] = properties("Ledger")

    assert [("pk", "HASH"), ("sk", "RANGE")] == [
        (key["AttributeName"], key["KeyType"]) for key in ledger["KeySchema"]
    ]
    assert {"S"} == {attribute["AttributeType"] for attribute in ledger["AttributeDefinitions"]}
    assert {"AttributeName": "ttl", "Enabled": True} == ledger["TimeToLiveSpecification"]


def test_a_changed_setting_of_the_ingest_reaches_its_alias() -> None:
    """The description of a version contains a number that depends on everything the function's properties refer to.

    The SAM transform renames a version when the template changes, but does not see the values of parameters.
    """
    ingest, version = properties("IngestFunction"), _ingest_version()
    named = _names({key: value for key, value in ingest.items() if key not in _OF_ALL_VERSIONS})
    watched = set(re.findall(r"\$\{(\w+)\}", properties("IngestSettings")["Content"]["Fn::Sub"]))

    assert {"Fn::Sub": "Settings ${IngestSettings}"} == version["Description"]
    assert named - {"AWS::NoValue", "AWS::StackName"} == watched


# Properties that belong to the function rather than to a version, or that never change.
_OF_ALL_VERSIONS = ("ReservedConcurrentExecutions", "Role", "LoggingConfig", "Code")


def _ingest_version() -> dict[str, Any]:
    (version,) = resources("AWS::Lambda::Version").values()
    found: dict[str, Any] = version["Properties"]
    return found


def _names(value: Any) -> set[str]:
    """Return the parameters and resources that a value depends on."""
    match value:
        case {"Ref": str(name)} | {"Fn::GetAtt": [str(name), _]}:
            return {name}
        case dict():
            return {name for member in value.values() for name in _names(member)}
        case list():
            return {name for member in value for name in _names(member)}
    return set()
