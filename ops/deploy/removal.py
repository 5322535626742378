"""Removes a stack and its data, and proves that nothing is left.

The order decides what a failure costs. First the functions stop, so that nothing is accepted or written any more. Then CloudFormation
deletes the stack. Only when all that is left of it is its buckets, which CloudFormation does not delete while they have objects, are they
emptied. If the stack survives, its objects are there and its functions run again.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from botocore.exceptions import BotoCoreError, ClientError, WaiterError

from ops.deploy.code_bucket import CodeBucket
from ops.failure import FORESEEN, Failure, explained, if_there, is_absent
from ops.help_page import RIGHTS_TO_DEPLOY
from ops.stack import Stack
from shared.clock import Clock

if TYPE_CHECKING:
    from mypy_boto3_cloudformation.type_defs import WaiterConfigTypeDef

_PATIENCE_SECONDS = 3600.0
_ROUNDS = 5
_BUCKET, _FUNCTION = "AWS::S3::Bucket", "AWS::Lambda::Function"


@dataclass(frozen=True, slots=True)
class StackResource:
    """A resource of the stack: its id in the template, its id in AWS, and its type."""

    logical_id: str
    physical_id: str
    kind: str


def resources_of(stack: Stack, *, retained: bool = True) -> Iterator[StackResource]:
    """Yield the resources that a stack has, or had and CloudFormation has `retained`."""
    gone = ("DELETE_COMPLETE",) if retained else ("DELETE_COMPLETE", "DELETE_SKIPPED")
    pages = stack.client("cloudformation").get_paginator("list_stack_resources")
    for page in pages.paginate(StackName=stack.deleted or stack.name):
        for one in page["StackResourceSummaries"]:
            if one["ResourceStatus"] not in gone:
                yield StackResource(
                    one["LogicalResourceId"], one.get("PhysicalResourceId", ""), one["ResourceType"]
                )


type _Look = Callable[[Stack, str], bool]


def _described(service: str, operation: str, argument: str, *, many: bool = False) -> _Look:
    """Return a check that finds a resource if a call with its id succeeds and, with `many`, returns any items."""

    def is_there(stack: Stack, physical_id: str) -> bool:
        call = getattr(stack.client(service), operation)
        answer = if_there(call, **{argument: [physical_id] if many else physical_id})
        if answer is None:
            return False
        lists = [value for value in answer.values() if isinstance(value, list)]
        return any(lists) if many and lists else True

    return is_there


def _secret(stack: Stack, physical_id: str) -> bool:
    """Return whether a secret exists. One that is scheduled for deletion does not count, because it costs nothing."""
    found = _described("secretsmanager", "describe_secret", "SecretId")(stack, physical_id)
    return found and "DeletedDate" not in stack.client("secretsmanager").describe_secret(SecretId=physical_id)


def _log_group(stack: Stack, physical_id: str) -> bool:
    groups = stack.client("logs").describe_log_groups(logGroupNamePrefix=physical_id)["logGroups"]
    return any(one["logGroupName"] == physical_id for one in groups)


LOOKS: Mapping[str, _Look] = {
    "AWS::ApiGatewayV2::Api": _described("apigatewayv2", "get_api", "ApiId"),
    "AWS::ApiGatewayV2::DomainName": _described("apigatewayv2", "get_domain_name", "DomainName"),
    "AWS::AppConfig::Application": _described("appconfig", "get_application", "ApplicationId"),
    "AWS::CertificateManager::Certificate": _described("acm", "describe_certificate", "CertificateArn"),
    "AWS::CloudFront::Distribution": _described("cloudfront", "get_distribution", "Id"),
    "AWS::CloudFront::OriginAccessControl": _described("cloudfront", "get_origin_access_control", "Id"),
    "AWS::CloudFront::ResponseHeadersPolicy": _described("cloudfront", "get_response_headers_policy", "Id"),
    "AWS::CloudWatch::Alarm": _described("cloudwatch", "describe_alarms", "AlarmNames", many=True),
    "AWS::CodeDeploy::Application": _described("codedeploy", "get_application", "applicationName"),
    "AWS::DynamoDB::Table": _described("dynamodb", "describe_table", "TableName"),
    "AWS::ElastiCache::ServerlessCache": _described(
        "elasticache", "describe_serverless_caches", "ServerlessCacheName"
    ),
    "AWS::ElastiCache::User": _described("elasticache", "describe_users", "UserId"),
    "AWS::ElastiCache::UserGroup": _described("elasticache", "describe_user_groups", "UserGroupId"),
    "AWS::Events::Rule": _described("events", "describe_rule", "Name"),
    "AWS::IAM::Role": _described("iam", "get_role", "RoleName"),
    "AWS::Kinesis::Stream": _described("kinesis", "describe_stream_summary", "StreamName"),
    "AWS::Lambda::EventSourceMapping": _described("lambda", "get_event_source_mapping", "UUID"),
    "AWS::Lambda::Function": _described("lambda", "get_function", "FunctionName"),
    "AWS::Logs::LogGroup": _log_group,
    "AWS::S3::Bucket": _described("s3", "head_bucket", "Bucket"),
    "AWS::SNS::Topic": _described("sns", "get_topic_attributes", "TopicArn"),
    "AWS::SQS::Queue": _described("sqs", "get_queue_attributes", "QueueUrl"),
    "AWS::SecretsManager::Secret": _secret,
}
"""How to check whether a resource exists, by type."""

GO_WITH: Mapping[str, str] = {
    "AWS::ApiGatewayV2::ApiMapping": "AWS::ApiGatewayV2::DomainName",
    "AWS::ApiGatewayV2::Integration": "AWS::ApiGatewayV2::Api",
    "AWS::ApiGatewayV2::Route": "AWS::ApiGatewayV2::Api",
    "AWS::ApiGatewayV2::Stage": "AWS::ApiGatewayV2::Api",
    "AWS::AppConfig::ConfigurationProfile": "AWS::AppConfig::Application",
    "AWS::AppConfig::HostedConfigurationVersion": "AWS::AppConfig::Application",
    "AWS::CodeDeploy::DeploymentGroup": "AWS::CodeDeploy::Application",
    "AWS::Lambda::Alias": "AWS::Lambda::Function",
    "AWS::Lambda::EventInvokeConfig": "AWS::Lambda::Function",
    "AWS::Lambda::Permission": "AWS::Lambda::Function",
    "AWS::Lambda::Version": "AWS::Lambda::Function",
    "AWS::Logs::MetricFilter": "AWS::Logs::LogGroup",
    "AWS::Route53::RecordSet": "the hosted zone, where a deploy of the same name would say so",
    "AWS::S3::BucketPolicy": "AWS::S3::Bucket",
    "AWS::SNS::TopicPolicy": "AWS::SNS::Topic",
    "AWS::SQS::QueuePolicy": "AWS::SQS::Queue",
}
"""Types that are part of another resource and are deleted with it."""


class Removed(NamedTuple):
    """What a removal has done: how many resources the stack had, the ids of those that are left, and why others could not be checked."""

    total: int
    left: dict[str, str]
    unseen: dict[str, str]


@dataclass(frozen=True, slots=True)
class Removal:
    """Removes one stack."""

    stack: Stack
    clock: Clock
    poll_seconds: float
    say: Callable[[str], None]

    def run(self) -> Removed:
        """Remove everything, and look whether anything is left.

        Raises:
            Failure: the removal has failed.
        """
        try:
            resources = list(resources_of(self.stack))
            if not self.stack.deleted:
                self._remove_stack(resources)
            self._remove_rest(resources)
            return self._left(resources)
        except FORESEEN as error:
            raise explained(error, RIGHTS_TO_DEPLOY) from error

    def _remove_stack(self, resources: list[StackResource]) -> None:
        self._check_protection()
        stopped = self._stop([one.physical_id for one in resources if one.kind == _FUNCTION])
        try:
            self._delete_stack()
        except (Failure, *FORESEEN):
            self._start_again(stopped)
            raise

    def _remove_rest(self, resources: list[StackResource]) -> None:
        """Remove what CloudFormation retains, which an earlier attempt may have left."""
        for one in resources:
            if (one.kind == _BUCKET or one.kind in RETAINED) and self._is_there(one):
                self.say(f"deleting {one.logical_id}, which the stack has retained")
                try:
                    self._delete(one)
                except ClientError as error:
                    if not is_absent(error):  # SQS may show a deleted queue for a minute
                        raise
        self._remove_code()

    def _delete(self, one: StackResource) -> None:
        if one.kind == _BUCKET:
            self._delete_bucket(one.physical_id)
        else:
            RETAINED[one.kind](self.stack, one.physical_id)

    def _check_protection(self) -> None:
        name = self.stack.name
        (found,) = self.stack.client("cloudformation").describe_stacks(StackName=name)["Stacks"]
        if found.get("EnableTerminationProtection"):
            raise Failure(
                f"{name} has termination protection, so nothing was removed. To lift it: `aws cloudformation "
                f"update-termination-protection --no-enable-termination-protection --stack-name {name}`"
            )

    def _stop(self, functions: list[str]) -> dict[str, int | None]:
        """Let Lambda run none of the functions; return their reserved concurrency before, None where nothing was reserved."""
        self.say("stopping the functions")
        client = self.stack.client("lambda")
        before: dict[str, int | None] = {}
        for name in functions:
            try:
                found = client.get_function_concurrency(FunctionName=name)
                before[name] = found.get("ReservedConcurrentExecutions")
                client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)
            except BaseException as error:  # Ctrl-C, too
                if is_absent(error):
                    continue  # an earlier attempt has deleted it
                self._start_again(before)
                raise
        return before

    def _start_again(self, stopped: Mapping[str, int | None]) -> None:
        client = self.stack.client("lambda")
        for name, reserved in stopped.items():
            try:
                if reserved is None:
                    client.delete_function_concurrency(FunctionName=name)
                else:
                    client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=reserved)
            except (ClientError, BotoCoreError) as error:
                if is_absent(error):
                    continue  # CloudFormation has deleted it
                self.say(f"{name} does not run again: {explained(error, RIGHTS_TO_DEPLOY).message}")

    def _delete_stack(self) -> None:
        """Delete the stack. Its buckets are emptied once nothing else of it is left."""
        if left := self._deleted():
            others = [one for one in left if one.kind != _BUCKET]
            if others:
                raise Failure(
                    f"CloudFormation did not delete {', '.join(one.logical_id for one in others)} of {self.stack.name}: "
                    "`aws cloudformation describe-stack-events` shows why. The buckets have not been emptied"
                )
            for one in left:
                self._empty(one.physical_id)
            if self._deleted():
                raise Failure(f"CloudFormation did not delete the empty buckets of {self.stack.name}")

    def _deleted(self) -> list[StackResource]:
        """Delete the stack; return what CloudFormation has left of it."""
        self.say(f"deleting the stack {self.stack.name}")
        cloudformation = self.stack.client("cloudformation")
        cloudformation.delete_stack(StackName=self.stack.name)
        seconds = max(1, int(self.poll_seconds))
        pace: WaiterConfigTypeDef = {"Delay": seconds, "MaxAttempts": int(_PATIENCE_SECONDS / seconds)}
        try:
            cloudformation.get_waiter("stack_delete_complete").wait(
                StackName=self.stack.name, WaiterConfig=pace
            )
        except WaiterError as error:
            left = list(resources_of(self.stack, retained=False))
            if not left:
                raise Failure(f"CloudFormation did not delete {self.stack.name}") from error
            return left
        return []

    def _delete_bucket(self, bucket: str) -> None:
        for _ in range(_ROUNDS):
            self._empty(bucket)
            try:
                self.stack.client("s3").delete_bucket(Bucket=bucket)
            except ClientError as error:
                if error.response["Error"]["Code"] != "BucketNotEmpty":
                    raise
            else:
                return
        raise Failure(f"{bucket} is never empty: something still writes to it")

    def _remove_code(self) -> None:
        """Remove the bucket that `sluice deploy` has created, if it has."""
        account = self.stack.client("sts").get_caller_identity()["Account"]
        region = str(self.stack.session.region_name)
        bucket = CodeBucket(self.stack.client("s3"), self.stack.name, account, region)
        if bucket.is_there():
            self._delete_bucket(bucket.name)

    def _empty(self, bucket: str) -> None:
        self.say(f"emptying {bucket}")
        for answer in self.stack.session.resource("s3").Bucket(bucket).object_versions.delete():
            for error in answer.get("Errors", ()):
                raise Failure(f"S3 did not delete {error['Key']} of {bucket}: {error['Code']}")

    def _left(self, resources: list[StackResource]) -> Removed:
        found = Removed(len(resources), {}, {})
        until = self.clock.now() + 300
        for one in resources:
            try:
                while self._is_there(one):
                    if self.clock.now() > until:
                        found.left[one.logical_id] = one.physical_id
                        break
                    self.clock.sleep(self.poll_seconds)
            except (ClientError, BotoCoreError) as error:
                found.unseen[one.logical_id] = explained(error, RIGHTS_TO_DEPLOY).message
            if one.kind not in LOOKS and one.kind not in GO_WITH:
                found.unseen[one.logical_id] = f"no check for {one.kind}"
        return found

    def _is_there(self, one: StackResource) -> bool:
        look = LOOKS.get(one.kind)
        return look is not None and bool(one.physical_id) and look(self.stack, one.physical_id)


def _delete_table(stack: Stack, name: str) -> None:
    client = stack.client("dynamodb")
    if client.describe_table(TableName=name)["Table"].get("DeletionProtectionEnabled"):
        client.update_table(TableName=name, DeletionProtectionEnabled=False)
        client.get_waiter("table_exists").wait(TableName=name)
    client.delete_table(TableName=name)


RETAINED: Mapping[str, Callable[[Stack, str], object]] = {
    "AWS::DynamoDB::Table": _delete_table,
    "AWS::Kinesis::Stream": lambda stack, name: stack.client("kinesis").delete_stream(
        StreamName=name, EnforceConsumerDeletion=True
    ),
    "AWS::SQS::Queue": lambda stack, url: stack.client("sqs").delete_queue(QueueUrl=url),
    "AWS::SecretsManager::Secret": lambda stack, name: stack.client("secretsmanager").delete_secret(
        SecretId=name
    ),
}
"""How to delete the resources that a prod stack retains, by type, except its buckets."""
