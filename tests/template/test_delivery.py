"""How the stream and the overflow queue reach their functions."""

import json
import re
from typing import Any

import pytest

from tests.support.sam import properties, resources, template, transformed
from worker.ledger import WORKLIST


def test_the_mapping_of_the_stream_never_gives_up() -> None:
    """The worker reads from the start, in the shard's order, reports its progress, and nothing is ever discarded."""
    mapping = properties("WorkerFunctionStream")
    expected = {
        "EventSourceArn": {"Fn::GetAtt": ["Stream", "Arn"]},
        "FunctionName": {"Ref": "WorkerFunction"},
        "StartingPosition": "TRIM_HORIZON",
        "BatchSize": {"Ref": "BatchSize"},
        "MaximumBatchingWindowInSeconds": {"Ref": "BatchWindowSeconds"},
        "FunctionResponseTypes": ["ReportBatchItemFailures"],
        "MaximumRetryAttempts": -1,
        "MaximumRecordAgeInSeconds": -1,
        "BisectBatchOnFunctionError": False,
        "ParallelizationFactor": 1,
        "DestinationConfig": {"OnFailure": {"Destination": {"Fn::GetAtt": ["AsideBucket", "Arn"]}}},
    }
    assert expected == mapping


def test_the_mapping_of_the_queue_reports_each_message() -> None:
    """The drainer takes many messages at once, for one search, and says which of them it could not handle."""
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


def test_the_queue_outlasts_its_drainer() -> None:
    """A message rests until no late put can land, stays hidden six time-outs long, and is kept for 14 days."""
    queue = properties("OverflowQueue")

    assert 120 == queue["DelaySeconds"]
    assert 6 * properties("DrainFunction")["Timeout"] == queue["VisibilityTimeout"]
    assert 14 * 24 * 3600 == queue["MessageRetentionPeriod"]


def test_the_queue_gives_no_message_up() -> None:
    """No dead-letter queue takes messages out of sight."""
    assert "RedrivePolicy" not in properties("OverflowQueue")


def test_the_queue_takes_the_largest_envelope() -> None:
    """An envelope of 700 KiB fits a message in base64."""
    assert 700 * 1024 * 4 / 3 < properties("OverflowQueue")["MaximumMessageSize"]


def test_runs_of_the_redrive_do_not_overlap() -> None:
    """A run ends before the next is due, and a failed one is not repeated by Lambda."""
    assert "rate(5 minutes)" == properties("RedriveFunctionSchedule")["ScheduleExpression"]
    assert properties("RedriveFunction")["Timeout"] < 5 * 60
    assert 0 == properties("RedriveFunctionEventInvokeConfig")["MaximumRetryAttempts"]


def test_every_request_reaches_the_ingest() -> None:
    """The one route is the default route, in payload format 2.0, and the gateway answers no CORS by itself."""
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


def test_the_gateway_outwaits_the_ingest() -> None:
    """The ingest is cut off by its own time-out, so that its log tells, and the gateway's limit is 30 s."""
    waits = properties("ApiIntegration")["TimeoutInMillis"]

    assert 1000 * properties("IngestFunction")["Timeout"] < waits <= 30_000


def test_the_gateway_throttles_by_parameter() -> None:
    """Rate and burst of the stage are parameters."""
    settings = properties("ApiStage")["DefaultRouteSettings"]

    assert {"Ref": "ThrottlingRate"} == settings["ThrottlingRateLimit"]
    assert {"Ref": "ThrottlingBurst"} == settings["ThrottlingBurstLimit"]


@pytest.mark.parametrize(
    "logical_id", ["Stream", "OverflowQueue", "Ledger", "AsideBucket", "SdkBucket", "WriteKeySecret"]
)
def test_what_holds_data_outlives_the_stack_in_prod_only(logical_id: str) -> None:
    """In prod it is retained; in dev and stg it goes with the stack."""
    resource = transformed()["Resources"][logical_id]
    policy = {"Fn::If": ["IsProd", "Retain", "Delete"]}

    assert (policy, policy) == (resource["DeletionPolicy"], resource["UpdateReplacePolicy"])


def test_nothing_has_a_name_of_its_own() -> None:
    """CloudFormation names everything, so that stages live side by side and a retained resource blocks nothing."""
    names = {"BucketName", "StreamName", "TableName", "QueueName", "FunctionName", "RoleName", "LogGroupName"}
    named = {
        logical_id: sorted(names & resource.get("Properties", {}).keys())
        for logical_id, resource in template()["Resources"].items()
        if resource["Type"] != "AWS::Lambda::Permission"
    }
    assert [] == sorted(logical_id for logical_id, found in named.items() if found)


def test_what_was_left_in_the_bucket_is_swept_once_a_day() -> None:
    """The redrive's function is told to sweep."""
    sweep = properties("RedriveFunctionSweep")
    (target,) = sweep["Targets"]

    assert "rate(1 day)" == sweep["ScheduleExpression"]
    assert {"sweep": True} == json.loads(target["Input"])


def test_the_ledger_has_an_index_of_spans_with_work() -> None:
    """The worklist has keys alone, and is found under the name that the worker knows."""
    (index,) = properties("Ledger")["GlobalSecondaryIndexes"]

    assert WORKLIST == index["IndexName"]
    assert [{"AttributeName": "wk", "KeyType": "HASH"}] == index["KeySchema"]
    assert {"ProjectionType": "KEYS_ONLY"} == index["Projection"]


def test_the_ledger_has_the_keys_of_its_items() -> None:
    """Items are found by pk and sk, both strings, and leave by `ttl`."""
    ledger: dict[str, Any] = properties("Ledger")

    assert [("pk", "HASH"), ("sk", "RANGE")] == [
        (key["AttributeName"], key["KeyType"]) for key in ledger["KeySchema"]
    ]
    assert {"S"} == {attribute["AttributeType"] for attribute in ledger["AttributeDefinitions"]}
    assert {"AttributeName": "ttl", "Enabled": True} == ledger["TimeToLiveSpecification"]


def test_a_changed_setting_of_the_ingest_reaches_its_alias() -> None:
    """A version is published by its description, a number of whatever its properties refer to.

    The transform gives it another name when the template changes, and does not see a parameter's value.
    """
    ingest, version = properties("IngestFunction"), _ingest_version()
    named = _names({key: value for key, value in ingest.items() if key not in _OF_ALL_VERSIONS})
    watched = set(re.findall(r"\$\{(\w+)\}", properties("IngestSettings")["Content"]["Fn::Sub"]))

    assert {"Fn::Sub": "Settings ${IngestSettings}"} == version["Description"]
    assert named == watched


# What is the function's and not a version's, or stays.
_OF_ALL_VERSIONS = ("ReservedConcurrentExecutions", "Role", "LoggingConfig", "Code")
_CONDITIONS = {"Traces": "Tracing", "UsesSnapStart": "SnapStart"}


def _ingest_version() -> dict[str, Any]:
    (version,) = resources("AWS::Lambda::Version").values()
    found: dict[str, Any] = version["Properties"]
    return found


def _names(value: Any) -> set[str]:
    """Return the parameters and resources that a value follows from."""
    match value:
        case {"Fn::If": [condition, *_]}:
            return {_CONDITIONS[condition]}
        case {"Ref": str(name)} | {"Fn::GetAtt": [str(name), _]}:
            return {name}
        case dict():
            return {name for member in value.values() for name in _names(member)}
        case list():
            return {name for member in value for name in _names(member)}
    return set()
