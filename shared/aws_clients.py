"""boto3's clients: their types, by the names of their services, and those of the functions, whose calls end soon.

The ingest does not import this: its zip has no boto3.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast, overload

import boto3
from botocore.client import BaseClient
from botocore.config import Config

if TYPE_CHECKING:
    from mypy_boto3_acm import ACMClient
    from mypy_boto3_apigatewayv2 import ApiGatewayV2Client
    from mypy_boto3_cloudformation import CloudFormationClient
    from mypy_boto3_cloudfront import CloudFrontClient
    from mypy_boto3_cloudwatch import CloudWatchClient
    from mypy_boto3_codedeploy import CodeDeployClient
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_elasticache import ElastiCacheClient
    from mypy_boto3_iam import IAMClient
    from mypy_boto3_kinesis import KinesisClient
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_logs import CloudWatchLogsClient
    from mypy_boto3_route53 import Route53Client
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_secretsmanager import SecretsManagerClient
    from mypy_boto3_service_quotas import ServiceQuotasClient
    from mypy_boto3_sns import SNSClient
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sts import STSClient

CONNECTIONS = 32
"""How many connections a client of `bounded_client` keeps: several threads of the worker share one."""


class MakesClient(Protocol):
    """Returns a client of the service that its first argument names."""

    @overload
    def __call__(self, service: Literal["acm"], *_: Any, **__: Any) -> "ACMClient": ...
    @overload
    def __call__(self, service: Literal["apigatewayv2"], *_: Any, **__: Any) -> "ApiGatewayV2Client": ...
    @overload
    def __call__(self, service: Literal["cloudformation"], *_: Any, **__: Any) -> "CloudFormationClient": ...
    @overload
    def __call__(self, service: Literal["cloudfront"], *_: Any, **__: Any) -> "CloudFrontClient": ...
    @overload
    def __call__(self, service: Literal["cloudwatch"], *_: Any, **__: Any) -> "CloudWatchClient": ...
    @overload
    def __call__(self, service: Literal["codedeploy"], *_: Any, **__: Any) -> "CodeDeployClient": ...
    @overload
    def __call__(self, service: Literal["dynamodb"], *_: Any, **__: Any) -> "DynamoDBClient": ...
    @overload
    def __call__(self, service: Literal["ec2"], *_: Any, **__: Any) -> "EC2Client": ...
    @overload
    def __call__(self, service: Literal["elasticache"], *_: Any, **__: Any) -> "ElastiCacheClient": ...
    @overload
    def __call__(self, service: Literal["iam"], *_: Any, **__: Any) -> "IAMClient": ...
    @overload
    def __call__(self, service: Literal["kinesis"], *_: Any, **__: Any) -> "KinesisClient": ...
    @overload
    def __call__(self, service: Literal["lambda"], *_: Any, **__: Any) -> "LambdaClient": ...
    @overload
    def __call__(self, service: Literal["logs"], *_: Any, **__: Any) -> "CloudWatchLogsClient": ...
    @overload
    def __call__(self, service: Literal["route53"], *_: Any, **__: Any) -> "Route53Client": ...
    @overload
    def __call__(self, service: Literal["s3"], *_: Any, **__: Any) -> "S3Client": ...
    @overload
    def __call__(self, service: Literal["secretsmanager"], *_: Any, **__: Any) -> "SecretsManagerClient": ...
    @overload
    def __call__(self, service: Literal["service-quotas"], *_: Any, **__: Any) -> "ServiceQuotasClient": ...
    @overload
    def __call__(self, service: Literal["sns"], *_: Any, **__: Any) -> "SNSClient": ...
    @overload
    def __call__(self, service: Literal["sqs"], *_: Any, **__: Any) -> "SQSClient": ...
    @overload
    def __call__(self, service: Literal["sts"], *_: Any, **__: Any) -> "STSClient": ...
    @overload
    def __call__(self, service: str, *_: Any, **__: Any) -> "BaseClient": ...


class _Method(Protocol):
    def __get__(self, instance: object, owner: type | None = None) -> MakesClient: ...


def makes_client(function: Callable[..., BaseClient]) -> MakesClient:
    """Give a function that returns a client of a named service the types of MakesClient."""
    return cast("MakesClient", function)


def method_makes_client(function: Callable[..., BaseClient]) -> _Method:
    """Give a method that returns a client of a named service the types of MakesClient."""
    return cast("_Method", function)


@makes_client
def bounded_client(service: str, *, attempts: int, read_seconds: float = 5) -> BaseClient:
    """Return a client whose calls end after this many attempts, each of a second to connect and `read_seconds` without an answer."""
    config = Config(
        connect_timeout=1,
        read_timeout=read_seconds,
        tcp_keepalive=True,
        max_pool_connections=CONNECTIONS,
        retries={"mode": "standard", "total_max_attempts": attempts},
    )
    made: BaseClient = boto3.client(service, config=config)  # type: ignore[call-overload]  # the stub accepts only literals
    return made
