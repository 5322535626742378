"""The composition root of the delivery functions: builds every part once, from settings and effects.

Lambda passes in AWS, Redis and Treasure Data; tests, fault injection, simulations and benchmarks pass in their own.
"""

import os
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

import boto3
import requests
from botocore.client import BaseClient
from botocore.config import Config
from botocore.credentials import ReadOnlyCredentials

from shared.accounts import AccountKeys
from shared.aws_clients import makes_client
from shared.clock import Clock, SystemClock
from shared.errors import SecretUnavailableError
from shared.settings import WorkerSettings
from shared.telemetry import PowertoolsTelemetry, Telemetry
from worker import bounded_http
from worker.account_cache import AccountCache
from worker.admin import Admin
from worker.archive import Archive
from worker.breaker import Breakers
from worker.bucket import Bucket
from worker.claims import Claims
from worker.contiguity import Contiguity
from worker.deadline import Deadline
from worker.delivery import Rules
from worker.drain import Drain
from worker.edit import Edits
from worker.execution import Delivery
from worker.executor import Executors, Threads
from worker.guards import NONE, Without
from worker.ledger import Ledger
from worker.markers import Markers
from worker.open_spans import OpenSpans
from worker.overflow_set_aside import OverflowSetAside
from worker.redis_client import connect, iam_user
from worker.redrive import Redrive
from worker.repair import Returns
from worker.search import Search
from worker.secret import Secret
from worker.set_aside import SetAsideStore
from worker.shards import Shards
from worker.span import Cut
from worker.sweeper import Sweeper
from worker.tables import Tables
from worker.treasure_data import TreasureDataClient
from worker.upload import MOST_SENDS, Limits, Uploader
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
        session: carries requests to Treasure Data; it must not retry.
    """

    kinesis: "KinesisClient"
    dynamodb: "DynamoDBClient"
    s3: "S3Client"
    sqs: "SQSClient"
    secrets: "SecretsManagerClient"
    redis: "Callable[[], redis.Redis]"
    session: requests.Session
    clock: Clock
    entropy: Callable[[int], bytes]
    chance: Callable[[], float]
    executors: Executors
    telemetry: Telemetry


class Wiring:
    """The parts of one function instance.

    Args:
        without: guards to leave out.
        replaced: by class, the class that fault injection builds in its place.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        effects: Effects,
        without: Without = NONE,
        replaced: Mapping[Any, Any] = MappingProxyType({}),
    ) -> None:
        self.settings = settings
        self.effects = effects
        clock, telemetry, executors = effects.clock, effects.telemetry, effects.executors

        def make[T](kind: type[T]) -> type[T]:
            found: type[T] = replaced.get(kind, kind)
            return found

        self.rules = make(Rules)(
            memory_seconds=settings.td_memory_minutes * 60,
            query_delay_seconds=settings.td_query_delay_minutes * 60,
            held_at_most_seconds=settings.retention_hours * 3600 / 2,
            parked_max_seconds=settings.parked_max_days * 86_400,
            retention_seconds=settings.retention_hours * 3600,
            sends_unasked=settings.unaskable_doubt == "send",
            without=without,
        )
        self.ledger = make(Ledger)(
            effects.dynamodb,
            settings.ledger_table,
            clock=clock,
            entropy=effects.entropy,
            telemetry=telemetry,
            without=without,
        )
        bucket = make(Bucket)(effects.s3, settings.aside_bucket)
        self.store = make(SetAsideStore)(bucket, without)
        self.shards = make(Shards)(effects.kinesis, settings.stream_name, clock)
        self.accounts = make(AccountCache)(
            effects.redis, AccountKeys(settings.ledger_table), clock, telemetry
        )
        self.delivery = delivery = Delivery(self.ledger, self.store, self.rules, executors, clock, telemetry)
        self.claims = make(Claims)(delivery, self.shards)
        self.treasure_data = make(TreasureDataClient)(
            effects.session,
            settings.td_import_endpoint,
            settings.td_api_endpoint,
            Secret(effects.secrets, settings.td_api_key_secret, clock),
            clock,
        )
        self.breakers = make(Breakers)(self.ledger, clock, telemetry)
        self.tables = Tables(self.ledger)
        self.uploader = Uploader(
            treasure_data=self.treasure_data,
            accounts=self.accounts,
            breakers=self.breakers,
            tables=self.tables,
            chance=effects.chance,
            limits=Limits(
                threads=settings.upload_threads,
                per_database=settings.uploads_per_database,
                park_after=settings.park_after_seconds,
            ),
            rules=self.rules,
            executors=executors,
            clock=clock,
            telemetry=telemetry,
        )
        self.archive = make(Archive)(bucket)
        self.worker = make(Worker)(
            shards=self.shards,
            accounts=self.accounts,
            claims=self.claims,
            tables=self.tables,
            uploader=self.uploader,
            delivery=delivery,
            contiguity=Contiguity(self.shards, self.archive, delivery),
            open_spans=make(OpenSpans)(self.shards, self.archive, delivery),
            archive=self.archive,
            archive_days=settings.archive_days,
            cut=Cut(settings.chunk_max_rows, settings.chunk_max_bytes),
        )
        self.redrive = Redrive(delivery, self.accounts, self.uploader, self.breakers)
        self.watermark_rows = WatermarkRows(
            delivery,
            make(Watermarks)(
                shards=self.shards,
                ledger=self.ledger,
                sqs=effects.sqs,
                queue_url=settings.overflow_queue_url,
                notices_url=settings.overflow_notices_url,
                clock=clock,
                executors=executors,
            ),
            self.accounts,
            self.treasure_data,
            settings.watermark_table,
        )
        self.edits = Edits(delivery)
        self.returns = Returns(delivery, effects.kinesis, settings.stream_name)
        self.markers = Markers(delivery, self.shards, effects.kinesis, settings.stream_name)
        self.sweeper = make(Sweeper)(delivery, self.worker.end_expired)
        self.drain = make(Drain)(
            delivery,
            kinesis=effects.kinesis,
            stream_name=settings.stream_name,
            shards=self.shards,
            search=partial(make(Search), self.shards, clock),
            sqs=effects.sqs,
            queue_url=settings.overflow_queue_url,
            aside=OverflowSetAside(
                delivery,
                seconds_kept=self.claims.seconds_kept,
                archive=self.archive,
                archive_days=settings.archive_days,
            ),
            chance=effects.chance,
        )
        self.admin = Admin(effects.redis, self.treasure_data, settings, clock, effects.s3)

    def deadline(self, context: Any) -> Deadline:
        """Return the deadline of an invocation, given its Lambda context."""
        return Deadline.of(self.effects.clock, context.get_remaining_time_in_millis())

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Wiring":
        """Return the parts of a Lambda function.

        Raises:
            SettingsError: a setting is missing or wrong.
        """
        settings = WorkerSettings.from_environment(environment)
        return cls(settings, _lambda_effects(settings, environment))


class _OnFirstUse:
    """A client that is created when it is first used."""

    def __init__(self, create: Callable[[], BaseClient]) -> None:
        self._create = create

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    @cached_property
    def _client(self) -> BaseClient:
        return self._create()


def _lambda_effects(settings: WorkerSettings, environment: Mapping[str, str]) -> Effects:
    bounded_http.bound_responses()
    clock = SystemClock()
    secrets = _aws("secretsmanager", settings)
    return Effects(
        kinesis=_aws("kinesis", settings, attempts=1),
        dynamodb=_aws("dynamodb", settings, attempts=3, read_seconds=2),
        s3=_aws("s3", settings, read_seconds=10),
        sqs=_aws("sqs", settings),
        secrets=secrets,
        redis=_redis(settings, secrets, clock),
        session=bounded_http.session(MOST_SENDS),
        clock=clock,
        entropy=os.urandom,
        chance=random.random,
        executors=Threads,
        telemetry=PowertoolsTelemetry.from_environment(environment, clock),
    )


@makes_client
def _aws(service: str, settings: WorkerSettings, attempts: int = 2, read_seconds: float = 5) -> BaseClient:
    """Return a boto3 client whose calls succeed or fail within a few seconds."""

    def create() -> BaseClient:
        config = Config(
            connect_timeout=1,
            read_timeout=read_seconds,
            tcp_keepalive=True,
            max_pool_connections=settings.upload_threads,
            retries={"mode": "standard", "total_max_attempts": attempts},
        )
        made: BaseClient = boto3.client(service, config=config)  # type: ignore[call-overload]  # the stub accepts only literals
        return made

    return cast("BaseClient", _OnFirstUse(create))


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
    return lambda: connected(url.get(max_age=REDIS_URL_SECONDS))
