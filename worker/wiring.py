"""The composition root of the delivery functions: builds every part once, from settings and effects.

Lambda passes in AWS, Redis and Treasure Data; tests, fault injection, simulations and benchmarks pass in their own.
"""

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import boto3
from botocore.credentials import ReadOnlyCredentials
from urllib3 import PoolManager

from shared.accounts import AccountKeys
from shared.aws_clients import bounded_client
from shared.clock import Clock, SystemClock
from shared.errors import SecretUnavailableError
from shared.published_policy import PublishedPolicy
from shared.settings import WorkerSettings
from shared.telemetry import PowertoolsTelemetry, Telemetry
from worker import bounded_http
from worker.account_cache import AccountCache
from worker.admin import Admin
from worker.again import Again
from worker.bucket import Bucket
from worker.claims import Claims
from worker.deadline import Deadline
from worker.drain import Drain
from worker.executor import Executors, Threads
from worker.forced_replay import ForcedReplays
from worker.forget.cut import Forgetting
from worker.forget.requests import ForgetRequests
from worker.forget.run import Forget
from worker.forget.search import SHOWN_SECONDS, ForgetSearch
from worker.health import DatabaseHealth
from worker.inquiry import Inquiries
from worker.ledger import Ledger
from worker.membership import Membership
from worker.passing import Passing
from worker.plan import Cut
from worker.redis_client import connect, iam_user
from worker.replacement import Replacements
from worker.restored import RestoreGuard
from worker.secret import Secret
from worker.sender import Sender
from worker.settlement import Settlement
from worker.shards import Shards
from worker.span_object import SpanObjects
from worker.states import Rules
from worker.sweeper import Sweeper
from worker.tables import Tables
from worker.treasure_data.client import TreasureDataClient
from worker.turn import Turns
from worker.upload import MOST_SENDS, Uploader
from worker.watermark import Watermarks
from worker.watermark_rows import WatermarkRows
from worker.worker import Worker

if TYPE_CHECKING:
    import redis
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_kinesis import KinesisClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_secretsmanager import SecretsManagerClient
    from mypy_boto3_sqs import SQSClient

REDIS_URL_SECONDS = 600.0
"""How long it may take to notice a change of the Redis URL."""

IAM_SESSION_SECONDS = 6 * 3600.0
"""How long to use connections that were authenticated by IAM: ElastiCache ends them after twelve hours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effects:
    """Everything outside of the functions that they use.

    Attributes:
        kinesis: a client that must not retry, because a repeated put could be on the stream twice.
        dynamodb: a client that may repeat writes, because the ledger recognizes its own.
        http: carries requests to Treasure Data.
    """

    kinesis: "KinesisClient"
    dynamodb: "DynamoDBClient"
    s3: "S3Client"
    sqs: "SQSClient"
    secrets: "SecretsManagerClient"
    redis: "Callable[[], redis.Redis]"
    http: PoolManager
    clock: Clock
    entropy: Callable[[int], bytes]
    executors: Executors
    telemetry: Telemetry


class Wiring:
    """The parts of one function instance. Fault injection builds other classes in place of some: they are `replaced`, by class."""

    def __init__(
        self, settings: WorkerSettings, effects: Effects, replaced: Mapping[Any, Any] = MappingProxyType({})
    ) -> None:
        self.settings = settings
        self.effects = effects
        clock, telemetry, executors = effects.clock, effects.telemetry, effects.executors

        def make[T](kind: type[T]) -> type[T]:
            found: type[T] = replaced.get(kind, kind)
            return found

        rules = make(Rules)(
            settings.td_memory_minutes * 60,
            settings.td_query_delay_minutes * 60,
            settings.unaskable_doubt == "send",
        )
        self.ledger = ledger = make(Ledger)(
            effects.dynamodb, settings.ledger_table, clock, effects.entropy, telemetry
        )
        bucket = make(Bucket)(effects.s3, settings.data_bucket)
        self.objects = objects = make(SpanObjects)(bucket)
        self.guard = make(RestoreGuard)(ledger, objects, clock, telemetry)
        self.shards = shards = make(Shards)(effects.kinesis, settings.stream_name, clock)
        self.membership = membership = make(Membership)(ledger, objects)
        keys = AccountKeys(settings.ledger_table)
        accounts = make(AccountCache)(effects.redis, keys, clock, telemetry)
        self.claims = make(Claims)(ledger, membership, shards, executors, clock)
        self.treasure_data = td = make(TreasureDataClient)(
            effects.http,
            settings.td_import_endpoint,
            settings.td_api_endpoint,
            Secret(effects.secrets, settings.td_api_key_secret, clock),
            clock,
        )
        self.health = health = make(DatabaseHealth)(td, clock, telemetry)
        tables = Tables(ledger)
        self.settlement = settlement = Settlement(ledger, rules, clock, telemetry)
        self.uploader = uploader = make(Uploader)(
            td, accounts, health, tables, settings.uploads_per_database, executors, clock, telemetry
        )
        self.worker = make(Worker)(
            shards,
            accounts,
            self.claims,
            membership,
            tables,
            uploader,
            health,
            ledger,
            objects,
            bucket,
            self.guard,
            settlement,
            executors,
            clock,
            telemetry,
            Cut(settings.chunk_max_rows, settings.chunk_max_bytes),
        )
        self.passing = make(Passing)(shards, ledger, clock, telemetry)
        secret = Secret(effects.secrets, settings.write_key_secret, clock)
        self.forget_requests = ForgetRequests(effects.s3, settings.data_bucket, secret, clock)
        self.forgetting = make(Forgetting)(
            ledger, objects, bucket, self.forget_requests, rules, clock, telemetry
        )
        self.again = make(Again)(self.passing, ledger, objects, executors)
        inquiries = Inquiries(td, self.again, self.forgetting, rules, executors, clock, telemetry)
        turns = make(Turns)(
            ledger,
            objects,
            self.claims,
            self.again,
            inquiries,
            self.forgetting,
            accounts,
            uploader,
            settlement,
            rules,
            executors,
            clock,
            telemetry,
        )
        self.sender = make(Sender)(
            ledger, turns, inquiries, self.forgetting, health, executors, clock, telemetry
        )
        self.watermarks = make(Watermarks)(
            self.passing,
            shards,
            ledger,
            effects.sqs,
            settings.overflow_queue_url,
            settings.overflow_notices_url,
            clock,
        )
        self.watermark_rows = WatermarkRows(
            ledger, self.watermarks, accounts, td, settings.watermark_table, executors, clock, telemetry
        )
        self.replacements = make(Replacements)(ledger, objects, rules, clock, telemetry)
        self.forced_replays = make(ForcedReplays)(ledger, objects, executors, clock)
        archive_seconds = settings.archive_days * 86_400.0
        self.sweeper = make(Sweeper)(
            ledger, objects, shards, self.forgetting, executors, archive_seconds, clock, telemetry
        )
        statements = td.statements
        search = make(ForgetSearch)(
            ledger,
            bucket,
            self.forgetting,
            self.forget_requests,
            statements,
            executors,
            clock,
            telemetry,
            max(SHOWN_SECONDS, rules.query_delay_seconds),
        )
        self.forget = make(Forget)(
            self.forget_requests,
            search,
            statements,
            accounts,
            shards,
            PublishedPolicy(effects.s3, settings.data_bucket),
            effects.entropy,
            clock,
            telemetry,
        )
        self.drain = make(Drain)(
            effects.kinesis,
            settings.stream_name,
            effects.sqs,
            settings.overflow_queue_url,
            ledger,
            objects,
            clock,
            telemetry,
        )
        self.admin = Admin(effects.redis, keys, td, settings, clock, effects.s3, health, executors)

    def deadline(self, context: Any) -> Deadline:
        """Return the deadline of an invocation, given its Lambda context."""
        return Deadline.of(self.effects.clock, context.get_remaining_time_in_millis())

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Wiring":
        """Return the parts of a Lambda function; raise SettingsError if a setting is missing or wrong."""
        settings = WorkerSettings.from_environment(environment)
        return cls(settings, _lambda_effects(settings, environment))


def _lambda_effects(settings: WorkerSettings, environment: Mapping[str, str]) -> Effects:
    bounded_http.bound_responses()
    clock = SystemClock()
    secrets = bounded_client("secretsmanager", attempts=2)
    return Effects(
        kinesis=bounded_client("kinesis", attempts=1),
        # a batch waits for several of its answers, one after the other
        dynamodb=bounded_client("dynamodb", attempts=3, read_seconds=2),
        s3=bounded_client("s3", attempts=2),
        sqs=bounded_client("sqs", attempts=2),
        secrets=secrets,
        redis=_redis(settings, secrets, clock),
        http=bounded_http.pool(MOST_SENDS),
        clock=clock,
        entropy=os.urandom,
        executors=Threads,
        telemetry=PowertoolsTelemetry.from_environment(environment, clock),
    )


def _redis(
    settings: WorkerSettings, secrets: "SecretsManagerClient", clock: Clock
) -> "Callable[[], redis.Redis]":
    """Return a function that returns the Redis client, and a new one when the secret names another server or IAM sessions grow old."""
    if settings.redis_url:
        session = boto3.Session()

        def credentials() -> ReadOnlyCredentials:
            found = session.get_credentials()
            if found is None:
                raise SecretUnavailableError("the function has no credentials to sign in to Redis with")
            return found.get_frozen_credentials()

        @lru_cache(maxsize=1)
        def sign_in(_period: int) -> Any:
            return connect(*iam_user(settings.redis_url, session.region_name, credentials))

        return lambda: sign_in(int(clock.now() // IAM_SESSION_SECONDS))
    url = Secret(secrets, settings.redis_url_secret, clock)
    connected = lru_cache(maxsize=1)(connect)

    def from_secret() -> "redis.Redis":
        text = url.get(max_age=REDIS_URL_SECONDS)
        with suppress(ValueError):  # which may quote the URL's password
            client: redis.Redis = connected(text)
            return client
        raise SecretUnavailableError(
            f"the secret {settings.redis_url_secret} holds no URL of a Redis: put the right one there"
        )

    return from_secret
