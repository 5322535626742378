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
FUNCTION = {
    "Type": "AWS::Lambda::Function",
    "Properties": {
        "Handler": "index.handler",
        "Runtime": "python3.13",
        "Role": "arn:aws:iam::000000000000:role/x",
        "Code": {"ZipFile": "def handler(event, context): pass"},
        "ReservedConcurrentExecutions": 901,
    },
}
TAGS, OTHERS = "kinesis:ListTagsForResource", "arn:aws:kinesis:*:*:stream/other-*"


def statement(effect: str, action: str, resource: str = "*") -> dict[str, str]:
    """Return a statement of a policy."""
    return {"Effect": effect, "Action": action, "Resource": resource}


@contextmanager
def a_user(emulator: Ministack, statements: list[dict[str, str]]) -> Iterator[Any]:
    """Yield the CloudFormation client of a user who may use it, and what the statements allow."""
    iam, name = emulator.client("iam"), "limited"
    iam.create_user(UserName=name)
    allowed = [statement("Allow", "cloudformation:*"), *statements]
    document = json.dumps({"Version": "2012-10-17", "Statement": allowed})
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


def outcome(cloudformation: Any, waiter: str, name: str) -> str:
    """Wait for a stack. Return the reasons of its failed resources, or nothing if it succeeded."""
    try:
        cloudformation.get_waiter(waiter).wait(StackName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 30})
    except WaiterError:
        events = cloudformation.describe_stack_events(StackName=name)["StackEvents"]
        failed = [event for event in events if event["ResourceStatus"].endswith("FAILED")]
        return " ".join(str(event.get("ResourceStatusReason")) for event in failed) or "no reason"
    return ""


@pytest.mark.parametrize(
    ("resource", "statements", "said"),
    [
        (STREAM, [statement("Allow", "kinesis:*"), statement("Deny", TAGS)], f"not authorized to perform: {TAGS}"),
        (STREAM, [statement("Allow", "kinesis:*", OTHERS)], "stream/refused-Made"),
        (FUNCTION, [statement("Allow", "*")], "UnreservedConcurrentExecution below its minimum value of [100]"),
    ],
    ids=["right of a handler", "right on another resource", "quota"],
)  # fmt: skip
def test_what_aws_refuses_to_create_fails_the_stack(
    stack: Stack, resource: Mapping[str, Any], statements: list[dict[str, str]], said: str
) -> None:
    """CloudFormation needs what AWS's schema names, on this resource; Lambda keeps 100 of the account's 1,000 unreserved."""
    with a_user(stack.emulator, statements) as cloudformation:
        template = json.dumps({"Resources": {"Made": resource}})
        cloudformation.create_stack(StackName="refused", TemplateBody=template)
        found = outcome(cloudformation, "stack_create_complete", "refused")
        cloudformation.delete_stack(StackName="refused")

    assert said in found


def test_what_aws_refuses_to_change_or_delete_fails_the_stack(stack: Stack) -> None:
    """More than twice the shards in one call, from CloudFormation or anybody else; and a bucket with an object, until it is empty."""
    kinesis, s3 = stack.emulator.client("kinesis"), stack.emulator.client("s3")
    cloudformation, name = stack.emulator.client("cloudformation"), "changed"
    made = {"Stream": STREAM, "Bucket": {"Type": "AWS::S3::Bucket"}}
    more = made | {"Stream": STREAM | {"Properties": {"ShardCount": 3}}}
    cloudformation.create_stack(StackName=name, TemplateBody=json.dumps({"Resources": made}))
    assert "" == outcome(cloudformation, "stack_create_complete", name)
    cloudformation.update_stack(StackName=name, TemplateBody=json.dumps({"Resources": more}))
    assert "beyond double or half" in outcome(cloudformation, "stack_update_complete", name)
    resize = {"StreamName": stack.outputs["StreamName"], "ScalingType": "UNIFORM_SCALING"}
    with pytest.raises(ClientError, match="beyond double or half"):
        kinesis.update_shard_count(**resize, TargetShardCount=3)

    found = cloudformation.describe_stack_resource(StackName=name, LogicalResourceId="Bucket")
    bucket = found["StackResourceDetail"]["PhysicalResourceId"]
    s3.put_object(Bucket=bucket, Key="k", Body=b"")
    cloudformation.delete_stack(StackName=name)
    assert "not empty" in outcome(cloudformation, "stack_delete_complete", name)
    s3.delete_object(Bucket=bucket, Key="k")
    cloudformation.delete_stack(StackName=name)
    assert "" == outcome(cloudformation, "stack_delete_complete", name)
