"""AWS, as one part of the local stack: `python -m local.aws --port PORT`.

The stream and the queue are doubles, everything else is moto. Requests are executed one at a time, because moto's backends lose
writes when threads share them. It is a separate process so that it does not compete with the functions for the interpreter lock.
"""

import argparse
import json
import logging
import os
import re
import time
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from threading import Lock
from typing import Any

from botocore.exceptions import ClientError
from moto.dynamodb.exceptions import ConditionalCheckFailed
from moto.dynamodb.models import DynamoDBBackend
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.test import EnvironBuilder, run_wsgi_app

from doubles.dynamodb.expressions import parse_insert
from doubles.http_server import HttpServer, Request, Response
from doubles.kinesis import MemoryKinesis
from doubles.sqs import MemorySQS
from local.parent_watch import ParentWatch
from local.valkey import free_port

_WORDS = re.compile("(?<!^)(?=[A-Z])")


class Cloud:
    """AWS without its sockets.

    Args:
        endpoint: its own URL, for queue URLs.
    """

    def __init__(self, endpoint: str) -> None:
        # moto's INSERT ignores parameters and overwrites existing items.
        DynamoDBBackend.batch_execute_statement = insert_all  # type: ignore[assignment]  # Iterable, not list
        self._endpoint = endpoint
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._lock = Lock()
        self._broken_until = 0.0
        self._empty()

    def answer(self, request: Request) -> Response:
        """Execute a request.

        `POST /-/outage` with {"seconds"} makes the stream reject every call for that time.
        """
        service, _, operation = request.header("x-amz-target").partition(".")
        with self._lock:
            if request.target == "/-/outage":
                self._broken_until = time.time() + json.loads(request.body)["seconds"]
                return Response()
            if request.target == "/moto-api/reset":
                self._empty()
            if service == "Kinesis_20131202":
                if time.time() < self._broken_until:
                    return _refusal(500, "InternalFailure", "an outage was ordered")
                return _json_reply(self._stream, operation, _unpacked(json.loads(request.body)))
            if service == "AmazonSQS":
                return _json_reply(self._queue, operation, json.loads(request.body))
            if operation == "UpdateItem":
                # moto's UPDATED_NEW leaves out what is named and does not change, such as a counter to which 0 is added
                request = replace(request, body=request.body.replace(b'"UPDATED_NEW"', b'"ALL_NEW"'))
            return self._ask_moto(request)

    def _empty(self) -> None:
        self._stream = MemoryKinesis(time.time)
        self._queue = MemorySQS(time.time, f"{self._endpoint}/123456789012")

    def _ask_moto(self, request: Request) -> Response:
        asked = EnvironBuilder(
            request.target,
            f"http://{request.header('host')}",
            method=request.method,
            headers=list(request.headers),
            data=request.body,
        )
        pieces, status, headers = run_wsgi_app(self._moto, asked.get_environ())
        body = b"".join(pieces)
        kept = tuple((name, value) for name, value in headers.items() if name.lower() != "content-length")
        if request.method == "HEAD":  # its content-length is that of a GET
            body = bytes(int(headers.get("content-length", 0)))
        return Response(int(status.split()[0]), body, kept)


def _json_reply(double: Any, operation: str, request: Mapping[str, Any]) -> Response:
    method = getattr(double, _WORDS.sub("_", operation).lower(), None)
    if method is None:
        return _refusal(400, "UnknownOperationException", f"the double does not know {operation}")
    try:
        answer = method(**request)
    except ClientError as error:
        said = error.response["Error"]
        return _refusal(error.response["ResponseMetadata"]["HTTPStatusCode"], said["Code"], said["Message"])
    except (NotImplementedError, TypeError) as error:
        return _refusal(400, "ValidationException", str(error))
    content = json.dumps(answer, default=_packed, separators=(",", ":")).encode()
    return Response(200, content, (("Content-Type", "application/x-amz-json-1.1"),))


def _refusal(status: int, code: str, message: str) -> Response:
    content = json.dumps({"__type": code, "message": message}).encode()
    return Response(status, content, (("Content-Type", "application/x-amz-json-1.1"),))


def _unpacked(request: dict[str, Any]) -> dict[str, Any]:
    """Return a Kinesis request with its data decoded."""
    if "Data" in request:
        request["Data"] = b64decode(request["Data"])
    for record in request.get("Records", ()):
        record["Data"] = b64decode(record["Data"])
    return request


def _packed(value: Any) -> str | float:
    """Return bytes and times in their JSON form."""
    if isinstance(value, bytes):
        return b64encode(value).decode()
    if isinstance(value, datetime):
        return value.timestamp()
    raise TypeError(f"JSON cannot hold {value!r}")


def insert_all(backend: DynamoDBBackend, statements: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Execute a batch of PartiQL INSERTs; return a response for each."""
    return [_insert(backend, one["Statement"], one.get("Parameters", ())) for one in statements]


def _insert(backend: DynamoDBBackend, statement: str, parameters: Sequence[dict[str, Any]]) -> dict[str, Any]:
    table, item = parse_insert(statement, parameters)
    try:
        backend.put_item(table, item, condition_expression="attribute_not_exists(pk)")
    except ConditionalCheckFailed:
        return {"Error": {"Code": "DuplicateItem", "Message": "Duplicate primary key exists in table"}}
    return {"TableName": table}


def main() -> None:
    """Serve until the parent process ends."""
    parent = ParentWatch()
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # otherwise it logs every request
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    port = parser.parse_args().port or free_port()
    cloud = Cloud(f"http://127.0.0.1:{port}")
    with HttpServer(cloud.answer, port=port) as server:
        parent.ready(endpoint=server.url, port=port)
        parent.wait()
    os._exit(0)  # do not wait for requests


if __name__ == "__main__":
    main()
