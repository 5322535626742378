"""The permissions needed to deploy: CloudFormation creates, changes and deletes resources with the caller's permissions.

Actions are listed by resource type: those that the type's handlers in CloudFormation name, without those for what the template does
not use. A test compares them with AWS's own schemas, and `sluice preflight` checks only those for the resources that the given
parameters create.
"""

from collections.abc import Iterable, Mapping
from typing import Any

type Needs = Mapping[str, tuple[str, ...]]
"""Actions by the ARN that they apply to. STACK stands for the stack's name, and `<…>` for the value of a parameter."""


def _of(service: str, actions: str) -> tuple[str, ...]:
    """Return the actions of a service whose names are given in one text."""
    return tuple(f"{service}:{action}" for action in actions.split())


_OF_BUCKET = _of(
    "s3",
    "CreateBucket DeleteBucket Get*Configuration GetBucket* ListBucket ListTagsForResource "
    "PutBucketOwnershipControls PutBucketPublicAccessBlock PutBucketTagging PutBucketVersioning "
    "PutEncryptionConfiguration PutLifecycleConfiguration TagResource UntagResource",
)
_OF_BUCKET_POLICY = ("s3:DeleteBucketPolicy", "s3:GetBucketPolicy", "s3:PutBucketPolicy")

ALWAYS: Needs = {
    "arn:aws:cloudformation:*:*:stack/STACK/*": _of(
        "cloudformation",
        "CreateChangeSet DeleteChangeSet DeleteStack DescribeChangeSet DescribeStackEvents "
        "DescribeStackResource DescribeStacks ExecuteChangeSet GetTemplate GetTemplateSummary",
    ),
    "arn:aws:cloudformation:*:aws:transform/Serverless-2016-10-31": ("cloudformation:CreateChangeSet",),
}
"""What every deploy needs."""

BY_SAM: Needs = {
    # `sam deploy` keeps its uploads in its own bucket, which its first run creates.
    "arn:aws:cloudformation:*:*:stack/aws-sam-cli-managed-default/*": _of(
        "cloudformation",
        "CreateChangeSet DescribeChangeSet DescribeStackEvents DescribeStacks ExecuteChangeSet",
    ),
    "arn:aws:s3:::aws-sam-cli-managed-default-*": (
        *_OF_BUCKET,
        *_OF_BUCKET_POLICY,
        *_of("s3", "GetObject GetObjectVersion PutObject"),
    ),
}
"""What `sam deploy` needs in addition."""

BY_RELEASE: Needs = {
    "arn:aws:s3:::STACK-code-*": ("s3:CreateBucket", "s3:ListBucket", "s3:PutBucketPublicAccessBlock"),
    "arn:aws:s3:::STACK-code-*/*": ("s3:GetObject", "s3:PutObject"),
}
"""What `sluice deploy` needs in addition."""

_API = "arn:aws:apigateway:*::/apis*"
_DOMAIN = "arn:aws:apigateway:*::/domainnames*"
_TAGS = "arn:aws:apigateway:*::/tags/*"
_EVERY_API = ("apigateway:DELETE", "apigateway:GET", "apigateway:PATCH", "apigateway:POST", "apigateway:PUT")
_TAGGING = (*_EVERY_API, "apigateway:TagResource", "apigateway:UntagResource")
_BUCKET = "arn:aws:s3:::STACK-*"
_FUNCTION = "arn:aws:lambda:*:*:function:STACK-*"
_APPCONFIG = "arn:aws:appconfig:*:*:application/*"
_ZONE = "arn:aws:route53:::hostedzone/<HostedZoneId>"
_DEPLOYMENT: Needs = {
    "arn:aws:codedeploy:*:*:deploymentgroup:STACK-*": _of(
        "codedeploy", "CreateDeployment GetDeployment GetDeploymentGroup StopDeployment"
    ),
    "arn:aws:codedeploy:*:*:deploymentconfig:CodeDeployDefault.*": ("codedeploy:GetDeploymentConfig",),
}
"""What moving an alias needs."""

SECRETS = ("RedisUrlSecret", "TdApiKeySecret", "WriteKeySecret")
"""The logical ids of the stack's secrets."""

_LOG_GROUP = _of(
    "logs",
    "CreateLogGroup DeleteDataProtectionPolicy DeleteLogGroup DescribeIndexPolicies "
    "GetDataProtectionPolicy ListTagsForResource PutRetentionPolicy TagResource UntagResource",
)

TYPES: Mapping[str, Needs] = {
    "AWS::ApiGatewayV2::Api": {_API: _EVERY_API, _TAGS: _TAGGING},
    "AWS::ApiGatewayV2::ApiMapping": {_DOMAIN: _EVERY_API},
    "AWS::ApiGatewayV2::DomainName": {
        _DOMAIN: (
            *_of("apigateway", "AddCertificateToDomain"),
            *_EVERY_API,
            *_of("apigateway", "RemoveCertificateFromDomain"),
        ),
        _TAGS: _TAGGING,
    },
    "AWS::ApiGatewayV2::Integration": {_API: _EVERY_API},
    "AWS::ApiGatewayV2::Route": {_API: _EVERY_API},
    # A stage with an access log needs log delivery, which AWS cannot restrict to resources.
    "AWS::ApiGatewayV2::Stage": {
        _API: (*_EVERY_API, "apigateway:TagResource", "apigateway:UntagResource"),
        _TAGS: _TAGGING,
        "*": _of(
            "logs",
            "CreateLogDelivery DeleteLogDelivery DescribeResourcePolicies GetLogDelivery "
            "ListLogDeliveries PutResourcePolicy UpdateLogDelivery",
        ),
    },
    "AWS::AppConfig::Application": {
        "*": ("appconfig:CreateApplication",),
        _APPCONFIG: _of(
            "appconfig",
            "DeleteApplication GetApplication ListTagsForResource TagResource UntagResource "
            "UpdateApplication",
        ),
    },
    "AWS::AppConfig::ConfigurationProfile": {
        _APPCONFIG: _of(
            "appconfig",
            "CreateConfigurationProfile DeleteConfigurationProfile GetConfigurationProfile "
            "ListTagsForResource TagResource UntagResource UpdateConfigurationProfile",
        )
    },
    "AWS::AppConfig::HostedConfigurationVersion": {
        _APPCONFIG: _of(
            "appconfig",
            "CreateHostedConfigurationVersion DeleteHostedConfigurationVersion GetHostedConfigurationVersion",
        )
    },
    "AWS::CertificateManager::Certificate": {
        "*": ("acm:RequestCertificate",),
        "arn:aws:acm:*:*:certificate/*": _of(
            "acm",
            "AddTagsToCertificate DeleteCertificate DescribeCertificate ListTagsForCertificate "
            "RemoveTagsFromCertificate",
        ),
        _ZONE: ("route53:ChangeResourceRecordSets",),
    },
    "AWS::CloudFront::Distribution": {
        "arn:aws:cloudfront::*:distribution/*": _of(
            "cloudfront",
            "CreateDistribution CreateDistributionWithTags DeleteDistribution GetDistribution "
            "GetDistributionConfig ListTagsForResource TagResource UntagResource UpdateDistribution",
        )
    },
    "AWS::CloudFront::OriginAccessControl": {
        "arn:aws:cloudfront::*:origin-access-control/*": _of(
            "cloudfront",
            "CreateOriginAccessControl DeleteOriginAccessControl GetOriginAccessControl "
            "UpdateOriginAccessControl",
        )
    },
    "AWS::CloudFront::ResponseHeadersPolicy": {
        "arn:aws:cloudfront::*:response-headers-policy/*": _of(
            "cloudfront",
            "CreateResponseHeadersPolicy DeleteResponseHeadersPolicy GetResponseHeadersPolicy "
            "UpdateResponseHeadersPolicy",
        )
    },
    "AWS::CloudWatch::Alarm": {
        "arn:aws:cloudwatch:*:*:alarm:STACK-*": _of(
            "cloudwatch", "DeleteAlarms ListTagsForResource PutMetricAlarm TagResource UntagResource"
        ),
        "*": ("cloudwatch:DescribeAlarms",),
    },
    "AWS::CodeDeploy::Application": {
        "arn:aws:codedeploy:*:*:application:STACK-*": _of(
            "codedeploy",
            "CreateApplication DeleteApplication GetApplication ListTagsForResource TagResource "
            "UntagResource",
        )
    },
    "AWS::CodeDeploy::DeploymentGroup": {
        **_DEPLOYMENT,
        "arn:aws:codedeploy:*:*:deploymentgroup:STACK-*": (
            *_DEPLOYMENT["arn:aws:codedeploy:*:*:deploymentgroup:STACK-*"],
            *_of(
                "codedeploy",
                "CreateDeploymentGroup DeleteDeploymentGroup ListDeployments ListTagsForResource "
                "TagResource UntagResource UpdateDeploymentGroup",
            ),
        ),
        "arn:aws:codedeploy:*:*:application:STACK-*": _of(
            "codedeploy", "GetApplicationRevision RegisterApplicationRevision"
        ),
    },
    "AWS::DynamoDB::Table": {
        "arn:aws:dynamodb:*:*:table/STACK-*": _of(
            "dynamodb",
            "CreateTable DeleteTable DescribeContinuousBackups DescribeContributorInsights "
            "DescribeKinesisStreamingDestination DescribeTable DescribeTimeToLive GetResourcePolicy "
            "ListTagsOfResource TagResource UntagResource UpdateContinuousBackups UpdateTable "
            "UpdateTimeToLive",
        )
    },
    "AWS::ElastiCache::ServerlessCache": {
        "arn:aws:elasticache:*:*:serverlesscache:STACK": _of(
            "elasticache",
            "AddTagsToResource CreateServerlessCache DeleteServerlessCache ListTagsForResource "
            "ModifyServerlessCache RemoveTagsFromResource",
        ),
        "*": ("elasticache:DescribeServerlessCaches",),
        "arn:aws:iam::*:role/aws-service-role/elasticache.amazonaws.com/*": ("iam:CreateServiceLinkedRole",),
    },
    "AWS::ElastiCache::User": {
        "arn:aws:elasticache:*:*:user:STACK-*": _of(
            "elasticache",
            "AddTagsToResource CreateUser DeleteUser DescribeUsers ListTagsForResource ModifyUser "
            "RemoveTagsFromResource",
        )
    },
    "AWS::ElastiCache::UserGroup": {
        "arn:aws:elasticache:*:*:usergroup:STACK": _of(
            "elasticache",
            "AddTagsToResource CreateServerlessCache CreateUserGroup DeleteUserGroup DescribeUserGroups "
            "ListTagsForResource ModifyUserGroup RemoveTagsFromResource",
        ),
        "arn:aws:elasticache:*:*:user:STACK-*": _of("elasticache", "CreateUserGroup ModifyUserGroup"),
    },
    "AWS::Events::Rule": {
        "arn:aws:events:*:*:rule/STACK-*": _of(
            "events",
            "DeleteRule DescribeRule ListTagsForResource ListTargetsByRule PutRule PutTargets "
            "RemoveTargets TagResource UntagResource",
        )
    },
    "AWS::IAM::Role": {
        "arn:aws:iam::*:role/STACK-*": _of(
            "iam",
            "CreateRole DeleteRole DeleteRolePolicy GetRole GetRolePolicy ListAttachedRolePolicies "
            "ListRolePolicies PassRole PutRolePermissionsBoundary PutRolePolicy TagRole UntagRole "
            "UpdateAssumeRolePolicy",
        )
    },
    "AWS::Kinesis::Stream": {
        "arn:aws:kinesis:*:*:stream/STACK-*": _of(
            "kinesis",
            "AddTagsToStream CreateStream DecreaseStreamRetentionPeriod DeleteStream "
            "DescribeStreamSummary IncreaseStreamRetentionPeriod ListTagsForResource ListTagsForStream "
            "RemoveTagsFromStream StartStreamEncryption TagResource UntagResource UpdateShardCount "
            "UpdateStreamMode",
        )
    },
    "AWS::Lambda::Alias": {
        _FUNCTION: _of(
            "lambda", "CreateAlias DeleteAlias GetAlias GetProvisionedConcurrencyConfig UpdateAlias"
        ),
        **_DEPLOYMENT,
    },
    "AWS::Lambda::EventInvokeConfig": {
        _FUNCTION: _of(
            "lambda",
            "DeleteFunctionEventInvokeConfig GetFunctionEventInvokeConfig PutFunctionEventInvokeConfig "
            "UpdateFunctionEventInvokeConfig",
        )
    },
    # AWS assigns the id.
    "AWS::Lambda::EventSourceMapping": {
        "*": _of(
            "lambda",
            "CreateEventSourceMapping DeleteEventSourceMapping GetEventSourceMapping "
            "UpdateEventSourceMapping",
        ),
        "arn:aws:lambda:*:*:event-source-mapping:*": _of("lambda", "ListTags TagResource UntagResource"),
    },
    "AWS::Lambda::Function": {
        _FUNCTION: _of(
            "lambda",
            "CreateFunction DeleteFunction DeleteFunctionConcurrency GetFunction "
            "GetFunctionCodeSigningConfig GetFunctionConfiguration GetFunctionRecursionConfig "
            "GetFunctionScalingConfig GetRuntimeManagementConfig ListTags PublishVersion "
            "PutFunctionConcurrency TagResource UntagResource UpdateFunctionCode "
            "UpdateFunctionConfiguration",
        ),
        # To connect to an existing VPC, and to leave it.
        "*": _of("ec2", "DescribeNetworkInterfaces DescribeSecurityGroups DescribeSubnets DescribeVpcs"),
    },
    "AWS::Lambda::Permission": {
        _FUNCTION: ("lambda:AddPermission", "lambda:GetPolicy", "lambda:RemovePermission")
    },
    "AWS::Lambda::Version": {
        _FUNCTION: _of(
            "lambda",
            "DeleteFunction GetFunctionConfiguration GetFunctionScalingConfig "
            "GetProvisionedConcurrencyConfig GetRuntimeManagementConfig ListVersionsByFunction "
            "PublishVersion",
        )
    },
    "AWS::Logs::LogGroup": {
        "arn:aws:logs:*:*:log-group:STACK-*": _LOG_GROUP,
        "arn:aws:logs:*:*:log-group:/aws/vendedlogs/STACK-*": _LOG_GROUP,
        "*": ("logs:DescribeLogGroups", "logs:DescribeResourcePolicies"),
    },
    "AWS::Logs::MetricFilter": {
        "arn:aws:logs:*:*:log-group:STACK-*": _of(
            "logs", "DeleteMetricFilter DescribeMetricFilters PutMetricFilter"
        )
    },
    "AWS::Route53::RecordSet": {
        _ZONE: _of("route53", "ChangeResourceRecordSets GetHostedZone ListResourceRecordSets"),
        "arn:aws:route53:::change/*": ("route53:GetChange",),
        "*": ("route53:ListHostedZones",),
    },
    "AWS::S3::Bucket": {_BUCKET: _OF_BUCKET},
    "AWS::S3::BucketPolicy": {_BUCKET: _OF_BUCKET_POLICY},
    "AWS::SNS::Topic": {
        "arn:aws:sns:*:*:STACK-*": _of(
            "sns",
            "CreateTopic DeleteTopic GetDataProtectionPolicy GetTopicAttributes ListSubscriptionsByTopic "
            "ListTagsForResource SetTopicAttributes Subscribe TagResource Unsubscribe UntagResource",
        )
    },
    "AWS::SNS::TopicPolicy": {"arn:aws:sns:*:*:STACK-*": ("sns:SetTopicAttributes",)},
    "AWS::SQS::Queue": {
        "arn:aws:sqs:*:*:STACK-*": _of(
            "sqs",
            "CreateQueue DeleteQueue GetQueueAttributes GetQueueUrl ListQueueTags SetQueueAttributes "
            "TagQueue UntagQueue",
        )
    },
    "AWS::SQS::QueuePolicy": {"arn:aws:sqs:*:*:STACK-*": ("sqs:SetQueueAttributes",)},
    # CloudFormation names them after their logical ids, not after the stack.
    "AWS::SecretsManager::Secret": {
        **{
            f"arn:aws:secretsmanager:*:*:secret:{name}-*": _of(
                "secretsmanager",
                "CreateSecret DeleteSecret DescribeSecret GetSecretValue TagResource UntagResource "
                "UpdateSecret",
            )
            for name in SECRETS
        },
        "*": ("secretsmanager:GetRandomPassword",),
    },
}
"""The actions needed to create, change and delete each type of resource."""

PREFLIGHT: Needs = {
    "*": (
        *_of("apigateway", "GET"),
        *_of("cloudformation", "DescribeStacks"),
        *_of("cloudfront", "ListDistributions"),
        *_of("ec2", "DescribeSecurityGroups DescribeSubnets"),
        *_of("elasticache", "DescribeServerlessCaches DescribeUserGroups DescribeUsers"),
        *_of("iam", "GetPolicy GetRole SimulatePrincipalPolicy"),
        *_of("kinesis", "DescribeLimits"),
        *_of("lambda", "GetAccountSettings"),
        *_of("route53", "GetHostedZone ListResourceRecordSets"),
        *_of("servicequotas", "ListServiceQuotas"),
        *_of("sns", "GetTopicAttributes ListSubscriptionsByTopic"),
    ),
    "arn:aws:cloudformation:*:*:stack/STACK/*": ("cloudformation:DescribeStackResource",),
    "arn:aws:kinesis:*:*:stream/STACK-*": ("kinesis:DescribeStreamSummary",),
    "<TdApiKeySecretArn>": ("secretsmanager:DescribeSecret", "secretsmanager:GetSecretValue"),
    "<RedisUrlSecretArn>": ("secretsmanager:DescribeSecret",),
}
"""What `sluice preflight` needs. It changes nothing."""

REMOVAL: Needs = {
    "arn:aws:cloudformation:*:*:stack/STACK/*": _of(
        "cloudformation", "DeleteStack DescribeStacks ListStackResources"
    ),
    "arn:aws:lambda:*:*:function:STACK-*": _of(
        "lambda", "DeleteFunctionConcurrency GetFunctionConcurrency PutFunctionConcurrency"
    ),
    "arn:aws:s3:::STACK-*": ("s3:DeleteBucket", "s3:ListBucketVersions"),
    "arn:aws:s3:::STACK-*/*": ("s3:DeleteObject", "s3:DeleteObjectVersion"),
    # `sam delete` deletes its uploads.
    "arn:aws:s3:::aws-sam-cli-managed-default-*": ("s3:DeleteObject",),
}
"""What `sluice remove` and `sam delete` need, besides the permissions to delete the stack's resources and to look for them."""

_BOUNDED = {"StringEquals": {"iam:PermissionsBoundary": "<PermissionsBoundary>"}}
_CONDITIONS: Mapping[str, Mapping[str, Any]] = {
    "iam:CreateRole": _BOUNDED,
    "iam:PutRolePermissionsBoundary": _BOUNDED,
    "iam:PutRolePolicy": _BOUNDED,
    "iam:PassRole": {
        "StringEquals": {"iam:PassedToService": ["codedeploy.amazonaws.com", "lambda.amazonaws.com"]}
    },
}
"""The conditions under which the policies allow actions on roles."""

_SERVICES = {
    "compute": ("ApiGatewayV2", "CodeDeploy", "IAM", "Lambda"),
    "cache": ("ElastiCache",),
    "domain": ("CertificateManager", "CloudFront", "Route53"),
    "support": ("AppConfig", "CloudWatch", "Events", "Logs", "SNS"),
}
_PART_OF = {service: part for part, services in _SERVICES.items() for service in services}
PARTS: Mapping[str, tuple[str, ...]] = {
    part: tuple(name for name in TYPES if _PART_OF.get(name.split("::")[1], "deploy") == part)
    for part in ("deploy", *_SERVICES)
} | {"removal": ()}
"""Resource types by the policy that allows them: a managed policy holds 6,144 characters, too few for all of them."""


def needs(types: Iterable[str], *, is_release: bool = False) -> dict[str, tuple[str, ...]]:
    """Return the actions needed for a stack with these resource types, by the ARN that they apply to.

    Args:
        types: the types.
        is_release: whether `sluice deploy` deploys it, instead of `sam deploy`.
    """
    found: dict[str, set[str]] = {}
    for of_type in (
        ALWAYS,
        BY_RELEASE if is_release else BY_SAM,
        *(TYPES[name] for name in sorted(set(types))),
    ):
        for place, actions in of_type.items():
            found.setdefault(place, set()).update(actions)
    return {place: tuple(sorted(actions)) for place, actions in sorted(found.items())}


def policy(part: str) -> dict[str, Any]:
    """Return the IAM policy of one of PARTS; STACK stands for the stack's name, and `<…>` for the value of a parameter."""
    if part == "removal":
        found = dict(REMOVAL)
    elif part == "deploy":
        found = needs(PARTS[part])
        objects = "arn:aws:s3:::STACK-code-*/*"  # the bucket itself is among the stack's
        found[objects] = BY_RELEASE[objects]
        for place, actions in PREFLIGHT.items():
            found[place] = tuple(sorted({*found.get(place, ()), *actions}))
    else:
        common = {place: {*ALWAYS.get(place, ()), *BY_SAM.get(place, ())} for place in (*ALWAYS, *BY_SAM)}
        found = {
            place: rest
            for place, actions in needs(PARTS[part]).items()
            if (rest := tuple(one for one in actions if one not in common.get(place, ())))
        }
    statements: dict[str, dict[str, Any]] = {}
    for place, actions in found.items():
        for action in actions:
            condition = _CONDITIONS.get(action)
            statement: dict[str, Any] = {"Effect": "Allow", "Action": [], "Resource": place}
            if condition is not None:
                statement["Condition"] = condition
            statements.setdefault(f"{place} {condition}", statement)["Action"].append(action)
    return {"Version": "2012-10-17", "Statement": list(statements.values())}
