"""AWS IAM in memory: roles, and clients that deny every call that a role does not allow.

A client derives the actions and resources that each call needs, as AWS's service authorization reference lists them. It
denies calls with the service's own error, so a missing permission fails in the tests as it would in AWS.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from botocore.exceptions import ClientError

from doubles.aws_errors import client_error
from doubles.dynamodb.expressions import parse_insert

REGION = "us-east-1"
ACCOUNT_ID = "123456789012"
_DECISIONS_KEPT = 4096

_OBJECT_ACTIONS = {
    "put_object": "s3:PutObject",
    "get_object": "s3:GetObject",
    "delete_object": "s3:DeleteObject",
}
_REFUSALS = {"s3": ("AccessDenied", 403), "sqs": ("AccessDenied", 403)}


def arn(service: str, resource: str) -> str:
    """Return the ARN of a resource of this account."""
    return f"arn:aws:{service}:{REGION}:{ACCOUNT_ID}:{resource}"


class Role:
    """What a function may do, given the statements of its policies with references resolved.

    Attributes:
        actions: the actions that the statements name.

    Raises:
        NotImplementedError: a statement has members or conditions that this module does not evaluate.
    """

    def __init__(self, name: str, statements: Sequence[Mapping[str, Any]]) -> None:
        self.name = name
        self._statements = [_Statement(statement) for statement in statements]
        self.actions = {action for one in statements for action in _listed(one["Action"])}
        self._decide = lru_cache(_DECISIONS_KEPT)(self._decided)

    def allows(self, action: str, resource: str, context: Mapping[str, str]) -> bool:
        """Return whether a statement allows an action on an ARN and none denies it, given values of condition keys."""
        return self._decide(action, resource, tuple(context.items()))

    def _decided(self, action: str, resource: str, context: tuple[tuple[str, str], ...]) -> bool:
        values = dict(context)
        effects = {one.effect for one in self._statements if one.covers(action, resource, values)}
        return effects == {"Allow"}


class _Statement:
    def __init__(self, statement: Mapping[str, Any]) -> None:
        conditions = statement.get("Condition", {})
        unknown = statement.keys() - {"Sid", "Effect", "Action", "Resource", "Condition"}
        unknown |= conditions.keys() - {"StringEquals"}
        if unknown:
            raise NotImplementedError(f"IAM in memory does not evaluate {', '.join(unknown)}")
        self.effect = statement["Effect"]
        self._action = _pattern(statement["Action"], re.IGNORECASE)
        self._resource = _pattern(statement["Resource"])
        self._wanted = conditions.get("StringEquals", {})

    def covers(self, action: str, resource: str, context: Mapping[str, str]) -> bool:
        return bool(
            self._action.fullmatch(action)
            and self._resource.fullmatch(resource)
            and all(context.get(key) in _listed(wanted) for key, wanted in self._wanted.items())
        )


def _pattern(texts: Any, flags: int = 0) -> re.Pattern[str]:
    """Return a pattern that matches any of several texts with the wildcards `*` and `?`."""
    escaped = (re.escape(text).replace(r"\*", ".*").replace(r"\?", ".") for text in _listed(texts))
    return re.compile("|".join(f"(?:{one})" for one in escaped), flags | re.DOTALL)


def _listed(value: Any) -> list[str]:
    return value if isinstance(value, list) else [value]


class Authorized:
    """A boto3-shaped client that makes only the calls that a role allows.

    Args:
        service: its boto3 name, for example `s3`.
        client: makes the calls.
        role: the calling function's role.

    Raises:
        NotImplementedError: on a call of a service or operation that this module does not know.
    """

    def __init__(self, service: str, client: Any, role: Role) -> None:
        self._service = service
        self._client = client
        self._role = role
        self._stream = ""

    def __getattr__(self, operation: str) -> Any:
        """Return an operation that may be denied."""
        if operation.startswith("_"):
            raise AttributeError(operation)

        def call(**request: Any) -> Any:
            for action, resource in self._needed(operation, request):
                self._check(operation, action, resource)
            try:
                return getattr(self._client, operation)(**request)
            except ClientError as error:
                # S3 tells only callers who may list the bucket that an object is absent
                if self._service == "s3" and error.response["Error"]["Code"] == "NoSuchKey":
                    self._check(operation, "s3:ListBucket", f"arn:aws:s3:::{request['Bucket']}")
                raise

        return call

    def _check(self, operation: str, action: str, resource: str) -> None:
        if not self._allows(action, resource):
            code, status = _REFUSALS.get(self._service, ("AccessDeniedException", 400))
            message = f"{self._role.name} is not authorized to perform: {action} on resource: {resource}"
            name = operation.title().replace("_", "")
            self._refuse(f"{self._service} {operation}", client_error(code, name, message, status))

    def _allows(self, action: str, resource: str) -> bool:
        return self._role.allows(action, resource, {"s3:ResourceAccount": ACCOUNT_ID})

    def _refuse(self, _what: str, error: ClientError) -> None:
        raise error

    def _needed(self, operation: str, request: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Yield the actions that a call needs, each with its resource."""
        action = f"{self._service}:{operation.title().replace('_', '')}"
        match self._service:
            case "kinesis":
                # an iterator or a token belongs to the stream that was named before
                self._stream = request.get("StreamName", self._stream)
                yield action, arn("kinesis", f"stream/{self._stream}")
            case "sqs":
                yield action, arn("sqs", request["QueueUrl"].rpartition("/")[2])
            case "secretsmanager":
                yield action, request["SecretId"]
            case "cloudwatch":
                yield action, "*"  # the actions in use support no resources
            case "s3" if operation == "list_objects_v2":
                yield "s3:ListBucket", f"arn:aws:s3:::{request['Bucket']}"
            case "s3" if operation == "list_object_versions":
                yield "s3:ListBucketVersions", f"arn:aws:s3:::{request['Bucket']}"
            case "s3" if operation == "delete_object" and "VersionId" in request:
                yield "s3:DeleteObjectVersion", f"arn:aws:s3:::{request['Bucket']}/{request['Key']}"
            case "s3" if operation in _OBJECT_ACTIONS:
                yield _OBJECT_ACTIONS[operation], f"arn:aws:s3:::{request['Bucket']}/{request['Key']}"
            case "dynamodb":
                yield from _table_actions(action, request)
            case _:
                raise NotImplementedError(f"IAM in memory does not know {action}")


def _table_actions(action: str, request: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the actions that a DynamoDB call needs: one for each statement of a batch or write of a transaction, and on the index for its queries."""
    for write in request.get("TransactItems", ()):
        ((kind, item),) = write.items()
        yield f"dynamodb:{kind}Item", arn("dynamodb", f"table/{item['TableName']}")
    for statement in request.get("Statements", ()):
        table, _ = parse_insert(statement["Statement"], statement["Parameters"])
        yield "dynamodb:PartiQLInsert", arn("dynamodb", f"table/{table}")
    if not request.keys() & {"Statements", "TransactItems"}:
        index = f"/index/{request['IndexName']}" if "IndexName" in request else ""
        for table in request.get("RequestItems") or [request["TableName"]]:
            yield action, arn("dynamodb", f"table/{table}{index}")
