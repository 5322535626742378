"""What CloudFormation needs for each type of resource, by AWS's own schemas, and what of it the template does not.

cfn-lint ships the schemas. CloudFormation calls a type's create, read, update and delete handlers, never `list`, with the caller's
permissions. Which of the named actions a handler calls in every case is not documented, so an action is left out only where the
template has nothing that it could be for.
"""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

from cfnlint.schema import PROVIDER_SCHEMA_MANAGER

from tests.support.sam import transformed

_NONE = "the template sets nothing of this kind"
_WITH_ROLE = "listed once, with the roles"

_UNUSED: Mapping[str, Mapping[str, str]] = {
    "*": {"every key belongs to AWS, and needs no permission": "kms:*"},
    "AWS::ApiGatewayV2::Api": {"the template has no OpenAPI body in S3": "s3:getObject"},
    "AWS::ApiGatewayV2::DomainName": {"there is no trust store for client certificates": "s3:GetObject*"},
    "AWS::ApiGatewayV2::Integration": {"the API invokes by a permission, not by a role": "iam:PassRole"},
    "AWS::AppConfig::ConfigurationProfile": {"the document is hosted by AppConfig": "iam:PassRole"},
    "AWS::CertificateManager::Certificate": {
        "the certificate is a public one": "acm-pca:*",
        _NONE: "acm:UpdateCertificateOptions",
    },
    "AWS::CloudFront::Distribution": {
        "the distribution has no tenants": "cloudfront:*ConnectionGroup",
        "its origin is a bucket": "cloudfront:GetVpcOrigin",
        "there is no staging distribution": "cloudfront:UpdateDistributionWithStagingConfig",
    },
    "AWS::CodeDeploy::DeploymentGroup": {
        "it deploys functions": "codedeploy:RegisterOnPremisesInstance",
        _WITH_ROLE: "iam:PassRole",
    },
    "AWS::DynamoDB::Table": {
        "the table has no replicas": """
            dynamodb:AssociateTableReplica dynamodb:BatchWriteItem dynamodb:CreateTableReplica dynamodb:*Item
            dynamodb:Query dynamodb:Scan iam:CreateServiceLinkedRole
        """,
        "it begins empty": "dynamodb:DescribeImport dynamodb:ImportTable logs:* s3:*",
        _NONE: """
            dynamodb:*ResourcePolicy dynamodb:*ableKinesisStreamingDestination
            dynamodb:UpdateKinesisStreamingDestination dynamodb:UpdateContributorInsights kinesis:*
        """,
    },
    "AWS::ElastiCache::ServerlessCache": {"a public endpoint is in no VPC": "ec2:*"},
    "AWS::ElastiCache::UserGroup": {
        "the group belongs to a serverless cache": "elasticache:ModifyReplicationGroup"
    },
    "AWS::Events::Rule": {"the targets are functions, invoked by a permission": "iam:PassRole"},
    "AWS::IAM::Role": {
        "the roles have no managed policies; whoever attaches one becomes administrator": "iam:*tachRolePolicy",
        "whoever deploys must not lift the boundary": "iam:DeleteRolePermissionsBoundary",
        _NONE: "iam:UpdateRole*",
    },
    "AWS::Kinesis::Stream": {
        "the stream is always encrypted": "kinesis:StopStreamEncryption",
        _NONE: """
            kinesis:*EnhancedMonitoring kinesis:UpdateMaxRecordSize
            kinesis:UpdateStreamRecordDistributionStrategy kinesis:UpdateStreamWarmThroughput
        """,
    },
    "AWS::Lambda::Alias": {
        _NONE: "lambda:*teProvisionedConcurrencyConfig lambda:PutProvisionedConcurrencyConfig"
    },
    "AWS::Lambda::Function": {
        _WITH_ROLE: "iam:PassRole",
        "there are no layers": "lambda:GetLayerVersion",
        "listed for the bucket of sam's uploads": "s3:GetObject*",
        _NONE: """
            elasticfilesystem:* lambda:AssociateRuntimeAlias lambda:DeleteFunctionCodeSigningConfig
            lambda:GetCodeSigningConfig lambda:PassCapacityProvider lambda:PutFunctionCodeSigningConfig
            lambda:PutFunctionRecursionConfig lambda:PutFunctionScalingConfig
            lambda:PutRuntimeManagementConfig s3files:*
        """,
    },
    "AWS::Lambda::Version": {
        _NONE: """
            lambda:PutFunctionScalingConfig lambda:PutProvisionedConcurrencyConfig
            lambda:PutRuntimeManagementConfig
        """
    },
    "AWS::Logs::LogGroup": {
        "a group always has a retention": "logs:*etentionPolicy",
        "the API's stage delivers, and lists it": "logs:CreateLogDelivery logs:*ResourcePolicy",
        _NONE: """
            firehose:* logs:*KmsKey logs:*IndexPolicy logs:PutBearerTokenAuthentication
            logs:PutDataProtectionPolicy logs:PutLogGroupDeletionProtection s3:*
        """,
    },
    "AWS::S3::Bucket": {
        "nothing is replicated": "iam:PassRole",
        "the encryption and the rules of the template are never removed": "s3:DeleteBucket*",
        "CloudFormation does not empty a bucket": "s3:DeleteObject",
        _NONE: "s3:*MetadataTableConfiguration s3:Put* s3:UpdateBucketMetadata* s3tables:*",
    },
    "AWS::SNS::Topic": {_NONE: "iam:* sns:PutDataProtectionPolicy"},
    "AWS::SecretsManager::Secret": {"the secrets have no replicas": "secretsmanager:Re*"},
}
"""By type and reason, patterns of actions that its handlers name and a deploy of the template does not need."""

BEYOND: Mapping[str, Mapping[str, str]] = {
    "ApiGatewayV2": {"logs:*": "API Gateway's guide lists them for whoever switches on an access log"},
    "CertificateManager": {
        "iam:CreateServiceLinkedRole": "the first custom domain of an account creates API Gateway's role"
    },
    "ElastiCache": {
        "iam:CreateServiceLinkedRole": "the first cache of an account creates ElastiCache's role"
    },
    "IAM": {"iam:PassRole": "functions and the deployment group name it in their handlers"},
}
"""By service, patterns of actions that are listed although none of its types' handlers names them, and why."""


def unused(kind: str) -> list[str]:
    """Return patterns of the actions that a type's handlers name and a deploy of the template does not need."""
    return [one for patterns in _UNUSED.get(kind, {}).values() for one in patterns.split()]


def _handlers(kind: str) -> dict[str, set[str]]:
    schema = PROVIDER_SCHEMA_MANAGER.get_resource_schema("us-east-1", kind).schema
    return {name: set(handler["permissions"]) for name, handler in schema["handlers"].items()}


def named(kind: str) -> set[str]:
    """Return the actions that a type's handlers name, without `list`."""
    return set().union(*(actions for name, actions in _handlers(kind).items() if name != "list"))


def needed(kind: str, listed: set[str]) -> set[str]:
    """Return the actions of a type's handlers that a deploy of the template needs; a listed action is never left out."""
    left_out = unused("*") + unused(kind)
    return {one for one in named(kind) if matches(one, listed) or not matches(one, left_out)}


def matches(action: str, patterns: Iterable[str]) -> bool:
    """Return whether one of the patterns stands for an action, as in IAM."""
    return any(fnmatchcase(action.lower(), pattern.lower()) for pattern in patterns)


def by_operation() -> dict[str, dict[str, list[str]]]:
    """Return the actions that a deploy of the template needs, by type and operation: each reads what it has changed."""
    found: dict[str, dict[str, list[str]]] = {}
    for kind in sorted({one["Type"] for one in transformed()["Resources"].values()}):
        handlers, left_out = _handlers(kind), unused("*") + unused(kind)
        for operation in ("create", "update", "delete"):
            reads = set() if operation == "delete" else handlers.get("read", set())
            actions = handlers.get(operation, set()) | reads
            wanted = sorted(one for one in actions if not matches(one, left_out))
            found.setdefault(kind, {})[operation] = wanted
    return found
