"""Clients of the in-memory services. Each call is an effect and may fail."""

import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from io import BytesIO
from typing import Any, NamedTuple, override

import redis
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    ReadTimeoutError,
)

from chaos.access import RESOURCES
from chaos.effects import Effects
from chaos.trouble import Kind
from doubles.aws_errors import client_error
from doubles.redis import MemoryPipeline, MemoryRedis
from doubles.s3 import MemoryS3

Action = Callable[[], Any]
_Errors = Sequence[str | type[BotoCoreError]]
"""A service's own error codes, each with its status if that is not 400, and errors of the connection."""

_URL = "https://service.invalid"
_PAGE = b"<!doctype html><title>Sign in to the network</title>"
_COUNTS_LAG = 180.0
"""The maximum age of the queue's message counts, in seconds."""
_REDIS_DOWN: tuple[tuple[Kind, type[Exception], str, tuple[float, ...]], ...] = (
    (Kind.REDIS_DOWN, redis.exceptions.ConnectionError, "Connection refused.", (0.1, 0.5)),
    (Kind.REDIS_REFUSED, redis.exceptions.AuthenticationError, "invalid username-password pair", (0.1,)),
    (Kind.REDIS_TIMEOUT, redis.exceptions.TimeoutError, "Timeout reading from socket", (1.6,)),
)
_DYNAMODB_DOWN: _Errors = (
    *("InternalServerError 500", "ThrottlingException", "ProvisionedThroughputExceededException"),
    *(EndpointConnectionError, ConnectTimeoutError),
)
_S3_DOWN: _Errors = "SlowDown 503", "InternalError 500", EndpointConnectionError
_THROTTLED = "ProvisionedThroughputExceededException"
_KINESIS_DOWN: _Errors = _THROTTLED, "InternalFailure 500", ReadTimeoutError
_KINESIS_GONE: _Errors = EndpointConnectionError, ConnectTimeoutError, "ServiceUnavailable 503"
_LATEST_LANDINGS = (5.0, 100.0, 1000.0, 6 * 3600.0)
"""A late put lands within so many seconds."""
_WRITES = {"put_item", "update_item", "batch_execute_statement", "transact_write_items"}


def _one(chances: random.Random, some: Sequence[Any]) -> Any:
    return chances.choice(some) if len(some) > 1 else some[0]


class Call(NamedTuple):
    """A call of an operation: its name in the trace, its request, and what performs it."""

    what: str
    operation: str
    request: dict[str, Any]
    action: Action

    def error(self, chances: random.Random, errors: _Errors) -> Exception:
        """Return one of some errors."""
        error = _one(chances, errors)
        if isinstance(error, str):
            code, _, status = error.partition(" ")
            name = self.operation.title().replace("_", "")
            return client_error(code, name, status=int(status or 400))
        made: Exception = error(endpoint_url=_URL)
        return made


class Around:
    """A client whose calls pass through a function: it is given the operation, the request and the call."""

    def __init__(self, client: Any, around: Callable[[str, dict[str, Any], Action], Any]) -> None:
        self._client, self._around = client, around

    def __getattr__(self, operation: str) -> Any:
        """Return an operation."""
        method = getattr(self._client, operation)
        return lambda **request: self._around(operation, request, partial(method, **request))


class _Client:
    """A boto3-like client that wraps another."""

    service = ""
    seconds = 0.004

    def __init__(self, client: Any, effects: Effects) -> None:
        self.client = client
        self.effects = effects
        self.kinds = frozenset(kind for kind in Kind if kind.name.startswith(f"{self.service.upper()}_"))

    def __getattr__(self, operation: str) -> Callable[..., Any]:
        """Return an operation whose calls are effects."""
        if operation.startswith("_"):
            raise AttributeError(operation)
        method = getattr(self.client, operation)
        what = f"{self.service} {operation}"

        def call(**request: Any) -> Any:
            made = Call(what, operation, request, partial(method, **request))
            if self.effects.simulation.trace is not None:
                key = request.get("Key") or request.get("Prefix") or request.get("Item") or ""
                made = made._replace(what=f"{what} {key}"[:160])
            if self.effects.trouble.any_of(self.kinds):
                return self._troubled(made)
            return self._perform(made)

        self.__dict__[operation] = call
        return call

    def _troubled(self, call: Call) -> Any:
        raise NotImplementedError

    def _perform(self, call: Call, action: Action | None = None) -> Any:
        """Perform the call, or another action in its place."""
        seconds = self.seconds * (0.5 + self.effects.chance.random())
        return self.effects.perform(call.what, action or call.action, seconds)

    def _fail_by(self, kind: Kind, call: Call, errors: _Errors, *seconds: float) -> None:
        """Fail the call without performing it, if trouble of this kind strikes."""
        if chances := self.effects.trouble.strike(kind):
            self.effects.fail(call.what, call.error(chances, errors), _one(chances, seconds))

    def _lose_by(self, kind: Kind, call: Call, errors: _Errors, *seconds: float) -> None:
        """Perform the call and raise an error as if the response was lost, if trouble of this kind strikes."""
        if chances := self.effects.trouble.strike(kind):
            self._lost(call, call.error(chances, errors), _one(chances, seconds))

    def _lost(self, call: Call, error: Exception, seconds: float) -> Any:
        """Perform the call, then raise an error as if the response was lost."""

        def act() -> Any:
            _swallowed(call.action)  # the caller does not learn of a rejection either
            raise error

        return self.effects.perform(f"{call.what}: answer lost", act, seconds)

    def _late(self, call: Call, after: float, patience: float) -> Any:
        """Time out now, and perform the call later, whatever happens to the caller."""
        self.effects.land(call.what, call.action, after, self.effects.begin(call.what))
        self.effects.fail(call.what, ReadTimeoutError(endpoint_url=_URL), patience)


class DynamoDB(_Client):
    """DynamoDB with faults."""

    service = "dynamodb"

    @override
    def _troubled(self, call: Call) -> Any:
        trouble, is_write = self.effects.trouble, call.operation in _WRITES
        if call.request.get("TableName") != RESOURCES.counters_table:
            self._fail_by(Kind.DYNAMODB_RESTORED, call, ("ResourceNotFoundException",), 0.01)
        self._fail_by(Kind.DYNAMODB_ERROR, call, _DYNAMODB_DOWN, 0.01, 1.0)
        unheard = "InternalServerError 500", ReadTimeoutError
        self._lose_by(Kind.DYNAMODB_LOST_ANSWER, call, unheard, 0.05, 2.0)
        if is_write and (chances := trouble.strike(Kind.DYNAMODB_LATE)):
            return self._late(call, chances.uniform(0, 20), 2.0)
        if is_write and trouble.strike(Kind.DYNAMODB_REPEAT):
            # botocore retries the write, and the caller sees only the second response
            self._perform(call, partial(_swallowed, call.action))
        in_part = {"batch_execute_statement": self._some_done, "batch_get_item": self._some_got}
        if call.operation in in_part and (chances := trouble.strike(Kind.DYNAMODB_PARTIAL)):
            call = call._replace(action=partial(in_part[call.operation], call.request, chances))
        seconds = self.seconds * (0.5 + self.effects.chance.random())
        if chances := trouble.strike(Kind.DYNAMODB_SLOW):
            seconds = chances.uniform(0.1, 4.0)
        return self.effects.perform(call.what, call.action, seconds)

    def _some_got(self, request: dict[str, Any], chances: random.Random) -> Any:
        """Read some of the items; the rest is throttled."""
        [(table, wanted)] = request["RequestItems"].items()
        keys = wanted["Keys"]
        count = chances.randrange(len(keys) + 1)
        answer: dict[str, Any] = {"Responses": {table: []}}
        if count:
            answer = self.client.batch_get_item(RequestItems={table: wanted | {"Keys": keys[:count]}})
        if keys[count:]:
            answer |= {"UnprocessedKeys": {table: wanted | {"Keys": keys[count:]}}}
        return answer

    def _some_done(self, request: dict[str, Any], chances: random.Random) -> Any:
        """Execute some of the statements; the rest is throttled, or executed but reported as failed."""
        responses = []
        for statement in request["Statements"]:
            error = {"Code": chances.choice(("ThrottlingError", "InternalServerError")), "Message": ""}
            fate, done = chances.random(), {"Error": error}
            if fate >= 0.4:
                done = self.client.batch_execute_statement(Statements=[statement])["Responses"][0]
            responses.append(done if fate >= 0.6 else {"Error": error})
        return {"Responses": responses}


class S3(_Client):
    """S3 with faults. Some of its answers are well-formed and wrong."""

    service = "s3"
    seconds = 0.03

    def __init__(self, client: MemoryS3, effects: Effects) -> None:
        super().__init__(client, effects)
        self._store = client

    @override
    def _troubled(self, call: Call) -> Any:
        trouble, operation = self.effects.trouble, call.operation
        self._fail_by(Kind.S3_ERROR, call, _S3_DOWN, 0.05, 1.0)
        self._lose_by(Kind.S3_LOST_ANSWER, call, (ReadTimeoutError,), 2.0)
        if operation == "put_object" and (chances := trouble.strike(Kind.S3_LATE)):
            return self._late(call, chances.uniform(0, 60), 2.0)
        if operation != "list_objects_v2" and trouble.strike(Kind.S3_FOREIGN_PAGE):
            return self._perform(call, lambda: {"Body": BytesIO(_PAGE)})
        if operation == "get_object":
            return self._perform(call, self._got(call))
        if operation == "delete_object":
            self._fail_by(Kind.S3_DELETE_REFUSED, call, ("AccessDenied 403",), self.seconds)
        return self._perform(call)

    def _got(self, call: Call) -> Action | None:
        """Return what gives a wrong answer, if trouble strikes."""
        key, trouble = call.request["Key"], self.effects.trouble
        objects = self._store.objects(call.request["Bucket"])
        stored, others = objects.pop(key, None), sorted(objects)
        if stored is None:
            return None
        if others and (chances := trouble.strike(Kind.S3_OTHER_OBJECT)):
            other = objects[chances.choice(others)]
            return lambda: call.action() | other.described() | {"Body": BytesIO(other.body)}
        if chances := trouble.strike(Kind.S3_TRUNCATED):
            part = stored.body[: chances.randrange(len(stored.body))]
            return lambda: call.action() | {"Body": BytesIO(part)}
        return None


class SQS(_Client):
    """SQS with faults."""

    service = "sqs"
    seconds = 0.01

    @override
    def _troubled(self, call: Call) -> Any:
        self._fail_by(Kind.SQS_DOWN, call, ("InternalError 500", EndpointConnectionError), 1.0)
        self._lose_by(Kind.SQS_LOST_ANSWER, call, (ReadTimeoutError,), 1.5)
        strike = self.effects.trouble.strike
        if call.operation == "get_queue_attributes" and (chances := strike(Kind.SQS_COUNTS)):
            return self._perform(
                call, partial(self._old_counts, call.request, chances.uniform(0, _COUNTS_LAG))
            )
        return self._perform(call)

    def _old_counts(self, request: dict[str, Any], age: float) -> dict[str, Any]:
        """Return counts without the messages that were sent since."""
        then = self.effects.simulation.now - age
        held = sum(one.sent_at <= then for one in self.client.messages(request["QueueUrl"]))
        counts = dict.fromkeys(request["AttributeNames"], "0")
        return {"Attributes": counts | {"ApproximateNumberOfMessages": f"{held}"}}


class Kinesis(_Client):
    """Kinesis with faults."""

    service = "kinesis"
    seconds = 0.01

    def __init__(self, client: Any, effects: Effects) -> None:
        super().__init__(client, effects)
        self._listings: list[Any] = []

    @override
    def _troubled(self, call: Call) -> Any:
        if call.operation == "put_record":
            return self._put(call)
        if call.operation == "put_records":
            return self._put_many(call)
        trouble = self.effects.trouble
        down = (*_KINESIS_DOWN, *["ExpiredIteratorException"] * (call.operation == "get_records"))
        self._fail_by(Kind.KINESIS_READ, call, down, 0.02, 1.0)
        self._fail_by(Kind.KINESIS_DOWN, call, (EndpointConnectionError,), 1.0)
        if call.operation == "list_shards" and (chances := trouble.strike(Kind.KINESIS_LISTING)):
            return self._perform(call, partial(self._other_listing, call.action, chances))
        return self._perform(call)

    def _other_listing(self, action: Action, chances: random.Random) -> Any:
        """Return an older listing of the same stream, or one that lacks a shard."""
        truth = action()
        shards = truth["Shards"]
        starts = set(map(start_of, shards))
        self._listings = [one for one in self._listings if {start_of(one[0])} <= starts]
        if shards and shards not in self._listings:
            self._listings.append(shards)
        if self._listings and chances.random() < 0.5:
            return truth | {"Shards": chances.choice(self._listings)}
        return truth | {"Shards": [one for one in shards if one is not chances.choice(shards)]}

    def _put(self, call: Call) -> Any:
        trouble, effects = self.effects.trouble, self.effects
        self._fail_by(Kind.KINESIS_DOWN, call, _KINESIS_GONE, 1.0)
        self._fail_by(Kind.KINESIS_THROTTLE, call, (_THROTTLED,), 0.01)
        if chances := trouble.strike(Kind.KINESIS_INTERNAL):
            error = client_error("InternalFailure", "PutRecord", status=500)
            if chances.random() < 0.5:
                return self._lost(call, error, 0.1)
            return effects.fail(call.what, error, 0.1)
        self._fail_by(Kind.KINESIS_TIMEOUT, call, (ReadTimeoutError,), 1.5)
        self._lose_by(Kind.KINESIS_LOST_ANSWER, call, (ReadTimeoutError,), 1.5)
        if chances := trouble.strike(Kind.KINESIS_LATE):
            return self._late(call, chances.uniform(0, chances.choice(_LATEST_LANDINGS)), 1.5)
        return self._perform(call)

    def _put_many(self, call: Call) -> Any:
        trouble, records = self.effects.trouble, call.request["Records"]
        kinds = (Kind.KINESIS_PARTIAL, Kind.KINESIS_INTERNAL)
        kind = next((one for one in kinds if trouble.active(one) and len(records) > 1), None)
        chances = kind and trouble.strike(kind)
        if not chances:
            return self._put(call)
        failing = chances.sample(range(len(records)), chances.randint(1, len(records) - 1))
        is_unsure = kind is Kind.KINESIS_INTERNAL
        landing = [
            index
            for index in range(len(records))
            if index not in failing or (is_unsure and chances.random() < 0.5)
        ]
        code = "InternalFailure" if is_unsure else _THROTTLED

        def act() -> dict[str, Any]:
            put = {**call.request, "Records": [records[index] for index in landing]}
            done = self.client.put_records(**put)["Records"] if landing else []
            refused = {"ErrorCode": code, "ErrorMessage": code}
            answers = dict(zip(landing, done, strict=True)) | dict.fromkeys(failing, refused)
            in_order = [answers[index] for index in range(len(records))]
            return {"FailedRecordCount": len(failing), "Records": in_order}

        return self._perform(call, act)


class Redis(MemoryRedis):
    """Redis with faults: a view of a server, some of whose keys cannot be reached. A pipeline is one effect."""

    def __init__(self, server: MemoryRedis, effects: Effects) -> None:
        super().__init__()
        self.hashes = server.hashes
        self._effects = effects

    @override
    def pipeline(self, *, transaction: bool = True) -> MemoryPipeline:
        """Return a pipeline, which the worker only reads with."""
        made = super().pipeline(transaction=transaction)
        execute = made.execute
        made.__dict__["execute"] = lambda **options: self._perform(partial(execute, **options))
        return made

    def _perform(self, action: Action) -> Any:
        """Execute a pipeline."""
        trouble = self._effects.trouble
        for kind, error, message, seconds in _REDIS_DOWN:
            if chances := trouble.strike(kind):
                self._effects.fail("redis pipeline", error(message), _one(chances, seconds))
        slow = trouble.strike(Kind.REDIS_SLOW)
        return self._effects.perform("redis pipeline", action, slow.uniform(0.05, 0.5) if slow else 0.001)

    @override
    def _hash(self, name: str) -> dict[str, str]:
        trouble = self._effects.trouble
        if trouble.active(Kind.REDIS_HALF, name):
            trouble.count(Kind.REDIS_HALF)
            raise redis.exceptions.ClusterDownError("CLUSTERDOWN Hash slot not served")
        if trouble.strike(Kind.REDIS_ERRORS):
            raise redis.exceptions.ResponseError("service is not available")
        return super()._hash(name)


def start_of(shard: dict[str, Any]) -> str:
    """Return the number from which a shard's sequence numbers begin."""
    return str(shard["SequenceNumberRange"]["StartingSequenceNumber"])


def _swallowed(action: Action) -> None:
    with suppress(ClientError):
        action()
