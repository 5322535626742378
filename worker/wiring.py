"""The effects of the delivery functions, built once per sandbox from the environment."""

import os
import random
from collections.abc import Callable, Mapping
from functools import cached_property, lru_cache
from typing import Any

import boto3
import requests
from botocore.config import Config
from requests.adapters import HTTPAdapter

from shared.clock import SystemClock
from shared.settings import WorkerSettings
from worker.accounts import Directory
from worker.aside import Aside
from worker.breaker import Breakers
from worker.execution import Means, Rules
from worker.executor import Threads
from worker.journal import PowertoolsJournal
from worker.ledger import Ledger
from worker.redis_client import connect
from worker.secret import Secret
from worker.sender import Sender
from worker.shard import Shards
from worker.span import Cut
from worker.treasure_data import TreasureData
from worker.upload import Limits, Uploader
from worker.worker import Worker

REDIS_URL_SECONDS = 600.0
"""How long a change of the Redis URL may take to be noticed."""


class _OnFirstUse:
    """A client that is made when it is needed: most batches set nothing aside."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    @cached_property
    def _client(self) -> Any:
        return self._make()


class Sandbox:
    """Everything that a delivery function stands on; each part is made at its first use.

    Args:
        environment: where the settings stand.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self.settings = WorkerSettings.from_environment(environment)
        self.clock = SystemClock()
        self.journal = PowertoolsJournal(environment.get("STAGE", "dev"))
        self._aws = boto3.Session()

    @cached_property
    def ledger(self) -> Ledger:
        """The ledger. Its client may repeat a write: the ledger knows its own."""
        client = self.client("dynamodb", attempts=3, read_seconds=2)
        return Ledger(client, self.settings.ledger_table, self.clock, os.urandom, self.journal)

    @cached_property
    def shards(self) -> Shards:
        """The stream, for reading."""
        return Shards(self.client("kinesis"), self.settings.stream_name, self.clock)

    @cached_property
    def directory(self) -> Directory:
        """The accounts."""
        return Directory(self.redis, self.clock, self.journal)

    @cached_property
    def aside(self) -> Aside:
        """The bucket of what is set aside."""
        return Aside(_OnFirstUse(lambda: self.client("s3", read_seconds=10)), self.settings.aside_bucket)

    @cached_property
    def treasure_data(self) -> TreasureData:
        """Treasure Data."""
        session = requests.Session()
        session.trust_env = False  # no proxies, no netrc: neither looked for at every request
        adapter = HTTPAdapter(pool_maxsize=self.settings.upload_threads, max_retries=0)
        session.mount("https://", adapter)
        session.mount("http://", adapter)
        return TreasureData(
            session,
            self.settings.td_import_endpoint,
            self.settings.td_api_endpoint,
            Secret(self._secrets, self.settings.td_api_key_secret, self.clock),
            self.clock,
        )

    @cached_property
    def breakers(self) -> Breakers:
        """What is known of databases."""
        return Breakers(self.ledger, self.clock, self.journal)

    @cached_property
    def means(self) -> Means:
        """What plans are carried out with."""
        held_at_most = self.settings.retention_hours * 3600 / 2
        uploader = Uploader(
            sender=Sender(self.treasure_data, self.directory),
            breakers=self.breakers,
            clock=self.clock,
            chance=random.random,
            limits=Limits(
                threads=self.settings.upload_threads,
                per_database=self.settings.uploads_per_database,
                park_after=self.settings.park_after_seconds,
                held_at_most=held_at_most,
            ),
            journal=self.journal,
        )
        rules = Rules(
            cut=Cut(self.settings.chunk_max_rows, self.settings.chunk_max_bytes),
            memory_seconds=self.settings.td_memory_minutes * 60,
            held_at_most=held_at_most,
        )
        return Means(
            ledger=self.ledger,
            uploader=uploader,
            aside=self.aside,
            executors=Threads,
            rules=rules,
            clock=self.clock,
            journal=self.journal,
        )

    @cached_property
    def worker(self) -> Worker:
        """What carries out batches."""
        return Worker(self.shards, self.directory, self.means)

    def client(self, service: str, attempts: int = 2, read_seconds: float = 5) -> Any:
        """Return a boto3 client that answers, or fails, within a few seconds."""
        config = Config(
            connect_timeout=1,
            read_timeout=read_seconds,
            tcp_keepalive=True,
            max_pool_connections=self.settings.upload_threads,
            retries={"mode": "standard", "total_max_attempts": attempts},
        )
        return self._aws.client(service, config=config)  # type: ignore[call-overload]  # service is not a literal

    @cached_property
    def _secrets(self) -> Any:
        return self.client("secretsmanager")

    @cached_property
    def _redis_url(self) -> Secret:
        return Secret(self._secrets, self.settings.redis_url_secret, self.clock)

    def redis(self) -> Any:
        """Return the Redis client, another one when the secret names another server.

        Raises:
            SecretUnavailableError: nobody knows where Redis is.
        """
        return self._connected(self._redis_url.get(max_age=REDIS_URL_SECONDS))

    @cached_property
    def _connected(self) -> Callable[[str], Any]:
        return lru_cache(maxsize=1)(connect)
