"""How the stream, the queue and the schedules invoke their functions, and what outlives the stack."""

import json
import re
from typing import Any

import pytest

from tests.support.modes import DATA, Mode
from tests.support.sam import properties, resources, template, transformed
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


def test_the_queue_keeps_every_message_until_it_is_drained() -> None:
    """Messages are delayed until no late put can arrive, and none is given up; an envelope of 700 KiB in base64 fits into one."""
    queue = properties("OverflowQueue")

    assert 120 == queue["DelaySeconds"]
    assert 6 * properties("DrainFunction")["Timeout"] == queue["VisibilityTimeout"]
    assert 14 * 24 * 3600 == queue["MessageRetentionPeriod"]
    assert 700 * 1024 * 4 / 3 < queue["MaximumMessageSize"]
    assert "RedrivePolicy" not in queue


@pytest.mark.parametrize(
    ("name", "rate", "given"),
    [
        ("SenderFunctionSchedule", "1 minute", None),
        ("SenderFunctionSweep", "1 hour", {"sweep": True}),
        ("SenderFunctionWatermarks", f"{PERIOD_SECONDS // 60} minutes", {"watermark": True}),
        ("ScaleFunctionSchedule", "5 minutes", None),
        ("ScaleFunctionBacklog", "1 minute", {"backlog": True}),
    ],
)
def test_functions_run_by_schedule(name: str, rate: str, given: Any) -> None:
    """Watermarks only if a table is set. Lambda does not retry a failed run, and a claim keeps long runs apart."""
    function = name.partition("Function")[0] + "Function"
    off, on = (Mode(chosen).properties(name) for chosen in ({}, {"WatermarkTable": "sluice_watermarks"}))

    assert f"rate({rate})" == on["ScheduleExpression"]
    assert (name != "SenderFunctionWatermarks") == (off.get("State") != "DISABLED")
    assert "DISABLED" != on.get("State")
    assert given == json.loads(on["Targets"][0].get("Input", "null"))
    assert 0 == properties(f"{function}EventInvokeConfig")["MaximumRetryAttempts"]


def test_every_request_reaches_the_ingest() -> None:
    """By the only route, in format 2.0; the ingest times out before the gateway, so that its log shows the timeout."""
    (route,) = resources("AWS::ApiGatewayV2::Route").values()
    integration, settings = properties("ApiIntegration"), properties("ApiStage")["DefaultRouteSettings"]
    ingest = "/functions/${IngestFunction.Arn}:live/invocations"

    assert "$default" == route["Properties"]["RouteKey"]
    assert {"Fn::Sub": "integrations/${ApiIntegration}"} == route["Properties"]["Target"]
    assert integration["IntegrationUri"]["Fn::Sub"].endswith(ingest)
    assert {"Ref": "IngestFunctionAliaslive"} == properties("ApiPermission")["FunctionName"]
    assert "2.0" == integration["PayloadFormatVersion"]
    assert "CorsConfiguration" not in properties("Api")
    assert 1000 * properties("IngestFunction")["Timeout"] < integration["TimeoutInMillis"] <= 30_000
    assert {"Ref": "ThrottlingRate"} == settings["ThrottlingRateLimit"]
    assert {"Ref": "ThrottlingBurst"} == settings["ThrottlingBurstLimit"]


def test_data_outlives_the_stack_in_prod_only() -> None:
    """What stores data is retained in prod, and deleted with the stack in dev and stg. A failed first deploy leaves nothing."""
    deleted, replaced = ({"Fn::If": ["IsProd", one, "Delete"]} for one in ("RetainExceptOnCreate", "Retain"))
    kept = (deleted, replaced)
    stores = {name: one for name, one in transformed()["Resources"].items() if one["Type"] in DATA}
    others = transformed()["Resources"].keys() - stores.keys()
    prod = Mode({"Stage": "prod"}).resources()

    assert {"OverflowNotices", "Counters"} == {
        name
        for name, one in stores.items()
        if (one.get("DeletionPolicy"), one.get("UpdateReplacePolicy")) != kept
    }
    assert {"AWS::Lambda::Version"} == {  # deleted with its function
        prod[name]["Type"]
        for name in others & prod.keys()
        if prod[name].get("DeletionPolicy", "Delete") != "Delete"
    }
    assert [] == [name for name, one in prod.items() if one["Properties"].get("DeletionProtectionEnabled")]


def test_each_lifecycle_rule_expires_something() -> None:
    """CloudFormation rejects a rule that has nothing but ExpiredObjectDeleteMarker, although S3 accepts it."""
    acts = {"AbortIncompleteMultipartUpload", "ExpirationInDays", "NoncurrentVersionExpiration"}
    rules = properties("DataBucket")["LifecycleConfiguration"]["Rules"]

    assert [] == [one["Id"] for one in rules if not acts & one.keys()]


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


def test_the_ledger_has_the_keys_of_its_items() -> None:
    """Items have string keys and expire by `ttl`. An index contains only the keys of spans with work."""
    ledger = properties("Ledger")
    (index,) = ledger["GlobalSecondaryIndexes"]
    keys = {one["AttributeName"]: one["KeyType"] for table in (ledger, index) for one in table["KeySchema"]}
    kinds = {one["AttributeName"]: one["AttributeType"] for one in ledger["AttributeDefinitions"]}

    assert {"pk": "HASH", "sk": "RANGE", "wk": "HASH", "at": "RANGE"} == keys
    assert dict.fromkeys(keys, "S") == kinds
    assert {"ProjectionType": "KEYS_ONLY"} == index["Projection"]
    assert {"AttributeName": "ttl", "Enabled": True} == ledger["TimeToLiveSpecification"]


def test_a_changed_setting_of_the_ingest_reaches_its_alias() -> None:
    """The SAM transform does not see parameters' values, so a version's description depends on all that the ingest refers to."""
    ingest, (version,) = properties("IngestFunction"), resources("AWS::Lambda::Version").values()
    named = _names({key: value for key, value in ingest.items() if key not in _OF_ALL_VERSIONS})
    watched = set(re.findall(r"\$\{(\w+)\}", properties("IngestSettings")["Content"]["Fn::Sub"]))

    assert {"Fn::Sub": "Settings ${IngestSettings}"} == version["Properties"]["Description"]
    assert named - {"AWS::NoValue", "AWS::StackName"} == watched


# Properties that belong to the function rather than to a version, or that never change.
_OF_ALL_VERSIONS = ("ReservedConcurrentExecutions", "Role", "LoggingConfig", "Code")


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
