"""The emulator's application, run in its own environment, with patches for what it lacks.

Resource types that it does not support exist in name only: they can be created, referenced, changed and deleted, and do
nothing. So the template can be deployed as it is, even in modes that the emulator cannot implement. Caches listen on CACHE_PORT.

emulator_rules.py refuses what AWS refuses. The event source redelivers the whole batch if the function reports failures (Lambda redelivers from the first failure). PartiQL
inserts need IAM's own permission for them on their table, and transactions that to put; reads of a stream need permission on the
iterator's stream. S3 answers a put with the CRC-32 of what it received, if the request has one.
"""

import json
import os
import re
import threading
from base64 import b64encode
from collections.abc import Mapping
from typing import Any
from uuid import uuid4
from zlib import crc32

from ministack.app import app as emulator  # type: ignore[import-not-found]  # lives in the emulator's environment
from ministack.core import iam_actions  # type: ignore[import-not-found]  # likewise
from ministack.services import kinesis, lambda_svc  # type: ignore[import-not-found]  # likewise
from ministack.services.cloudformation import provisioners  # type: ignore[import-not-found]  # likewise

from tests.support import emulator_rules

__all__ = ["app"]

# By resource type, the values of the attributes that other resources refer to.
_TYPES: Mapping[str, Mapping[str, str]] = {
    # The emulator rejects metric math.
    "AWS::CloudWatch::Alarm": {"Arn": "arn:aws:cloudwatch:us-east-1:000000000000:alarm:named"},
    "AWS::CodeDeploy::Application": {},
    "AWS::CodeDeploy::DeploymentGroup": {},
    "AWS::ElastiCache::ServerlessCache": {
        "ARN": "arn:aws:elasticache:us-east-1:000000000000:serverlesscache:sluice",
        "Endpoint.Address": "127.0.0.1",
        "Endpoint.Port": os.environ["CACHE_PORT"],
    },
}


for _name, _attributes in _TYPES.items():
    provisioners._RESOURCE_HANDLERS[_name] = {
        "create": lambda name, _, stack, made=_attributes: (f"{stack}-{name}-{uuid4().hex[:8]}", dict(made)),
        "update": lambda physical_id, *_others, made=_attributes, **_more: (physical_id, dict(made)),
        "delete": lambda *_arguments: None,
    }


for _name, _handler in provisioners._RESOURCE_HANDLERS.items():
    provisioners._RESOURCE_HANDLERS[_name] = emulator_rules.guarded(_name, _handler)


_polling = threading.local()
_poll_kinesis, _execute_function = lambda_svc._poll_kinesis, lambda_svc._execute_function


def _poll() -> Any:
    _polling.is_on = True
    try:
        return _poll_kinesis()
    finally:
        _polling.is_on = False


def _execute(function: Any, event: Any, *more: Any, **options: Any) -> Any:
    result = _execute_function(function, event, *more, **options)
    body = result.get("body")
    if getattr(_polling, "is_on", False) and isinstance(body, dict) and body.get("batchItemFailures"):
        return result | {"error": True}
    return result


lambda_svc._poll_kinesis, lambda_svc._execute_function = _poll, _execute
lambda_svc._ESM_BACKOFF_SECONDS, lambda_svc._LAMBDA_STATE_TRANSITION_DELAY = 0.2, 0.1

_INSERT = re.compile(r'INSERT INTO "([^"]+)"', re.IGNORECASE)
_action_of, _tables_of = iam_actions._action_from_target, iam_actions.dynamodb_resource_arns
_resource_of = iam_actions.extract_resource_arn


def _action(headers: Any) -> Any:
    name = _action_of(headers)
    return {"BatchExecuteStatement": "PartiQLInsert", "TransactWriteItems": "PutItem"}.get(name, name)


def _tables(body: bytes, region: str, account: str) -> list[str]:
    request = json.loads(body or b"{}")
    tables = {found[1] for one in request.get("Statements", ()) if (found := _INSERT.match(one["Statement"]))}
    tables |= {one["TableName"] for action in request.get("TransactItems", ()) for one in action.values()}
    if not tables:
        return list(_tables_of(body, region, account))
    return [f"arn:aws:dynamodb:{region}:{account}:table/{table}" for table in sorted(tables)]


def _resource(
    service: str, method: str, path: str, headers: Any, body: bytes, *more: Any, **options: Any
) -> Any:
    if service == "kinesis" and _action_of(headers) == "GetRecords":
        iterator = kinesis._shard_iterators.get(json.loads(body).get("ShardIterator"))
        if iterator is not None:
            return iterator["stream_arn"]
    return _resource_of(service, method, path, headers, body, *more, **options)


iam_actions._action_from_target, iam_actions.dynamodb_resource_arns = _action, _tables
iam_actions.extract_resource_arn = _resource

_CHECKSUM = b"x-amz-checksum-crc32"


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer a request as the emulator does, with the checksum of what was put into S3."""
    if scope["type"] != "http" or _CHECKSUM not in {name.lower() for name, _ in scope["headers"]}:
        await emulator(scope, receive, send)
        return
    received = 0

    async def receiving() -> Any:
        nonlocal received
        message = await receive()
        received = crc32(message.get("body", b""), received)
        return message

    async def sending(message: Any) -> None:
        if message["type"] == "http.response.start":
            told = (_CHECKSUM, b64encode(received.to_bytes(4)))
            message = {**message, "headers": [*message["headers"], told]}
        await send(message)

    await emulator(scope, receiving, sending)
