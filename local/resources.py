"""The AWS resources that the functions use, created in an empty AWS on this machine."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from botocore.client import BaseClient
from botocore.config import Config
from botocore.session import Session

from doubles.iam import REGION, arn
from ops.template import sluice_template
from shared.aws_clients import makes_client, method_makes_client

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local"}

_CONFIG = Config(
    connect_timeout=2,
    read_timeout=30,
    retries={"mode": "standard", "total_max_attempts": 2},
    proxies={},  # never use a proxy for loopback
)

_TEMPLATE = sluice_template()


def _of(resource: str, *names: str) -> dict[str, Any]:
    properties = _TEMPLATE.properties(resource)
    return {name: properties[name] for name in names}


def _texts(properties: Mapping[Any, int]) -> dict[Any, str]:
    return {name: str(value) for name, value in properties.items()}


QUEUE = _texts(_of("OverflowQueue", "DelaySeconds", "VisibilityTimeout", "MessageRetentionPeriod"))
NOTICES = _texts(_of("OverflowNotices", "MessageRetentionPeriod"))
LEDGER = _of("Ledger", "BillingMode", "AttributeDefinitions", "KeySchema", "GlobalSecondaryIndexes")
COUNTERS = _of("Counters", "BillingMode", "AttributeDefinitions", "KeySchema")
LEDGER_TABLE = "sluice-local-ledger"


@dataclass(frozen=True, slots=True)
class Resources:
    """The names of the resources, and the endpoint of AWS."""

    endpoint: str
    queue_url: str
    stream: str = "sluice-local"
    ledger_table: str = LEDGER_TABLE
    counters_table: str = "sluice-local-counters"
    data_bucket: str = "sluice-local-aside"
    write_key_secret: str = "sluice-local-write-keys"  # noqa: S105 -- a name
    td_api_key_secret: str = "sluice-local-td-api-key"  # noqa: S105 -- a name
    redis_url_secret: str = "sluice-local-redis-url"  # noqa: S105 -- a name

    @property
    def stream_arn(self) -> str:
        """The stream's ARN."""
        return arn("kinesis", f"stream/{self.stream}")

    @property
    def queue_arn(self) -> str:
        """The overflow queue's ARN."""
        return arn("sqs", self.queue_url.rpartition("/")[2])

    @property
    def notices_url(self) -> str:
        """The queue of notices that the overflow queue was used."""
        return f"{self.queue_url}-notices"

    def references(self) -> dict[str, str]:
        """Return the results of `!Ref` and `!GetAtt` in the template, by the name after them."""
        return {
            "AWS::StackName": "sluice-local",
            "Stream": self.stream,
            "Stream.Arn": self.stream_arn,
            "OverflowQueue": self.queue_url,
            "OverflowQueue.Arn": self.queue_arn,
            "OverflowNotices": self.notices_url,
            "OverflowNotices.Arn": f"{self.queue_arn}-notices",
            "Ledger": self.ledger_table,
            "Ledger.Arn": arn("dynamodb", f"table/{self.ledger_table}"),
            "Counters": self.counters_table,
            "Counters.Arn": arn("dynamodb", f"table/{self.counters_table}"),
            "DataBucket": self.data_bucket,
            "DataBucket.Arn": f"arn:aws:s3:::{self.data_bucket}",
            "WriteKeySecret.Id": self.write_key_secret,
            "TdApiKeySecret.Id": self.td_api_key_secret,
            "RedisUrlSecret.Id": self.redis_url_secret,
        }

    @method_makes_client
    def client(self, service: str) -> BaseClient:
        """Return a boto3 client of an AWS service; threads may share it."""
        return client(service, self.endpoint)


@makes_client
def client(service: str, endpoint: str) -> BaseClient:
    """Return a boto3 client of an AWS service at an endpoint; threads may share it."""
    return _session().create_client(
        service,
        region_name=REGION,
        endpoint_url=endpoint,
        aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        config=_CONFIG,
    )


@cache
def _session() -> Session:
    """Return a session that ignores the AWS profiles of this machine."""
    return Session(
        {
            "profile": (None, None, None, None),
            "config_file": (None, None, os.devnull, None),
            "credentials_file": (None, None, os.devnull, None),
        }
    )


def create(
    endpoint: str, *, shards: int, signing_secrets: Mapping[str, str], td_api_key: str, redis_url: str
) -> Resources:
    """Create the resources of template.yaml, and return their names.

    Args:
        endpoint: the URL of AWS.
        shards: number of shards of the stream.
        signing_secrets: secrets that sign write keys, by id.
        td_api_key: Treasure Data's API key.
        redis_url: the URL of the Redis with the accounts.

    Raises:
        ClientError: AWS rejected a request.
    """
    queue = client("sqs", endpoint).create_queue(QueueName="sluice-local-overflow", Attributes=QUEUE)
    client("sqs", endpoint).create_queue(QueueName="sluice-local-overflow-notices", Attributes=NOTICES)
    resources = Resources(endpoint, queue["QueueUrl"])
    secrets = resources.client("secretsmanager")
    kept = {
        resources.write_key_secret: json.dumps(dict(signing_secrets)),
        resources.td_api_key_secret: td_api_key,
        resources.redis_url_secret: redis_url,
    }
    resources.client("kinesis").create_stream(StreamName=resources.stream, ShardCount=shards)
    resources.client("s3").create_bucket(Bucket=resources.data_bucket)
    resources.client("dynamodb").create_table(TableName=resources.ledger_table, **LEDGER)
    resources.client("dynamodb").create_table(TableName=resources.counters_table, **COUNTERS)
    for name, value in kept.items():
        secrets.create_secret(Name=name, SecretString=value)
    return resources
