"""What AWS refuses and the emulator does not: run in the emulator's process, by emulator_app.py.

- CloudFormation calls a type's handlers with the caller's permissions, and each handler needs all that AWS's schema says. HANDLERS
  names a file with the actions by type and operation.
- It deletes no bucket that has objects.
- It names a secret after its logical id, without the stack, and a log group after both.
- Lambda keeps 100 of the account's concurrency unreserved.
- Kinesis at most doubles or halves a stream at a time.
"""

import contextvars
import json
import os
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from uuid import uuid4

from ministack.core import iam_evaluator  # type: ignore[import-not-found]  # lives in the emulator's environment
from ministack.core.responses import error_response_json  # type: ignore[import-not-found]  # likewise
from ministack.core.router import extract_access_key_id  # type: ignore[import-not-found]  # likewise
from ministack.services import kinesis, lambda_svc, s3  # type: ignore[import-not-found]  # likewise

_REGION, _ACCOUNT = "us-east-1", "000000000000"
_UNRESERVED = 100
_caller: contextvars.ContextVar[str] = contextvars.ContextVar("caller", default="")

# The resource that a handler's action needs, by type; `{}` is the physical id or, before there is one, `STACK-ID-…`.
_ARNS: Mapping[str, str] = {
    "AWS::ApiGatewayV2::ApiMapping": "apigateway:us-east-1::/domainnames/{}/apimappings/1",
    "AWS::ApiGatewayV2::DomainName": "apigateway:us-east-1::/domainnames/{}",
    "AWS::ApiGatewayV2": "apigateway:us-east-1::/apis/{}",
    "AWS::AppConfig": "appconfig:R:A:application/{}",
    "AWS::CertificateManager::Certificate": "acm:R:A:certificate/{}",
    "AWS::CloudFront::Distribution": "cloudfront::A:distribution/{}",
    "AWS::CloudFront::OriginAccessControl": "cloudfront::A:origin-access-control/{}",
    "AWS::CloudFront::ResponseHeadersPolicy": "cloudfront::A:response-headers-policy/{}",
    "AWS::CloudWatch::Alarm": "cloudwatch:R:A:alarm:{}",
    "AWS::CodeDeploy::Application": "codedeploy:R:A:application:{}",
    "AWS::CodeDeploy::DeploymentGroup": "codedeploy:R:A:deploymentgroup:{}",
    "AWS::DynamoDB::Table": "dynamodb:R:A:table/{}",
    "AWS::ElastiCache::ServerlessCache": "elasticache:R:A:serverlesscache:{}",
    "AWS::ElastiCache::User": "elasticache:R:A:user:{}",
    "AWS::ElastiCache::UserGroup": "elasticache:R:A:usergroup:{}",
    "AWS::Events::Rule": "events:R:A:rule/{}",
    "AWS::IAM::Role": "iam::A:role/{}",
    "AWS::Kinesis::Stream": "kinesis:R:A:stream/{}",
    "AWS::Lambda::EventSourceMapping": "lambda:R:A:event-source-mapping:{}",
    "AWS::Lambda": "lambda:R:A:function:{}",
    "AWS::Logs": "logs:R:A:log-group:{}",
    "AWS::S3": "s3:::{}",
    "AWS::SNS": "sns:R:A:{}",
    "AWS::SQS": "sqs:R:A:{}",
    "AWS::SecretsManager::Secret": "secretsmanager:R:A:secret:{}",
}

# Actions on another resource than the type's own.
_ELSEWHERE: Mapping[str, str] = {
    "codedeploy:*Revision": "codedeploy:R:A:application:{stack}-x",
    "codedeploy:GetDeploymentConfig": "codedeploy:R:A:deploymentconfig:CodeDeployDefault.LambdaAllAtOnce",
    "codedeploy:*": "codedeploy:R:A:deploymentgroup:{stack}-x",
    "route53:GetChange": "route53:::change/1",
    "route53:*": "route53:::hostedzone/*",
}

Properties = Mapping[str, Any]


class RefusedError(Exception):
    """CloudFormation's reason for a failed resource."""


def _arn(kind: str, action: str, identity: str, stack: str) -> str:
    if not kind.startswith("AWS::CodeDeploy::Application"):
        for pattern, text in _ELSEWHERE.items():
            if fnmatchcase(action, pattern):
                return _filled(text.format(stack=stack))
    text = _ARNS.get(kind) or _ARNS[kind.rpartition("::")[0]]
    return _filled(text.format(identity))


def _filled(text: str) -> str:
    return "arn:aws:" + text.replace(":R:", f":{_REGION}:").replace(":A:", f":{_ACCOUNT}:")


# The property that names a resource, or the resource that it is part of.
_NAMES: Mapping[str, str] = {
    "AWS::CloudWatch::Alarm": "AlarmName",
    "AWS::ElastiCache::ServerlessCache": "ServerlessCacheName",
    "AWS::ElastiCache::User": "UserId",
    "AWS::ElastiCache::UserGroup": "UserGroupId",
    "AWS::Lambda::Alias": "FunctionName",
    "AWS::Lambda::EventInvokeConfig": "FunctionName",
    "AWS::Lambda::Permission": "FunctionName",
    "AWS::Lambda::Version": "FunctionName",
    "AWS::Logs::LogGroup": "LogGroupName",
    "AWS::Logs::MetricFilter": "LogGroupName",
    "AWS::S3::Bucket": "BucketName",
    "AWS::S3::BucketPolicy": "Bucket",
    "AWS::SecretsManager::Secret": "Name",
}


def _identity(kind: str, properties: Properties, otherwise: str) -> str:
    """Return a resource's name as it stands in its ARN."""
    name = str(properties.get(_NAMES.get(kind, "")) or otherwise)
    name = name.rpartition("/")[2] if name.startswith("http") else name
    if name.startswith("arn:"):
        parts = name.split(":", 5)[5].split(":")
        name = parts[1] if parts[0] in ("function", "secret", "alarm") else parts[0].rpartition("/")[2]
    return name.partition("|")[0]


def _check_rights(kind: str, operation: str, properties: Properties, otherwise: str, stack: str) -> None:
    if kind not in _HANDLERS:
        return
    for action in _HANDLERS[kind][operation]:
        place = _arn(kind, action, _identity(kind, properties, otherwise), stack)
        context = {
            "elasticache:ConnectionType": "public",
            "iam:PassedToService": "lambda.amazonaws.com",
            "iam:PermissionsBoundary": properties.get("PermissionsBoundary"),
        }
        context = {key: value for key, value in context.items() if value}
        asked = _caller.get(), action, action.partition(":")[0], _REGION
        denied = iam_evaluator.enforce(*asked, resource_arn=place, service_context=context)
        if denied:
            raise RefusedError(f"not authorized to perform: {action} on resource: {place}")


def _objects(bucket: str) -> int:
    found = s3._buckets.get(bucket)
    return len(found["objects"]) + s3._bucket_has_versions(bucket) if found else 0


def _reserve(function: str, properties: Properties) -> None:
    """Reserve concurrency as CloudFormation does, if Lambda lets it."""
    wanted = properties.get("ReservedConcurrentExecutions")
    others = [
        lambda_svc._functions[name].get("concurrency") or 0
        for name in list(lambda_svc._functions.keys())  # the store itself iterates over all accounts
        if name != function
    ]
    most = lambda_svc._ACCOUNT_CONCURRENCY_CAP or 1000
    if wanted is not None and most - sum(others) - int(wanted) < _UNRESERVED:
        raise RefusedError(
            f"Specified ReservedConcurrentExecutions for function decreases account's UnreservedConcurrentExecution below its minimum value of [{_UNRESERVED}]."
        )
    if function in lambda_svc._functions:
        lambda_svc._functions[function]["concurrency"] = None if wanted is None else int(wanted)


class _Guard:
    """A type's handlers, with the refusals of AWS."""

    def __init__(self, kind: str, handler: dict[str, Any]) -> None:
        self._kind = kind
        self._handler = handler

    def create(self, logical_id: str, properties: Properties, stack: str, *more: Any) -> Any:
        unique = f"{logical_id}-{uuid4().hex[:12]}"
        if self._kind == "AWS::SecretsManager::Secret":
            properties = {"Name": unique, **properties}
        if self._kind == "AWS::Logs::LogGroup":
            properties = {"LogGroupName": f"{stack}-{unique}", **properties}
        _check_rights(self._kind, "create", properties, f"{stack}-{unique}", stack)
        is_function = self._kind == "AWS::Lambda::Function"
        if is_function:
            _reserve("", properties)
        made = self._handler["create"](logical_id, properties, stack, *more)
        if is_function:
            _reserve(made[0], properties)
        return made

    def update(self, physical_id: str, before: Properties, after: Properties, stack: str, *more: Any) -> Any:
        _check_rights(self._kind, "update", after, physical_id, stack)
        if self._kind == "AWS::Lambda::Function":
            _reserve(physical_id, after)
        if self._kind == "AWS::Kinesis::Stream":
            _check_shards(int(before.get("ShardCount", 4)), int(after.get("ShardCount", 4)))
        return self._handler["update"](physical_id, before, after, stack, *more)

    def delete(self, physical_id: str, properties: Properties, *more: Any) -> Any:
        stack = "-".join(physical_id.split("-")[:2])
        _check_rights(self._kind, "delete", properties, physical_id, stack)
        if self._kind == "AWS::S3::Bucket" and _objects(physical_id):
            raise RefusedError("The bucket you tried to delete is not empty")
        return self._handler["delete"](physical_id, properties, *more)


def guarded(kind: str, handler: dict[str, Any]) -> dict[str, Any]:
    """Return a type's handlers with the refusals of AWS."""
    guard = _Guard(kind, handler)
    wrapped = {"create": guard.create, "update": guard.update, "delete": guard.delete}
    return handler | {name: wrapper for name, wrapper in wrapped.items() if name in handler}


def _check_shards(before: int, after: int) -> None:
    if not before / 2 <= after <= 2 * before:
        raise RefusedError(f"UpdateShardCount: {after} is beyond double or half of {before}")


_update_shard_count = kinesis._update_shard_count


def _stepped(data: Mapping[str, Any]) -> Any:
    stream = kinesis._streams.get(data.get("StreamName"))
    try:
        if stream:
            _check_shards(len(stream["shards"]), int(data["TargetShardCount"]))
    except RefusedError as error:
        return error_response_json("LimitExceededException", str(error), 400)
    return _update_shard_count(data)


_pin = iam_evaluator.pin_request_caller


def _pin_caller(headers: dict[str, Any], query: dict[str, Any] | None = None) -> None:
    _pin(headers, query)
    _caller.set(extract_access_key_id(headers or {}, query or {}))


_file = os.environ.get("HANDLERS")
_HANDLERS: Mapping[str, Mapping[str, list[str]]] = json.loads(Path(_file).read_text()) if _file else {}
kinesis._update_shard_count = _stepped
iam_evaluator.pin_request_caller = _pin_caller
