"""AWS prices in US dollars on READ_ON, before taxes, discounts and free tiers.

AWS's pages show most prices only with JavaScript. So each price has, besides the authoritative page, the source where it was read.
A price without a source, estimated from the region's other prices, is marked as not confirmed.
"""

from collections.abc import Mapping
from dataclasses import dataclass

READ_ON = "2026-11-25"
DEFAULT_REGION = "us-east-1"

_LAMBDA = "https://aws.amazon.com/lambda/pricing/"
_API = "https://aws.amazon.com/api-gateway/pricing/"
_KINESIS = "https://aws.amazon.com/kinesis/data-streams/pricing/"
_DYNAMODB = "https://aws.amazon.com/dynamodb/pricing/on-demand/"
_S3 = "https://aws.amazon.com/s3/pricing/"
_SQS = "https://aws.amazon.com/sqs/pricing/"
_SECRETS = "https://aws.amazon.com/secrets-manager/pricing/"
_CLOUDWATCH = "https://aws.amazon.com/cloudwatch/pricing/"
_ELASTICACHE = "https://aws.amazon.com/elasticache/pricing/"
_CLOUDFRONT = "https://aws.amazon.com/cloudfront/pricing/"
_KMS = "https://aws.amazon.com/kms/pricing/"
_EC2 = "https://aws.amazon.com/ec2/pricing/on-demand/"


@dataclass(frozen=True, slots=True)
class Unit:
    """The unit of a price.

    Attributes:
        per: the unit, with its multiple.
        page: AWS's authoritative page.
    """

    per: str
    page: str


UNITS: Mapping[str, Unit] = {
    "api_requests": Unit("million requests of an HTTP API, of up to 512 KB", _API),
    "api_more": Unit("million requests of an HTTP API beyond the first 300 million", _API),
    "lambda_requests": Unit("million invocations", _LAMBDA),
    "lambda_arm": Unit("GB-second, arm64", _LAMBDA),
    "lambda_x86": Unit("GB-second, x86_64", _LAMBDA),
    "shard_hours": Unit("shard-hour, provisioned", _KINESIS),
    "put_units": Unit("million units of 25 KB put, provisioned", _KINESIS),
    "stream_hours": Unit("stream-hour, on demand", _KINESIS),
    "stream_in": Unit("GB written, on demand, each record rounded up to 1 KB", _KINESIS),
    "stream_out": Unit("GB read, on demand", _KINESIS),
    "writes": Unit("million write request units of 1 KB", _DYNAMODB),
    "reads": Unit("million read request units of 4 KB", _DYNAMODB),
    "table_storage": Unit("GB-month in a table", _DYNAMODB),
    "table_backup": Unit("GB-month of point-in-time recovery", _DYNAMODB),
    "s3_storage": Unit("GB-month, standard", _S3),
    "s3_puts": Unit("thousand PUT and LIST requests", _S3),
    "s3_gets": Unit("thousand GET requests", _S3),
    "sqs_requests": Unit("million requests, standard queue", _SQS),
    "secrets": Unit("secret-month", _SECRETS),
    "secret_calls": Unit("10,000 calls", _SECRETS),
    "logs_in": Unit("GB of log lines ingested", _CLOUDWATCH),
    "logs_stored": Unit("GB-month of compressed log lines", _CLOUDWATCH),
    "metrics": Unit("metric-month", _CLOUDWATCH),
    "alarms": Unit("alarm-month", _CLOUDWATCH),
    "metric_reads": Unit("1,000 metrics read", _CLOUDWATCH),
    "valkey_storage": Unit("GB-hour of ElastiCache Serverless for Valkey, at least 0.1 GB", _ELASTICACHE),
    "valkey_units": Unit("million ElastiCache processing units", _ELASTICACHE),
    "cloudfront_requests": Unit("10,000 HTTPS requests, North America and Europe", _CLOUDFRONT),
    "cloudfront_data": Unit("GB to viewers, North America and Europe", _CLOUDFRONT),
    "key_calls": Unit("10,000 requests to keys that AWS manages", _KMS),
    "data_out": Unit("GB to the internet, first 10 TB", _EC2),
}
"""The unit of each price, by the name that the estimate uses."""

US_EAST_1: dict[str, float] = {
    "api_requests": 1.00,
    "api_more": 0.90,
    "lambda_requests": 0.20,
    "lambda_arm": 0.0000133334,
    "lambda_x86": 0.0000166667,
    "shard_hours": 0.015,
    "put_units": 0.014,
    "stream_hours": 0.040,
    "stream_in": 0.080,
    "stream_out": 0.040,
    "writes": 0.625,
    "reads": 0.125,
    "table_storage": 0.25,
    "table_backup": 0.20,
    "s3_storage": 0.023,
    "s3_puts": 0.005,
    "s3_gets": 0.0004,
    "sqs_requests": 0.40,
    "secrets": 0.40,
    "secret_calls": 0.05,
    "logs_in": 0.50,
    "logs_stored": 0.03,
    "metrics": 0.30,
    "alarms": 0.10,
    "metric_reads": 0.01,
    "valkey_storage": 0.084,
    "valkey_units": 0.0023,
    "cloudfront_requests": 0.010,
    "cloudfront_data": 0.085,
    "key_calls": 0.03,
    "data_out": 0.09,
}

_TOKYO = {
    "api_requests": 1.29,
    "api_more": 1.18,
    "shard_hours": 0.0195,
    "put_units": 0.0215,
    "stream_hours": 0.052,
    "stream_in": 0.104,
    "stream_out": 0.052,
    "writes": 0.715,
    "reads": 0.1425,
    "table_storage": 0.285,
    "table_backup": 0.228,
    "s3_storage": 0.025,
    "s3_puts": 0.0047,
    "logs_in": 0.76,
    "logs_stored": 0.033,
    "valkey_storage": 0.101,
    "valkey_units": 0.0028,
    "cloudfront_requests": 0.012,
    "cloudfront_data": 0.114,
    "data_out": 0.114,
}

_ON_DEMAND = ("stream_hours", "stream_in", "stream_out")
"""Assumed to differ between regions as much as `shard_hours`."""
# The prices in _ELSEWHERE, in this order: those that differ from us-east-1.
_DIFFERS = (
    *("api_requests", "api_more", "shard_hours", "put_units"),
    *("writes", "reads", "table_storage", "table_backup", "s3_storage", "s3_puts"),
    *("logs_in", "logs_stored", "valkey_storage", "valkey_units", "data_out"),
)
_ELSEWHERE: Mapping[str, tuple[float, ...]] = {
    "us-west-2": (
        *(1.00, 0.90, 0.015, 0.014),
        *(0.625, 0.125, 0.25, 0.20, 0.023, 0.005),
        *(0.50, 0.03, 0.084, 0.0023, 0.09),
    ),
    "ca-central-1": (
        *(1.11, 1.00, 0.0165, 0.0154),
        *(0.6875, 0.1375, 0.275, 0.22, 0.025, 0.0055),
        *(0.55, 0.033, 0.094, 0.0026, 0.09),
    ),
    "eu-west-1": (
        *(1.11, 1.00, 0.017, 0.0165),
        *(0.7065, 0.1415, 0.283, 0.2261, 0.023, 0.005),
        *(0.57, 0.03, 0.094, 0.0026, 0.09),
    ),
    "eu-central-1": (
        *(1.20, 1.08, 0.018, 0.0175),
        *(0.7625, 0.1525, 0.306, 0.2448, 0.0245, 0.0054),
        *(0.63, 0.0324, 0.101, 0.0028, 0.09),
    ),
    "ap-northeast-2": (
        *(1.23, 1.11, 0.0185, 0.0202),
        *(0.678, 0.1356, 0.27075, 0.2166, 0.025, 0.0045),
        *(0.76, 0.0314, 0.101, 0.0028, 0.126),
    ),
    "ap-northeast-3": (
        *(1.29, 1.18, 0.0195, 0.0215),
        *(0.715, 0.1425, 0.285, 0.228, 0.025, 0.0047),
        *(0.76, 0.033, 0.101, 0.0028, 0.114),
    ),
    "ap-southeast-1": (
        *(1.25, 1.13, 0.0190, 0.0190),
        *(0.71, 0.1425, 0.285, 0.228, 0.025, 0.005),
        *(0.70, 0.033, 0.101, 0.0028, 0.12),
    ),
    "ap-southeast-2": (
        *(1.29, 1.18, 0.0190, 0.0190),
        *(0.71, 0.1425, 0.285, 0.228, 0.025, 0.0055),
        *(0.67, 0.033, 0.101, 0.0028, 0.114),
    ),
}

REGIONS: Mapping[str, Mapping[str, float]] = {
    DEFAULT_REGION: US_EAST_1,
    "ap-northeast-1": {**US_EAST_1, **_TOKYO},
    **{
        region: US_EAST_1
        | dict(zip(_DIFFERS, prices, strict=True))
        | {name: round(US_EAST_1[name] * prices[2] / US_EAST_1["shard_hours"], 4) for name in _ON_DEMAND}
        for region, prices in _ELSEWHERE.items()
    },
}
"""Prices by region: those of Treasure Data's sites, and more. Outside us-east-1 and Tokyo, prices that differ are not confirmed."""

_SEEN = {
    name: where
    for where, names in {
        "AWS's whitepaper on private APIs, read 2026-11-25": "api_requests",
        "AWS's whitepaper on private APIs, read 2026-11-26": "api_more",
        "the page's own examples, as quoted 2026-09-20": "lambda_requests",
        "AWS's price list, as quoted 2026-09-11": "lambda_arm",
        "third-party quotes of the page, 2024 to 2026": (
            "lambda_x86 s3_gets secrets secret_calls logs_in logs_stored metrics "
            "alarms sqs_requests s3_storage cloudfront_requests cloudfront_data key_calls data_out"
        ),
        "the page, as quoted 2026-10-04": "writes reads table_storage",
        "the page, as quoted 2026-07-29": "valkey_storage valkey_units",
        "AWS's price list, as quoted 2026-09-28": "s3_puts",
        "the page, as quoted 2026-05-05": ("shard_hours put_units stream_hours stream_in stream_out"),
    }.items()
    for name in names.split()
}
_SEEN_IN_TOKYO = {
    "lambda_requests": _SEEN["lambda_requests"],
    "lambda_arm": "AWS's price list, as quoted 2026-09-11",
    "shard_hours": "a third-party quote of the page, 2026",
}


def seen(region: str, name: str) -> str:
    """Return the source of a price; empty if it is not confirmed."""
    if region not in (DEFAULT_REGION, "ap-northeast-1"):
        return _SEEN[name] if name == "lambda_requests" else ""
    return (_SEEN if region == DEFAULT_REGION else _SEEN_IN_TOKYO).get(name, "")


def unconfirmed(region: str) -> list[str]:
    """Return the names of the region's prices that are not confirmed."""
    return [name for name in UNITS if not seen(region, name)]
