"""The types of boto3's clients, by the names of their services."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Concatenate, Literal, Protocol, cast, overload

if TYPE_CHECKING:
    from botocore.client import BaseClient
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


class MakesClient[**P](Protocol):
    """Returns a client of the service that its first argument names. P are its other parameters."""

    @overload
    def __call__(self, service: Literal["acm"], *args: P.args, **kwargs: P.kwargs) -> "ACMClient": ...
    @overload
    def __call__(
        self, service: Literal["apigatewayv2"], *args: P.args, **kwargs: P.kwargs
    ) -> "ApiGatewayV2Client": ...
    @overload
    def __call__(
        self, service: Literal["cloudformation"], *args: P.args, **kwargs: P.kwargs
    ) -> "CloudFormationClient": ...
    @overload
    def __call__(
        self, service: Literal["cloudfront"], *args: P.args, **kwargs: P.kwargs
    ) -> "CloudFrontClient": ...
    @overload
    def __call__(
        self, service: Literal["cloudwatch"], *args: P.args, **kwargs: P.kwargs
    ) -> "CloudWatchClient": ...
    @overload
    def __call__(
        self, service: Literal["codedeploy"], *args: P.args, **kwargs: P.kwargs
    ) -> "CodeDeployClient": ...
    @overload
    def __call__(
        self, service: Literal["dynamodb"], *args: P.args, **kwargs: P.kwargs
    ) -> "DynamoDBClient": ...
    @overload
    def __call__(self, service: Literal["ec2"], *args: P.args, **kwargs: P.kwargs) -> "EC2Client": ...
    @overload
    def __call__(
        self, service: Literal["elasticache"], *args: P.args, **kwargs: P.kwargs
    ) -> "ElastiCacheClient": ...
    @overload
    def __call__(self, service: Literal["iam"], *args: P.args, **kwargs: P.kwargs) -> "IAMClient": ...
    @overload
    def __call__(self, service: Literal["kinesis"], *args: P.args, **kwargs: P.kwargs) -> "KinesisClient": ...
    @overload
    def __call__(self, service: Literal["lambda"], *args: P.args, **kwargs: P.kwargs) -> "LambdaClient": ...
    @overload
    def __call__(
        self, service: Literal["logs"], *args: P.args, **kwargs: P.kwargs
    ) -> "CloudWatchLogsClient": ...
    @overload
    def __call__(self, service: Literal["route53"], *args: P.args, **kwargs: P.kwargs) -> "Route53Client": ...
    @overload
    def __call__(self, service: Literal["s3"], *args: P.args, **kwargs: P.kwargs) -> "S3Client": ...
    @overload
    def __call__(
        self, service: Literal["secretsmanager"], *args: P.args, **kwargs: P.kwargs
    ) -> "SecretsManagerClient": ...
    @overload
    def __call__(
        self, service: Literal["service-quotas"], *args: P.args, **kwargs: P.kwargs
    ) -> "ServiceQuotasClient": ...
    @overload
    def __call__(self, service: Literal["sns"], *args: P.args, **kwargs: P.kwargs) -> "SNSClient": ...
    @overload
    def __call__(self, service: Literal["sqs"], *args: P.args, **kwargs: P.kwargs) -> "SQSClient": ...
    @overload
    def __call__(self, service: Literal["sts"], *args: P.args, **kwargs: P.kwargs) -> "STSClient": ...
    @overload
    def __call__(self, service: str, *args: P.args, **kwargs: P.kwargs) -> "BaseClient": ...


class _Method[**P](Protocol):
    def __get__(self, instance: object, owner: type | None = None) -> MakesClient[P]: ...


def makes_client[**P](function: "Callable[Concatenate[str, P], BaseClient]") -> MakesClient[P]:
    """Give a function that returns a client of a named service the types of MakesClient."""
    return cast("MakesClient[P]", function)


def method_makes_client[Self, **P](
    function: "Callable[Concatenate[Self, str, P], BaseClient]",
) -> _Method[P]:
    """Give a method that returns a client of a named service the types of MakesClient."""
    return cast("_Method[P]", function)
