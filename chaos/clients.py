"""Clients of the in-memory services. Each call is an effect and may fail."""

import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from io import BytesIO
from typing import Any, override

import msgpack
import redis
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    ReadTimeoutError,
)

from chaos.effects import Effects
from chaos.trouble import Kind
from doubles.aws_errors import client_error
from doubles.redis import MemoryPipeline, MemoryRedis
from doubles.s3 import MemoryS3
from shared import policy

Call = Callable[[], Any]
_Errors = Sequence[str | type[BotoCoreError]]
"""A service's own error codes, each with its status if that is not 400, and errors of the connection."""

_URL = "https://service.invalid"
_PAGE = b"<!doctype html><title>Sign in to the network</title>"
_LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
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
_KINESIS_DOWN: _Errors = "ProvisionedThroughputExceededException", "InternalFailure 500", ReadTimeoutError
_KINESIS_GONE: _Errors = EndpointConnectionError, ConnectTimeoutError, "ServiceUnavailable 503"
_LATEST_LANDINGS = (5.0, 100.0, 1000.0, 6 * 3600.0)
"""A late put lands within so many seconds."""


def _one(chances: random.Random, some: Sequence[Any]) -> Any:
    return chances.choice(some) if len(some) > 1 else some[0]


def _error(chances: random.Random, errors: _Errors, name: str) -> Exception:
    error = _one(chances, errors)
    if isinstance(error, str):
        code, _, status = error.partition(" ")
        return client_error(code, name, status=int(status or 400))
    made: Exception = error(endpoint_url=_URL)
    return made


class Around:
    """A client whose calls pass through a function: it is given the operation, the request and the call."""

    def __init__(self, client: Any, around: Callable[[str, dict[str, Any], Call], Any]) -> None:
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
            action = partial(method, **request)
            if self.effects.trouble.any_of(self.kinds):
                return self._troubled(what, operation, request, action)
            return self.effects.perform(self._named(what, request), action, self._time())

        self.__dict__[operation] = call
        return call

    def _troubled(self, what: str, operation: str, request: dict[str, Any], action: Call) -> Any:
        raise NotImplementedError

    def _named(self, what: str, request: dict[str, Any]) -> str:  # noqa: ARG002 -- subclasses add details from it
        return what

    def _time(self) -> float:
        return self.seconds * (0.5 + self.effects.chance.random())

    def _fail_by(self, kind: Kind, what: str, name: str, errors: _Errors, *seconds: float) -> None:
        """Fail the call without performing it, if trouble of this kind strikes."""
        if chances := self.effects.trouble.strike(kind):
            self.effects.fail(what, _error(chances, errors, name), _one(chances, seconds))

    def _lose_by(
        self, kind: Kind, what: str, name: str, action: Call, errors: _Errors, *seconds: float
    ) -> None:
        """Perform the call and raise an error as if the response was lost, if trouble of this kind strikes."""
        if chances := self.effects.trouble.strike(kind):
            self._lost(what, action, _error(chances, errors, name), _one(chances, seconds))

    def _lost(self, what: str, action: Call, error: Exception, seconds: float) -> Any:
        """Perform the call, then raise an error as if the response was lost."""

        def act() -> Any:
            with suppress(ClientError):  # the caller does not learn of a rejection either
                action()
            raise error

        return self.effects.perform(f"{what}: answer lost", act, seconds)

    def _late(self, what: str, action: Call, after: float, patience: float) -> Any:
        """Time out now, and perform the call later, whatever happens to the caller."""
        simulation = self.effects.simulation

        def land() -> None:
            simulation.note(f"{what} lands late")
            simulation.behalf = process
            try:
                action()
            except ClientError as error:
                simulation.note(f"{what} is refused: {error}")
            simulation.behalf = None

        process = self.effects.begin(what)
        simulation.at(simulation.now + after, land)
        self.effects.fail(what, ReadTimeoutError(endpoint_url=_URL), patience)


class DynamoDB(_Client):
    """DynamoDB with faults."""

    service = "dynamodb"

    @override
    def _named(self, what: str, request: dict[str, Any]) -> str:
        if self.effects.simulation.trace is None:
            return what
        return f"{what} {_brief(request)}"

    @override
    def _troubled(self, what: str, operation: str, request: dict[str, Any], action: Call) -> Any:
        trouble, what = self.effects.trouble, self._named(what, request)
        write = operation in ("put_item", "update_item", "batch_execute_statement", "transact_write_items")
        name = operation.title().replace("_", "")
        self._fail_by(Kind.DYNAMODB_ERROR, what, name, _DYNAMODB_DOWN, 0.01, 1.0)
        unheard = "InternalServerError 500", ReadTimeoutError
        self._lose_by(Kind.DYNAMODB_LOST_ANSWER, what, name, action, unheard, 0.05, 2.0)
        if write and (chances := trouble.strike(Kind.DYNAMODB_LATE)):
            return self._late(what, action, chances.uniform(0, 20), 2.0)
        if write and trouble.strike(Kind.DYNAMODB_REPEAT):
            # botocore retries the write, and the caller sees only the second response
            self.effects.perform(f"{what}: first", lambda: _swallowed(action), self._time())
        if operation in ("batch_execute_statement", "batch_get_item") and (
            chances := trouble.strike(Kind.DYNAMODB_PARTIAL)
        ):
            action = partial(self._in_part, operation, request, chances)
        seconds = self._time()
        if chances := trouble.strike(Kind.DYNAMODB_SLOW):
            seconds = chances.uniform(0.1, 4.0)
        return self.effects.perform(what, action, seconds)

    def _in_part(self, operation: str, request: dict[str, Any], chances: random.Random) -> Any:
        """Execute part of a batch; the rest is throttled, or executed but reported as failed."""
        if operation == "batch_get_item":
            [(table, wanted)] = request["RequestItems"].items()
            keys = wanted["Keys"]
            count = chances.randrange(len(keys) + 1)
            answer: dict[str, Any] = {"Responses": {table: []}}
            if count:
                answer = self.client.batch_get_item(RequestItems={table: wanted | {"Keys": keys[:count]}})
            if keys[count:]:
                answer |= {"UnprocessedKeys": {table: wanted | {"Keys": keys[count:]}}}
            return answer
        responses = []
        for statement in request["Statements"]:
            error = {"Code": chances.choice(("ThrottlingError", "InternalServerError")), "Message": ""}
            fate = chances.random()
            if fate < 0.4:
                responses.append({"Error": error})
                continue
            done = self.client.batch_execute_statement(Statements=[statement])["Responses"][0]
            responses.append({"Error": error} if fate < 0.6 else done)
        return {"Responses": responses}


class S3(_Client):
    """S3 with faults. Some of its answers are well-formed and wrong."""

    service = "s3"
    seconds = 0.03

    def __init__(self, client: MemoryS3, effects: Effects) -> None:
        super().__init__(client, effects)
        self._store = client
        self._deleted: list[str] = []
        self._policies: list[bytes] = []  # as they were read

    @override
    def _named(self, what: str, request: dict[str, Any]) -> str:
        return f"{what} {request.get('Key', request.get('Prefix', ''))}"

    @override
    def _troubled(self, what: str, operation: str, request: dict[str, Any], action: Call) -> Any:
        trouble, what = self.effects.trouble, self._named(what, request)
        name = operation.title().replace("_", "")
        self._fail_by(Kind.S3_ERROR, what, name, _S3_DOWN, 0.05, 1.0)
        self._lose_by(Kind.S3_LOST_ANSWER, what, name, action, (ReadTimeoutError,), 2.0)
        if operation == "put_object" and (chances := trouble.strike(Kind.S3_LATE)):
            return self._late(what, action, chances.uniform(0, 60), 2.0)
        return self.effects.perform(what, self._answer(operation, request, action), self._time())

    def _answer(self, operation: str, request: dict[str, Any], truth: Call) -> Call:
        """Return a function that answers a call: `truth`, or a lie."""
        trouble = self.effects.trouble
        if operation == "delete_object":
            self._deleted.append(request["Key"])
        if operation != "list_objects_v2" and trouble.strike(Kind.S3_FOREIGN_PAGE):
            return lambda: {"Body": BytesIO(_PAGE)}
        if operation == "get_object":
            return self._got(request, truth) or truth
        if operation == "delete_object" and trouble.strike(Kind.S3_DELETE_REFUSED):
            return partial(_raise, client_error("AccessDenied", "DeleteObject", status=403))
        if operation == "list_objects_v2" and (chances := trouble.strike(Kind.S3_STALE_LISTING)):
            return partial(self._stale_listing, request, chances)
        return truth

    def _got(self, request: dict[str, Any], truth: Call) -> Call | None:
        objects, trouble = self._store.objects(request["Bucket"]), self.effects.trouble
        if request["Key"] == policy.KEY and policy.KEY in objects:
            self._policies.append(objects[policy.KEY].body)
        stored, others = objects.pop(request["Key"], None), sorted(objects)
        if stored is None:
            return None
        if request["Key"] == policy.KEY and (chances := trouble.strike(Kind.S3_POLICY)):
            return partial(self._wrong_policy, chances, stored.body)
        if others and (chances := trouble.strike(Kind.S3_OTHER_OBJECT)):
            other = objects[chances.choice(others)]
            return lambda: truth() | other.described() | {"Body": BytesIO(other.body)}
        if chances := trouble.strike(Kind.S3_TRUNCATED):
            part = stored.body[: chances.randrange(len(stored.body))]
            return lambda: truth() | {"Body": BytesIO(part)}
        return None

    def _wrong_policy(self, chances: random.Random, document: bytes) -> dict[str, Any]:
        """Return a wrong document in place of the edge policy, or raise that there is none."""
        newer = msgpack.packb([policy.VERSION + 1, {"anything": "new"}])
        truncated = document[: chances.randrange(len(document))]
        body = chances.choice([truncated, newer, self._policies[0], b"", None])
        if body is None:
            raise client_error("NoSuchKey", "GetObject", status=404)
        return {"Body": BytesIO(body), "ETag": '"wrong"'}

    def _stale_listing(self, request: dict[str, Any], chances: random.Random) -> dict[str, Any]:
        answer = self._store.list_objects_v2(**request, MaxKeys=chances.randint(1, 3))
        shown = [one for one in answer.get("Contents", []) if chances.random() < 0.8]
        gone = chances.sample(self._deleted, min(2, len(self._deleted)))
        shown += [{"Key": name, "Size": 1, "LastModified": _LONG_AGO} for name in gone]
        return dict(answer | {"Contents": shown, "KeyCount": len(shown)})


class SQS(_Client):
    """SQS with faults."""

    service = "sqs"
    seconds = 0.01

    @override
    def _troubled(self, what: str, operation: str, request: dict[str, Any], action: Call) -> Any:
        trouble = self.effects.trouble
        name = operation.title().replace("_", "")
        self._fail_by(Kind.SQS_DOWN, what, name, ("InternalError 500", EndpointConnectionError), 1.0)
        self._lose_by(Kind.SQS_LOST_ANSWER, what, name, action, (ReadTimeoutError,), 1.5)
        if operation == "get_queue_attributes" and (chances := trouble.strike(Kind.SQS_COUNTS)):
            action = partial(self._old_counts, request, chances.uniform(0, _COUNTS_LAG))
        return self.effects.perform(what, action, self._time())

    def _old_counts(self, request: dict[str, Any], age: float) -> dict[str, Any]:
        held = self.client.held_at(request["QueueUrl"], self.effects.simulation.now - age)
        return {
            "Attributes": dict.fromkeys(request["AttributeNames"], "0")
            | {"ApproximateNumberOfMessages": f"{held}"}
        }


class Kinesis(_Client):
    """Kinesis with faults."""

    service = "kinesis"
    seconds = 0.01

    def __init__(self, client: Any, effects: Effects) -> None:
        super().__init__(client, effects)
        self._listings: list[Any] = []

    @override
    def _troubled(self, what: str, operation: str, request: dict[str, Any], action: Call) -> Any:
        if operation == "put_record":
            return self._put(what, action)
        if operation == "put_records":
            return self._put_many(what, request)
        trouble = self.effects.trouble
        name = operation.title().replace("_", "")
        down = [*_KINESIS_DOWN, "ExpiredIteratorException"] if operation == "get_records" else _KINESIS_DOWN
        self._fail_by(Kind.KINESIS_READ, what, name, down, 0.02, 1.0)
        self._fail_by(Kind.KINESIS_DOWN, what, name, (EndpointConnectionError,), 1.0)
        if operation == "list_shards" and (chances := trouble.strike(Kind.KINESIS_LISTING)):
            action = partial(self._other_listing, action, chances)
        return self.effects.perform(what, action, self._time())

    def _other_listing(self, action: Call, chances: random.Random) -> Any:
        """Return an older listing of the same stream, or one that lacks a shard."""
        truth = action()
        shards = truth["Shards"]
        starts = {shard["SequenceNumberRange"]["StartingSequenceNumber"] for shard in shards}
        self._listings = [one for one in self._listings if {_start(one[0])} <= starts]
        if shards and shards not in self._listings:
            self._listings.append(shards)
        if self._listings and chances.random() < 0.5:
            return truth | {"Shards": chances.choice(self._listings)}
        return truth | {"Shards": [one for one in shards if one is not chances.choice(shards)]}

    def _put(self, what: str, action: Call) -> Any:
        trouble, effects = self.effects.trouble, self.effects
        self._fail_by(Kind.KINESIS_DOWN, what, "PutRecord", _KINESIS_GONE, 1.0)
        self._fail_by(
            Kind.KINESIS_THROTTLE, what, "PutRecord", ("ProvisionedThroughputExceededException",), 0.01
        )
        if chances := trouble.strike(Kind.KINESIS_INTERNAL):
            error = client_error("InternalFailure", "PutRecord", status=500)
            if chances.random() < 0.5:
                return self._lost(what, action, error, 0.1)
            return effects.fail(what, error, 0.1)
        self._fail_by(Kind.KINESIS_TIMEOUT, what, "PutRecord", (ReadTimeoutError,), 1.5)
        self._lose_by(Kind.KINESIS_LOST_ANSWER, what, "PutRecord", action, (ReadTimeoutError,), 1.5)
        if chances := trouble.strike(Kind.KINESIS_LATE):
            return self._late(what, action, chances.uniform(0, chances.choice(_LATEST_LANDINGS)), 1.5)
        return effects.perform(what, action, self._time())

    def _put_many(self, what: str, request: dict[str, Any]) -> Any:
        trouble, records = self.effects.trouble, request["Records"]
        whole = partial(self.client.put_records, **request)
        partial_kind = next(
            (
                kind
                for kind in (Kind.KINESIS_PARTIAL, Kind.KINESIS_INTERNAL)
                if trouble.active(kind) and len(records) > 1
            ),
            None,
        )
        chances = partial_kind and trouble.strike(partial_kind)
        if not chances:
            return self._put(what, whole)
        failing = chances.sample(range(len(records)), chances.randint(1, len(records) - 1))
        code = "InternalFailure"
        if partial_kind is Kind.KINESIS_PARTIAL:
            code = "ProvisionedThroughputExceededException"
        landing = [
            index
            for index in range(len(records))
            if index not in failing or (code == "InternalFailure" and chances.random() < 0.5)
        ]

        def act() -> dict[str, Any]:
            put = {"StreamName": request["StreamName"], "Records": [records[index] for index in landing]}
            done = self.client.put_records(**put)["Records"] if landing else []
            answers: list[dict[str, Any]] = [{"ErrorCode": code, "ErrorMessage": code} for _ in records]
            for index, answer in zip(landing, done, strict=True):
                if index not in failing:
                    answers[index] = answer
            return {"FailedRecordCount": len(failing), "Records": answers}

        return self.effects.perform(f"{what}: {len(failing)} of {len(records)} fail", act, self._time())


class Redis:
    """Redis with faults, shaped like a redis-py client."""

    def __init__(self, server: MemoryRedis, effects: Effects) -> None:
        self._effects = effects
        self._view = Reachable(server, effects)

    def pipeline(self, *, transaction: bool) -> MemoryPipeline:  # noqa: ARG002 -- the worker only reads
        """Return a pipeline that executes as one effect."""
        return _Pipeline(self._view, self._effect)

    def __getattr__(self, command: str) -> Callable[..., Any]:
        """Return a command whose calls are effects."""
        if command.startswith("_"):
            raise AttributeError(command)
        call = getattr(self._view, command)
        return lambda *args, **options: self._effect(command, partial(call, *args, **options))

    def _effect(self, what: str, action: Call) -> Any:
        what, trouble = f"redis {what}", self._effects.trouble
        for kind, error, message, seconds in _REDIS_DOWN:
            if chances := trouble.strike(kind):
                self._effects.fail(what, error(message), _one(chances, seconds))
        slow = trouble.strike(Kind.REDIS_SLOW)
        return self._effects.perform(what, action, slow.uniform(0.05, 0.5) if slow else 0.001)


class Reachable(MemoryRedis):
    """A view of a server in which some keys cannot be reached."""

    def __init__(self, server: MemoryRedis, effects: Effects) -> None:
        super().__init__()
        self.hashes = server.hashes
        self._effects = effects

    @override
    def _hash(self, name: str) -> dict[str, str]:
        trouble = self._effects.trouble
        if trouble.active(Kind.REDIS_HALF, name):
            trouble.count(Kind.REDIS_HALF)
            raise redis.exceptions.ClusterDownError("CLUSTERDOWN Hash slot not served")
        if trouble.strike(Kind.REDIS_ERRORS):
            raise redis.exceptions.ResponseError("service is not available")
        return super()._hash(name)


class _Pipeline(MemoryPipeline):
    def __init__(self, server: MemoryRedis, effect: Callable[[str, Call], Any]) -> None:
        super().__init__(server)
        self._effect = effect

    @override
    def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Execute all commands as one effect."""
        run = super().execute
        answers: list[Any] = self._effect("pipeline", lambda: run(raise_on_error))
        return answers


def _raise(error: Exception) -> None:
    raise error


def _start(shard: dict[str, Any]) -> str:
    return str(shard["SequenceNumberRange"]["StartingSequenceNumber"])


def _swallowed(action: Call) -> None:
    with suppress(ClientError):
        action()


def _brief(request: dict[str, Any]) -> str:
    """Summarise a ledger call for the trace."""
    key = request.get("Key") or request.get("Item") or {}
    parts = [str(key[name]["S"]) for name in ("pk", "sk") if name in key]
    values = request.get("ExpressionAttributeValues") or {}
    parts += [f"{name}={next(iter(value.values()))}" for name, value in values.items()]
    return " ".join(part if len(part) < 120 else part[:117] + "…" for part in parts)
