"""Clients of the in-memory services. Each call is an effect and may fail."""

import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any, override

import redis
from botocore.exceptions import (
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    ReadTimeoutError,
)

from chaos import td_lies
from chaos.effects import Effects
from chaos.s3_lies import S3Lies
from chaos.trouble import Kind
from doubles.aws_errors import client_error
from doubles.redis import MemoryPipeline, MemoryRedis
from doubles.s3 import MemoryS3
from doubles.treasure_data import Action, Fault, Request, Response, Target
from doubles.treasure_data import Kind as TdKind

_URL = "https://service.invalid"
_DYNAMODB = frozenset(kind for kind in Kind if kind.name.startswith("DYNAMODB"))
_S3 = frozenset(kind for kind in Kind if kind.name.startswith("S3"))
_SQS = frozenset({Kind.SQS_DOWN, Kind.SQS_LOST_ANSWER, Kind.SQS_COUNTS})
_COUNTS_LAG = 180.0
"""The maximum age of the queue's message counts, in seconds."""
_KINESIS = frozenset(kind for kind in Kind if kind.name.startswith("KINESIS"))
_REDIS = frozenset(kind for kind in Kind if kind.name.startswith("REDIS"))
_LATEST_LANDINGS = (5.0, 100.0, 1000.0, 6 * 3600.0)
"""A late put lands within so many seconds."""

Call = Callable[[], Any]


class _Client:
    """A boto3-like client that wraps another."""

    service = ""
    seconds = 0.004
    kinds: frozenset[Kind] = frozenset()

    def __init__(self, client: Any, effects: Effects) -> None:
        self.client = client
        self.effects = effects

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
    kinds = _DYNAMODB

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
        if chances := trouble.strike(Kind.DYNAMODB_ERROR):
            errors = (
                client_error("InternalServerError", name, status=500),
                client_error("ThrottlingException", name),
                client_error("ProvisionedThroughputExceededException", name),
                EndpointConnectionError(endpoint_url=_URL),
                ConnectTimeoutError(endpoint_url=_URL),
            )
            return self.effects.fail(what, chances.choice(errors), chances.choice((0.01, 1.0)))
        if chances := trouble.strike(Kind.DYNAMODB_LOST_ANSWER):
            unheard = (
                client_error("InternalServerError", name, status=500),
                ReadTimeoutError(endpoint_url=_URL),
            )
            return self._lost(what, action, chances.choice(unheard), chances.choice((0.05, 2.0)))
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
    """S3 with faults."""

    service = "s3"
    seconds = 0.03
    kinds = _S3

    def __init__(self, client: MemoryS3, effects: Effects) -> None:
        super().__init__(client, effects)
        self._lies = S3Lies(client, effects.trouble)

    @override
    def _named(self, what: str, request: dict[str, Any]) -> str:
        return f"{what} {request.get('Key', request.get('Prefix', ''))}"

    @override
    def _troubled(self, what: str, operation: str, request: dict[str, Any], action: Call) -> Any:
        trouble, what = self.effects.trouble, self._named(what, request)
        name = operation.title().replace("_", "")
        if chances := trouble.strike(Kind.S3_ERROR):
            errors = (
                client_error("SlowDown", name, status=503),
                client_error("InternalError", name, status=500),
                EndpointConnectionError(endpoint_url=_URL),
            )
            return self.effects.fail(what, chances.choice(errors), chances.choice((0.05, 1.0)))
        if chances := trouble.strike(Kind.S3_LOST_ANSWER):
            return self._lost(what, action, ReadTimeoutError(endpoint_url=_URL), 2.0)
        if operation == "put_object" and (chances := trouble.strike(Kind.S3_LATE)):
            return self._late(what, action, chances.uniform(0, 60), 2.0)
        return self.effects.perform(what, self._lies.about(operation, request, action), self._time())


class SQS(_Client):
    """SQS with faults."""

    service = "sqs"
    seconds = 0.01
    kinds = _SQS

    @override
    def _troubled(self, what: str, operation: str, request: dict[str, Any], action: Call) -> Any:
        trouble = self.effects.trouble
        name = operation.title().replace("_", "")
        if chances := trouble.strike(Kind.SQS_DOWN):
            errors = (
                client_error("InternalError", name, status=500),
                EndpointConnectionError(endpoint_url=_URL),
            )
            return self.effects.fail(what, chances.choice(errors), 1.0)
        if chances := trouble.strike(Kind.SQS_LOST_ANSWER):
            return self._lost(what, action, ReadTimeoutError(endpoint_url=_URL), 1.5)
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
    kinds = _KINESIS

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
        if chances := trouble.strike(Kind.KINESIS_READ) or trouble.strike(Kind.KINESIS_UNREADABLE):
            errors = [
                client_error("ProvisionedThroughputExceededException", name),
                client_error("InternalFailure", name, status=500),
                ReadTimeoutError(endpoint_url=_URL),
            ]
            if operation == "get_records":
                errors.append(client_error("ExpiredIteratorException", name))
            return self.effects.fail(what, chances.choice(errors), chances.choice((0.02, 1.0)))
        if trouble.strike(Kind.KINESIS_DOWN) or trouble.strike(Kind.KINESIS_LONG_OUTAGE):
            return self.effects.fail(what, EndpointConnectionError(endpoint_url=_URL), 1.0)
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
        if chances := trouble.strike(Kind.KINESIS_DOWN) or trouble.strike(Kind.KINESIS_LONG_OUTAGE):
            errors = (
                EndpointConnectionError(endpoint_url=_URL),
                ConnectTimeoutError(endpoint_url=_URL),
                client_error("ServiceUnavailable", "PutRecord", status=503),
            )
            return effects.fail(what, chances.choice(errors), 1.0)
        if trouble.strike(Kind.KINESIS_THROTTLE):
            return effects.fail(
                what, client_error("ProvisionedThroughputExceededException", "PutRecord"), 0.01
            )
        if chances := trouble.strike(Kind.KINESIS_INTERNAL):
            error = client_error("InternalFailure", "PutRecord", status=500)
            if chances.random() < 0.5:
                return self._lost(what, action, error, 0.1)
            return effects.fail(what, error, 0.1)
        if trouble.strike(Kind.KINESIS_TIMEOUT):
            return effects.fail(what, ReadTimeoutError(endpoint_url=_URL), 1.5)
        if trouble.strike(Kind.KINESIS_LOST_ANSWER):
            return self._lost(what, action, ReadTimeoutError(endpoint_url=_URL), 1.5)
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
        self._server = server
        self._effects = effects
        self._view = Reachable(server, effects)

    def pipeline(self, *, transaction: bool = True) -> MemoryPipeline:
        """Return a pipeline that executes as one effect."""
        if transaction:
            return self._server.pipeline()
        return _Pipeline(self._view, self._effect)

    def __getattr__(self, command: str) -> Callable[..., Any]:
        """Return a command whose calls are effects."""
        if command.startswith("_"):
            raise AttributeError(command)
        call = getattr(self._view, command)
        return lambda *args, **options: self._effect(command, partial(call, *args, **options))

    def _effect(self, what: str, action: Call) -> Any:
        what, trouble = f"redis {what}", self._effects.trouble
        seconds = 0.001
        if trouble.any_of(_REDIS):
            if chances := trouble.strike(Kind.REDIS_DOWN) or trouble.strike(Kind.REDIS_LONG_OUTAGE):
                gone = redis.exceptions.ConnectionError("Connection refused.")
                return self._effects.fail(what, gone, chances.choice((0.1, 0.5)))
            if trouble.strike(Kind.REDIS_REFUSED):
                refused = redis.exceptions.AuthenticationError("invalid username-password pair")
                return self._effects.fail(what, refused, 0.1)
            if trouble.strike(Kind.REDIS_TIMEOUT):
                error = redis.exceptions.TimeoutError("Timeout reading from socket")
                return self._effects.fail(what, error, 1.6)
            if chances := trouble.strike(Kind.REDIS_SLOW):
                seconds = chances.uniform(0.05, 0.5)
        return self._effects.perform(what, action, seconds)


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


class TdTroubles:
    """Chooses the fault that the Treasure Data double shows, once per request."""

    def __init__(self, effects: Effects) -> None:
        self._effects = effects

    def strike(self, target: Target, now: float) -> Fault | None:  # noqa: ARG002, C901, PLR0912 -- a table of cases
        """Return the fault for a request, if any."""
        trouble = self._effects.trouble
        database, importing = target.database or "", target.action is Action.IMPORT
        if trouble.strike(Kind.TD_LONG_OUTAGE):
            return Fault(kind=TdKind.REFUSE)
        if chances := trouble.strike(Kind.TD_OUTAGE):
            return chances.choice(
                (
                    Fault(kind=TdKind.REFUSE),
                    Fault(kind=TdKind.UNREACHABLE),
                    Fault(kind=TdKind.HANG),
                    Fault(kind=TdKind.HANG, lands=0 if chances.random() < 0.2 else None),
                    Fault(kind=TdKind.STATUS, status=503),
                )
            )
        if (fault := td_lies.lie(trouble, target)) or target.action is Action.STATUS:
            return fault
        if trouble.strike(Kind.TD_UNAUTHORIZED):
            return Fault(kind=TdKind.STATUS, status=401)
        if trouble.strike(Kind.TD_FORBIDDEN_DATABASE, database):
            return Fault(kind=TdKind.STATUS, status=403)
        if chances := trouble.strike(Kind.TD_HANGING_DATABASE, database):
            return Fault(kind=TdKind.HANG, lands=0 if importing and chances.random() < 0.3 else None)
        if chances := trouble.strike(Kind.TD_SLOW_DATABASE, database):
            return Fault(kind=TdKind.SLOW, seconds=chances.choice((3.0, 5.0, 8.0)))
        if trouble.strike(Kind.TD_BROKEN_DATABASE, database):
            return Fault(kind=TdKind.STATUS, status=500)
        if target.action is Action.QUERY and (chances := trouble.strike(Kind.TD_JOB_FAILS)):
            return Fault(kind=TdKind.STATUS, status=chances.choice((500, 429, 503)))
        if chances := trouble.strike(Kind.TD_5XX):
            lands = 0 if importing and chances.random() < 0.3 else None
            return Fault(kind=TdKind.STATUS, status=chances.choice((500, 502, 503, 504)), lands=lands)
        if chances := trouble.strike(Kind.TD_429):
            return Fault(kind=TdKind.STATUS, status=429, retry_after=chances.choice((0, 1, 7, 90)))
        if chances := trouble.strike(Kind.TD_HANG):
            return Fault(kind=TdKind.HANG, seconds=chances.choice((None, 20.0)))
        if trouble.strike(Kind.TD_RESET_BEFORE):
            return Fault(kind=TdKind.RESET)
        if trouble.strike(Kind.TD_RESET_AFTER):
            return Fault(kind=TdKind.CLOSE)
        if trouble.strike(Kind.TD_REFUSED):
            return Fault(kind=TdKind.REFUSE)
        if trouble.strike(Kind.TD_UNREACHABLE):
            return Fault(kind=TdKind.UNREACHABLE)
        if chances := trouble.strike(Kind.TD_SLOW):
            return Fault(kind=TdKind.SLOW, seconds=chances.choice((0.5, 5.0, 25.0, 70.0)))
        return self._import_fault(target) if importing else None

    def _import_fault(self, target: Target) -> Fault | None:
        trouble = self._effects.trouble
        if trouble.strike(Kind.TD_REJECTS_TABLE, target.table or ""):
            return Fault(kind=TdKind.STATUS, status=422)
        if chances := trouble.strike(Kind.TD_LOST_ANSWER):
            kind = chances.choice((TdKind.CLOSE, TdKind.HANG))
            return Fault(kind=kind, seconds=None if kind is TdKind.CLOSE else 300.0, lands=0)
        if chances := trouble.strike(Kind.TD_LATE):
            return Fault(kind=TdKind.HANG, lands=chances.uniform(0.0, 100.0))
        if trouble.strike(Kind.TD_WRONG_MD5):
            return Fault(kind=TdKind.WRONG_MD5)
        if trouble.strike(Kind.TD_NOT_JSON):
            return Fault(kind=TdKind.NOT_JSON)
        return None


class TreasureDataTransport:
    """Passes each request to the Treasure Data double as an effect.

    Args:
        handle: handles a request.
        effects: adds latency and kills.
        seconds: the average time to a response.
    """

    def __init__(
        self, handle: Callable[[Request], Response], effects: Effects, seconds: float = 0.15
    ) -> None:
        self._handle = handle
        self._effects = effects
        self._seconds = seconds

    def __call__(self, request: Request) -> Response:
        """Handle a request."""
        what = f"td {request.method} {request.target}"
        seconds = self._seconds * (0.4 + 1.2 * self._effects.chance.random())
        response: Response = self._effects.perform(what, lambda: self._answer(request), seconds)
        return response

    def _answer(self, request: Request) -> Response:
        trouble = self._effects.trouble
        if trouble.active(Kind.TD_WRONG_MD5) and "/import_with_id/" in request.target:
            chances = trouble.strike(Kind.TD_WRONG_MD5)
            if chances and chances.random() < 0.5:
                return Response(200, b'{"md5_hex": "00000000000000000000000000000000"}')
        return self._handle(request)


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


def pages(call: Callable[..., dict[str, Any]], **request: Any) -> Iterator[dict[str, Any]]:
    """Yield the pages of a paginated listing."""
    while True:
        answer = call(**request)
        yield answer
        if not answer.get("NextToken"):
            return
        request = {"NextToken": answer["NextToken"]}
