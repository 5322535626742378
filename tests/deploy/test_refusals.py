"""The emulator refuses what AWS refuses, so that a deploy that passes there proves something."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError, WaiterError

from tests.support.emulation import Stack
from tests.support.ministack import Ministack

pytestmark = pytest.mark.xdist_group("deploy")

STREAM = {"Type": "AWS::Kinesis::Stream", "Properties": {"ShardCount": 1}}
EVERY_STREAM = "kinesis:*"


def a_template(**resources: Any) -> str:
    """Return a template with these resources."""
    return json.dumps({"Resources": resources})


@contextmanager
def a_user(emulator: Ministack, *statements: Mapping[str, Any]) -> Iterator[Any]:
    """Yield the CloudFormation client of a user who may use it, and what the statements allow."""
    iam, name = emulator.client("iam"), "limited"
    use = {"Effect": "Allow", "Action": "cloudformation:*", "Resource": "*"}
    iam.create_user(UserName=name)
    document = json.dumps({"Version": "2012-10-17", "Statement": [use, *statements]})
    iam.put_user_policy(UserName=name, PolicyName="all", PolicyDocument=document)
    key = iam.create_access_key(UserName=name)["AccessKey"]
    client = boto3.client(
        "cloudformation",
        endpoint_url=emulator.url,
        verify=str(emulator.certificate),
        region_name="us-east-1",
        aws_access_key_id=key["AccessKeyId"],
        aws_secret_access_key=key["SecretAccessKey"],
    )
    try:
        yield client
    finally:
        client.close()
        iam.delete_access_key(UserName=name, AccessKeyId=key["AccessKeyId"])
        iam.delete_user_policy(UserName=name, PolicyName="all")
        iam.delete_user(UserName=name)


def outcome(cloudformation: Any, waiter: str, name: str) -> tuple[bool, str]:
    """Wait for a stack. Return whether it succeeded, and the reasons of its failed resources."""
    succeeded = True
    try:
        cloudformation.get_waiter(waiter).wait(StackName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 30})
    except WaiterError:
        succeeded = False
    events = cloudformation.describe_stack_events(StackName=name)["StackEvents"] if not succeeded else []
    failed = [event for event in events if event["ResourceStatus"].endswith("FAILED")]
    return succeeded, " ".join(str(event.get("ResourceStatusReason")) for event in failed)


def test_a_missing_right_of_a_handler_fails_the_resource(stack: Stack) -> None:
    """CloudFormation works with the caller's permissions; what AWS's schema names is needed."""
    allowed = {"Effect": "Allow", "Action": EVERY_STREAM, "Resource": "*"}
    denied = {"Effect": "Deny", "Action": "kinesis:ListTagsForResource", "Resource": "*"}
    with a_user(stack.emulator, allowed, denied) as cloudformation:
        cloudformation.create_stack(StackName="limited", TemplateBody=a_template(Stream=STREAM))
        succeeded, said = outcome(cloudformation, "stack_create_complete", "limited")
        cloudformation.delete_stack(StackName="limited")

    assert not succeeded
    assert "not authorized to perform: kinesis:ListTagsForResource" in said


def test_a_right_on_another_resource_does_not_count(stack: Stack) -> None:
    """The policies name the stack's own resources."""
    allowed = {"Effect": "Allow", "Action": EVERY_STREAM, "Resource": "arn:aws:kinesis:*:*:stream/other-*"}
    with a_user(stack.emulator, allowed) as cloudformation:
        cloudformation.create_stack(StackName="limited", TemplateBody=a_template(Stream=STREAM))
        succeeded, said = outcome(cloudformation, "stack_create_complete", "limited")
        cloudformation.delete_stack(StackName="limited")

    assert not succeeded
    assert "stream/limited-Stream" in said


def test_more_than_twice_the_shards_in_one_update_fail(stack: Stack) -> None:
    """Kinesis refuses the call, from CloudFormation as from anybody else."""
    cloudformation, kinesis = stack.emulator.client("cloudformation"), stack.emulator.client("kinesis")
    cloudformation.create_stack(StackName="sized", TemplateBody=a_template(Stream=STREAM))
    outcome(cloudformation, "stack_create_complete", "sized")
    more = STREAM | {"Properties": {"ShardCount": 3}}
    cloudformation.update_stack(StackName="sized", TemplateBody=a_template(Stream=more))
    succeeded, said = outcome(cloudformation, "stack_update_complete", "sized")
    name = stack.outputs["StreamName"]
    with pytest.raises(ClientError, match="beyond double or half"):
        kinesis.update_shard_count(StreamName=name, TargetShardCount=3, ScalingType="UNIFORM_SCALING")
    cloudformation.delete_stack(StackName="sized")

    assert not succeeded
    assert "beyond double or half" in said


def test_concurrency_beyond_the_quota_fails_the_function(stack: Stack) -> None:
    """Lambda keeps 100 of the account's 1,000 unreserved."""
    cloudformation = stack.emulator.client("cloudformation")
    code = {"ZipFile": "def handler(event, context): pass"}
    role = "arn:aws:iam::000000000000:role/x"
    properties = {"Handler": "index.handler", "Runtime": "python3.13", "Role": role, "Code": code}
    function = {
        "Type": "AWS::Lambda::Function",
        "Properties": properties | {"ReservedConcurrentExecutions": 901},
    }
    cloudformation.create_stack(StackName="reserving", TemplateBody=a_template(Function=function))
    succeeded, said = outcome(cloudformation, "stack_create_complete", "reserving")
    cloudformation.delete_stack(StackName="reserving")

    assert not succeeded
    assert "UnreservedConcurrentExecution below its minimum value of [100]" in said


def test_a_bucket_with_an_object_keeps_its_stack(stack: Stack) -> None:
    """The deletion fails and can be repeated once the bucket is empty."""
    cloudformation, s3 = stack.emulator.client("cloudformation"), stack.emulator.client("s3")
    cloudformation.create_stack(StackName="full", TemplateBody=a_template(Bucket={"Type": "AWS::S3::Bucket"}))
    outcome(cloudformation, "stack_create_complete", "full")
    found = cloudformation.describe_stack_resource(StackName="full", LogicalResourceId="Bucket")
    bucket = found["StackResourceDetail"]["PhysicalResourceId"]
    s3.put_object(Bucket=bucket, Key="k", Body=b"")
    cloudformation.delete_stack(StackName="full")
    succeeded, said = outcome(cloudformation, "stack_delete_complete", "full")
    assert not succeeded
    assert "not empty" in said

    s3.delete_object(Bucket=bucket, Key="k")
    cloudformation.delete_stack(StackName="full")
    assert outcome(cloudformation, "stack_delete_complete", "full")[0]


def test_the_documented_policies_are_not_those_of_an_administrator(stack: Stack) -> None:
    """Its deployer can neither change another stack's function nor read another secret."""
    keys = stack.emulator.users[f"deployer-of-{stack.name}"]
    own = {
        "endpoint_url": stack.emulator.url,
        "verify": str(stack.emulator.certificate),
        "region_name": "us-east-1",
        "aws_access_key_id": keys["AWS_ACCESS_KEY_ID"],
        "aws_secret_access_key": keys["AWS_SECRET_ACCESS_KEY"],
    }
    stack.emulator.client("secretsmanager").create_secret(Name="somebody-elses", SecretString="1")
    secrets: Any = boto3.client("secretsmanager", **own)  # type: ignore[call-overload]  # options in a dict
    functions: Any = boto3.client("lambda", **own)  # type: ignore[call-overload]
    try:
        with pytest.raises(ClientError, match="AccessDenied"):
            secrets.get_secret_value(SecretId="somebody-elses")
        with pytest.raises(ClientError, match="AccessDenied"):
            functions.put_function_concurrency(FunctionName="other", ReservedConcurrentExecutions=0)
    finally:
        secrets.close()
        functions.close()
        stack.emulator.client("secretsmanager").delete_secret(
            SecretId="somebody-elses", ForceDeleteWithoutRecovery=True
        )
