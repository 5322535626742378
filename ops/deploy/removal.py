"""Removes a stack and its data, and looks whether anything retained is left.

The order decides what a failure costs. First the functions stop, so that nothing is accepted or written any more. Then CloudFormation
deletes the stack. Only when all that is left of it is its buckets, which CloudFormation does not delete while they have objects, are they
emptied. If the stack survives, its objects are there and its functions run again. What CloudFormation says that it has retained is deleted
and looked for here; what it says that it has deleted is not.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from botocore.exceptions import BotoCoreError, ClientError, WaiterError

from ops import screen
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
_STREAM, _TABLE = "AWS::Kinesis::Stream", "AWS::DynamoDB::Table"
_VERSION = "AWS::Lambda::Version"  # CloudFormation retains it, and it goes with its function


@dataclass(frozen=True, slots=True)
class StackResource:
    """A resource of the stack: its id in the template, its id in AWS, its type, and whether CloudFormation has deleted the stack without it."""

    logical_id: str
    physical_id: str
    kind: str
    is_retained: bool


class Retained(NamedTuple):
    """How to look for resources of a type, and how to delete them."""

    service: str
    look: str
    delete: str
    argument: str


RETAINED: Mapping[str, Retained] = {
    _TABLE: Retained("dynamodb", "describe_table", "delete_table", "TableName"),
    _STREAM: Retained("kinesis", "describe_stream_summary", "delete_stream", "StreamName"),
    _BUCKET: Retained("s3", "head_bucket", "delete_bucket", "Bucket"),
    "AWS::SQS::Queue": Retained("sqs", "get_queue_attributes", "delete_queue", "QueueUrl"),
    "AWS::SecretsManager::Secret": Retained("secretsmanager", "describe_secret", "delete_secret", "SecretId"),
}
"""The types of resources that a stack retains: in prod, or because a bucket has objects."""


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

    def run(self) -> Removed:
        """Remove everything, and look whether anything retained is left.

        Raises:
            Failure: the removal has failed.
        """
        try:
            stack_id = self.stack.deleted or self._unprotected()
            resources = self._resources(stack_id)
            if not self.stack.deleted:
                self._remove_stack(stack_id, resources)
            retained = self._resources(stack_id)
            self._remove_rest(retained)
            return self._left(len(resources), retained)
        except FORESEEN as error:
            raise explained(error, RIGHTS_TO_DEPLOY) from error

    def _unprotected(self) -> str:
        """Return the stack's id, if it may be deleted."""
        name = self.stack.name
        (found,) = self.stack.client("cloudformation").describe_stacks(StackName=name)["Stacks"]
        if found.get("EnableTerminationProtection"):
            raise Failure(
                f"{name} has termination protection, so nothing was removed. To lift it: `aws cloudformation "
                f"update-termination-protection --no-enable-termination-protection --stack-name {name}`"
            )
        return found["StackId"]

    def _resources(self, stack_id: str) -> list[StackResource]:
        """Return the resources that the stack has, or had and CloudFormation has retained."""
        pages = self.stack.client("cloudformation").get_paginator("list_stack_resources")
        return [
            StackResource(
                one["LogicalResourceId"],
                one.get("PhysicalResourceId", ""),
                one["ResourceType"],
                one["ResourceStatus"] == "DELETE_SKIPPED",
            )
            for page in pages.paginate(StackName=stack_id)
            for one in page["StackResourceSummaries"]
            if one["ResourceStatus"] != "DELETE_COMPLETE"
        ]

    def _remove_stack(self, stack_id: str, resources: list[StackResource]) -> None:
        stopped = self._stop([one.physical_id for one in resources if one.kind == _FUNCTION])
        try:
            self._delete_stack(stack_id)
        except (Failure, *FORESEEN):
            self._start_again(stopped)
            raise

    def _remove_rest(self, retained: list[StackResource]) -> None:
        """Remove what CloudFormation has retained, of which an earlier attempt may have removed some."""
        for one in retained:
            if self._is_there(one):
                screen.note(f"deleting {one.logical_id}, which the stack has retained")
                try:
                    self._delete(one)
                except ClientError as error:
                    if not is_absent(error):  # SQS may show a deleted queue for a minute
                        raise
        self._remove_code()

    def _is_there(self, one: StackResource) -> bool:
        """Return whether something retained is there. A secret that is scheduled for deletion does not count, because it costs nothing."""
        if one.kind not in RETAINED or not one.physical_id:
            return False
        how = RETAINED[one.kind]
        look = getattr(self.stack.client(how.service), how.look)
        found = if_there(look, **{how.argument: one.physical_id})
        return found is not None and "DeletedDate" not in found

    def _delete(self, one: StackResource) -> None:
        if one.kind == _BUCKET:
            self._delete_bucket(one.physical_id)
            return
        if one.kind == _TABLE:
            dynamodb = self.stack.client("dynamodb")
            found = dynamodb.describe_table(TableName=one.physical_id)["Table"]
            if found.get("DeletionProtectionEnabled"):
                dynamodb.update_table(TableName=one.physical_id, DeletionProtectionEnabled=False)
                dynamodb.get_waiter("table_exists").wait(TableName=one.physical_id)
        how = RETAINED[one.kind]
        more = {"EnforceConsumerDeletion": True} if one.kind == _STREAM else {}
        getattr(self.stack.client(how.service), how.delete)(**{how.argument: one.physical_id}, **more)

    def _stop(self, functions: list[str]) -> dict[str, int | None]:
        """Let Lambda run none of the functions; return their reserved concurrency before, None where nothing was reserved."""
        screen.note("stopping the functions")
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
                if not reserved:  # none, or 0 since a removal that was interrupted
                    client.delete_function_concurrency(FunctionName=name)
                else:
                    client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=reserved)
            except (ClientError, BotoCoreError) as error:
                if is_absent(error):
                    continue  # CloudFormation has deleted it
                screen.note(f"{name} does not run again: {explained(error, RIGHTS_TO_DEPLOY).message}")

    def _delete_stack(self, stack_id: str) -> None:
        """Delete the stack. Its buckets are emptied once nothing else of it is left."""
        if left := self._deleted(stack_id):
            others = [one for one in left if one.kind != _BUCKET]
            if others:
                raise Failure(
                    f"CloudFormation did not delete {', '.join(one.logical_id for one in others)} of {self.stack.name}: "
                    "`aws cloudformation describe-stack-events` shows why. The buckets have not been emptied"
                )
            for one in left:
                self._empty(one.physical_id)
            if self._deleted(stack_id):
                raise Failure(f"CloudFormation did not delete the empty buckets of {self.stack.name}")

    def _deleted(self, stack_id: str) -> list[StackResource]:
        """Delete the stack; return what CloudFormation has left of it."""
        screen.note(f"deleting the stack {self.stack.name}")
        cloudformation = self.stack.client("cloudformation")
        cloudformation.delete_stack(StackName=self.stack.name)
        seconds = max(1, int(self.poll_seconds))
        pace: WaiterConfigTypeDef = {"Delay": seconds, "MaxAttempts": int(_PATIENCE_SECONDS / seconds)}
        try:
            cloudformation.get_waiter("stack_delete_complete").wait(
                StackName=self.stack.name, WaiterConfig=pace
            )
        except WaiterError as error:
            left = [one for one in self._resources(stack_id) if not one.is_retained]
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
        screen.note(f"emptying {bucket}")
        for answer in self.stack.session.resource("s3").Bucket(bucket).object_versions.delete():
            for error in answer.get("Errors", ()):
                raise Failure(f"S3 did not delete {error['Key']} of {bucket}: {error['Code']}")

    def _left(self, total: int, retained: list[StackResource]) -> Removed:
        found = Removed(total, {}, {})
        until = self.clock.now() + 300
        for one in retained:
            if one.kind not in (*RETAINED, _VERSION) and one.physical_id:
                found.left[one.logical_id] = one.physical_id
            try:
                while self._is_there(one):
                    if self.clock.now() > until:
                        found.left[one.logical_id] = one.physical_id
                        break
                    self.clock.sleep(self.poll_seconds)
            except (ClientError, BotoCoreError) as error:
                found.unseen[one.logical_id] = explained(error, RIGHTS_TO_DEPLOY).message
        return found
