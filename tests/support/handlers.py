"""What CloudFormation needs for each type of resource, by AWS's own schemas, and what of it the template does not.

cfn-lint ships the schemas. CloudFormation calls a type's create, read, update and delete handlers, never `list`, with the caller's
permissions. Which of the named actions a handler calls in every case is not documented, so an action is left out only where the
template has nothing that it could be for.
"""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

from cfnlint.schema import PROVIDER_SCHEMA_MANAGER

from tests.support.sam import transformed

_KEYS = "every key belongs to AWS, and needs no permission"
_NONE = "the template sets nothing of this kind"
_WITH_ROLE = "listed once, with the roles"

UNUSED: Mapping[str, Mapping[str, str]] = {
    "*": {"kms:*": _KEYS},
    "AWS::ApiGatewayV2::Api": {"s3:getObject": "the template has no OpenAPI body in S3"},
    "AWS::ApiGatewayV2::DomainName": {"s3:GetObject*": "there is no trust store for client certificates"},
    "AWS::ApiGatewayV2::Integration": {"iam:PassRole": "the API invokes by a permission, not by a role"},
    "AWS::AppConfig::ConfigurationProfile": {"iam:PassRole": "the document is hosted by AppConfig"},
    "AWS::CertificateManager::Certificate": {
        "acm-pca:*": "the certificate is a public one",
        "acm:UpdateCertificateOptions": _NONE,
    },
    "AWS::CloudFront::Distribution": {
        "cloudfront:*ConnectionGroup": "the distribution has no tenants",
        "cloudfront:GetVpcOrigin": "its origin is a bucket",
        "cloudfront:UpdateDistributionWithStagingConfig": "there is no staging distribution",
    },
    "AWS::CodeDeploy::DeploymentGroup": {
        "codedeploy:RegisterOnPremisesInstance": "it deploys functions",
        "iam:PassRole": _WITH_ROLE,
    },
    "AWS::DynamoDB::Table": {
        **dict.fromkeys(
            (
                "dynamodb:AssociateTableReplica",
                "dynamodb:BatchWriteItem",
                "dynamodb:CreateTableReplica",
                "dynamodb:*Item",
                "dynamodb:Query",
                "dynamodb:Scan",
                "iam:CreateServiceLinkedRole",
            ),
            "the table has no replicas",
        ),
        **dict.fromkeys(
            ("dynamodb:DescribeImport", "dynamodb:ImportTable", "logs:*", "s3:*"), "it begins empty"
        ),
        "dynamodb:*ResourcePolicy": _NONE,
        "dynamodb:*ableKinesisStreamingDestination": _NONE,
        "dynamodb:UpdateKinesisStreamingDestination": _NONE,
        "dynamodb:UpdateContributorInsights": _NONE,
        "kinesis:*": _NONE,
    },
    "AWS::ElastiCache::ServerlessCache": {"ec2:*": "a public endpoint is in no VPC"},
    "AWS::ElastiCache::UserGroup": {
        "elasticache:ModifyReplicationGroup": "the group belongs to a serverless cache"
    },
    "AWS::Events::Rule": {"iam:PassRole": "the targets are functions, invoked by a permission"},
    "AWS::IAM::Role": {
        "iam:*tachRolePolicy": "the roles have no managed policies; whoever attaches one becomes administrator",
        "iam:DeleteRolePermissionsBoundary": "whoever deploys must not lift the boundary",
        "iam:UpdateRole*": _NONE,
    },
    "AWS::Kinesis::Stream": {
        "kinesis:*EnhancedMonitoring": _NONE,
        "kinesis:StopStreamEncryption": "the stream is always encrypted",
        "kinesis:UpdateMaxRecordSize": _NONE,
        "kinesis:UpdateStreamRecordDistributionStrategy": _NONE,
        "kinesis:UpdateStreamWarmThroughput": _NONE,
    },
    "AWS::Lambda::Alias": {
        "lambda:*teProvisionedConcurrencyConfig": _NONE,
        "lambda:PutProvisionedConcurrencyConfig": _NONE,
    },
    "AWS::Lambda::Function": {
        "elasticfilesystem:*": _NONE,
        "iam:PassRole": _WITH_ROLE,
        "lambda:AssociateRuntimeAlias": _NONE,
        "lambda:DeleteFunctionCodeSigningConfig": _NONE,
        "lambda:GetCodeSigningConfig": _NONE,
        "lambda:GetLayerVersion": "there are no layers",
        "lambda:PassCapacityProvider": _NONE,
        "lambda:PutFunctionCodeSigningConfig": _NONE,
        "lambda:PutFunctionRecursionConfig": _NONE,
        "lambda:PutFunctionScalingConfig": _NONE,
        "lambda:PutRuntimeManagementConfig": _NONE,
        "s3:GetObject*": "listed for the bucket of sam's uploads",
        "s3files:*": _NONE,
    },
    "AWS::Lambda::Version": {
        "lambda:PutFunctionScalingConfig": _NONE,
        "lambda:PutProvisionedConcurrencyConfig": _NONE,
        "lambda:PutRuntimeManagementConfig": _NONE,
    },
    "AWS::Logs::LogGroup": {
        "firehose:*": _NONE,
        "logs:*KmsKey": _NONE,
        "logs:*IndexPolicy": _NONE,
        "logs:*etentionPolicy": "a group always has a retention",
        "logs:CreateLogDelivery": "the API's stage delivers, and lists it",
        "logs:PutBearerTokenAuthentication": _NONE,
        "logs:PutDataProtectionPolicy": _NONE,
        "logs:PutLogGroupDeletionProtection": _NONE,
        "logs:*ResourcePolicy": "the API's stage delivers, and lists it",
        "s3:*": _NONE,
    },
    "AWS::S3::Bucket": {
        "iam:PassRole": "nothing is replicated",
        "s3:*MetadataTableConfiguration": _NONE,
        "s3:DeleteBucket*": "the encryption and the rules of the template are never removed",
        "s3:DeleteObject": "CloudFormation does not empty a bucket",
        "s3:Put*": _NONE,
        "s3:UpdateBucketMetadata*": _NONE,
        "s3tables:*": _NONE,
    },
    "AWS::SNS::Topic": {"iam:*": _NONE, "sns:PutDataProtectionPolicy": _NONE},
    "AWS::SecretsManager::Secret": {"secretsmanager:Re*": "the secrets have no replicas"},
}
"""By type, patterns of actions that its handlers name and a deploy of the template does not need, and why."""

BEYOND: Mapping[str, Mapping[str, str]] = {
    "ApiGatewayV2": {"logs:*": "API Gateway's guide lists them for whoever switches on an access log"},
    "ElastiCache": {
        "iam:CreateServiceLinkedRole": "the first cache of an account creates ElastiCache's role"
    },
    "IAM": {"iam:PassRole": "functions and the deployment group name it in their handlers"},
}
"""By service, patterns of actions that are listed although none of its types' handlers names them, and why."""


def named(kind: str) -> set[str]:
    """Return the actions that a type's handlers name, without `list`."""
    schema = PROVIDER_SCHEMA_MANAGER.get_resource_schema("us-east-1", kind).schema
    return {
        action
        for name, handler in schema["handlers"].items()
        if name != "list"
        for action in handler["permissions"]
    }


def needed(kind: str, listed: set[str]) -> set[str]:
    """Return the actions of a type's handlers that a deploy of the template needs; a listed action is never left out."""
    unused = [*UNUSED["*"], *UNUSED.get(kind, {})]
    return {one for one in named(kind) if matches(one, listed) or not matches(one, unused)}


def matches(action: str, patterns: Iterable[str]) -> bool:
    """Return whether one of the patterns stands for an action, as in IAM."""
    return any(fnmatchcase(action.lower(), pattern.lower()) for pattern in patterns)


def by_operation() -> dict[str, dict[str, list[str]]]:
    """Return the actions that a deploy of the template needs, by type and operation: each reads what it has changed."""
    found: dict[str, dict[str, list[str]]] = {}
    for kind in sorted({one["Type"] for one in transformed()["Resources"].values()}):
        handlers = PROVIDER_SCHEMA_MANAGER.get_resource_schema("us-east-1", kind).schema["handlers"]
        unused = [*UNUSED["*"], *UNUSED.get(kind, {})]
        actions = {
            name: {one for one in handlers.get(name, {}).get("permissions", ()) if not matches(one, unused)}
            for name in ("create", "read", "update", "delete")
        }
        found[kind] = {
            "create": sorted(actions["create"] | actions["read"]),
            "update": sorted(actions["update"] | actions["read"]),
            "delete": sorted(actions["delete"]),
        }
    return found
