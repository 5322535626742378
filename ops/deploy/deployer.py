"""The permissions needed to deploy: CloudFormation creates, changes and deletes resources with the caller's permissions.

Actions are listed by resource type: those that the type's handlers in CloudFormation name, without those for what the template does
not use. A test compares them with AWS's own schemas, and `sluice preflight` checks only those for the resources that the given
parameters create.
"""

from collections.abc import Iterable, Mapping
from typing import Any

type Needs = Mapping[str, tuple[str, ...]]
"""Actions by the ARN that they apply to. STACK stands for the stack's name, and `<…>` for the value of a parameter."""

_OF_BUCKET = (
    "s3:CreateBucket",
    "s3:DeleteBucket",
    "s3:Get*Configuration",
    "s3:GetBucket*",
    "s3:ListBucket",
    "s3:ListTagsForResource",
    "s3:PutBucketOwnershipControls",
    "s3:PutBucketPublicAccessBlock",
    "s3:PutBucketTagging",
    "s3:PutBucketVersioning",
    "s3:PutEncryptionConfiguration",
    "s3:PutLifecycleConfiguration",
    "s3:TagResource",
    "s3:UntagResource",
)
_OF_BUCKET_POLICY = ("s3:DeleteBucketPolicy", "s3:GetBucketPolicy", "s3:PutBucketPolicy")

ALWAYS: Needs = {
    "arn:aws:cloudformation:*:*:stack/STACK/*": (
        "cloudformation:CreateChangeSet",
        "cloudformation:DeleteChangeSet",
        "cloudformation:DeleteStack",
        "cloudformation:DescribeChangeSet",
        "cloudformation:DescribeStackEvents",
        "cloudformation:DescribeStackResource",
        "cloudformation:DescribeStacks",
        "cloudformation:ExecuteChangeSet",
        "cloudformation:GetTemplate",
        "cloudformation:GetTemplateSummary",
    ),
    "arn:aws:cloudformation:*:aws:transform/Serverless-2016-10-31": ("cloudformation:CreateChangeSet",),
}
"""What every deploy needs."""

BY_SAM: Needs = {
    # `sam deploy` keeps its uploads in its own bucket, which its first run creates.
    "arn:aws:cloudformation:*:*:stack/aws-sam-cli-managed-default/*": (
        "cloudformation:CreateChangeSet",
        "cloudformation:DescribeChangeSet",
        "cloudformation:DescribeStackEvents",
        "cloudformation:DescribeStacks",
        "cloudformation:ExecuteChangeSet",
    ),
    "arn:aws:s3:::aws-sam-cli-managed-default-*": (
        *_OF_BUCKET,
        *_OF_BUCKET_POLICY,
        "s3:GetObject",
        "s3:GetObjectVersion",
        "s3:PutObject",
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
    "arn:aws:codedeploy:*:*:deploymentgroup:STACK-*": (
        "codedeploy:CreateDeployment",
        "codedeploy:GetDeployment",
        "codedeploy:GetDeploymentGroup",
        "codedeploy:StopDeployment",
    ),
    "arn:aws:codedeploy:*:*:deploymentconfig:CodeDeployDefault.*": ("codedeploy:GetDeploymentConfig",),
}
"""What moving an alias needs."""

SECRETS = ("RedisUrlSecret", "TdApiKeySecret", "WriteKeySecret")
"""The logical ids of the stack's secrets."""

_LOG_GROUP = (
    "logs:CreateLogGroup",
    "logs:DeleteDataProtectionPolicy",
    "logs:DeleteLogGroup",
    "logs:DescribeIndexPolicies",
    "logs:GetDataProtectionPolicy",
    "logs:ListTagsForResource",
    "logs:PutRetentionPolicy",
    "logs:TagResource",
    "logs:UntagResource",
)

TYPES: Mapping[str, Needs] = {
    "AWS::ApiGatewayV2::Api": {_API: _EVERY_API, _TAGS: _TAGGING},
    "AWS::ApiGatewayV2::ApiMapping": {_DOMAIN: _EVERY_API},
    "AWS::ApiGatewayV2::DomainName": {
        _DOMAIN: (
            "apigateway:AddCertificateToDomain",
            *_EVERY_API,
            "apigateway:RemoveCertificateFromDomain",
        ),
        _TAGS: _TAGGING,
    },
    "AWS::ApiGatewayV2::Integration": {_API: _EVERY_API},
    "AWS::ApiGatewayV2::Route": {_API: _EVERY_API},
    # A stage with an access log needs log delivery, which AWS cannot restrict to resources.
    "AWS::ApiGatewayV2::Stage": {
        _API: (*_EVERY_API, "apigateway:TagResource", "apigateway:UntagResource"),
        _TAGS: _TAGGING,
        "*": (
            "logs:CreateLogDelivery",
            "logs:DeleteLogDelivery",
            "logs:DescribeResourcePolicies",
            "logs:GetLogDelivery",
            "logs:ListLogDeliveries",
            "logs:PutResourcePolicy",
            "logs:UpdateLogDelivery",
        ),
    },
    "AWS::AppConfig::Application": {
        "*": ("appconfig:CreateApplication",),
        _APPCONFIG: (
            "appconfig:DeleteApplication",
            "appconfig:GetApplication",
            "appconfig:ListTagsForResource",
            "appconfig:TagResource",
            "appconfig:UntagResource",
            "appconfig:UpdateApplication",
        ),
    },
    "AWS::AppConfig::ConfigurationProfile": {
        _APPCONFIG: (
            "appconfig:CreateConfigurationProfile",
            "appconfig:DeleteConfigurationProfile",
            "appconfig:GetConfigurationProfile",
            "appconfig:ListTagsForResource",
            "appconfig:TagResource",
            "appconfig:UntagResource",
            "appconfig:UpdateConfigurationProfile",
        )
    },
    "AWS::AppConfig::HostedConfigurationVersion": {
        _APPCONFIG: (
            "appconfig:CreateHostedConfigurationVersion",
            "appconfig:DeleteHostedConfigurationVersion",
            "appconfig:GetHostedConfigurationVersion",
        )
    },
    "AWS::CertificateManager::Certificate": {
        "*": ("acm:RequestCertificate",),
        "arn:aws:acm:*:*:certificate/*": (
            "acm:AddTagsToCertificate",
            "acm:DeleteCertificate",
            "acm:DescribeCertificate",
            "acm:ListTagsForCertificate",
            "acm:RemoveTagsFromCertificate",
        ),
        _ZONE: ("route53:ChangeResourceRecordSets",),
    },
    "AWS::CloudFront::Distribution": {
        "arn:aws:cloudfront::*:distribution/*": (
            "cloudfront:CreateDistribution",
            "cloudfront:CreateDistributionWithTags",
            "cloudfront:DeleteDistribution",
            "cloudfront:GetDistribution",
            "cloudfront:GetDistributionConfig",
            "cloudfront:ListTagsForResource",
            "cloudfront:TagResource",
            "cloudfront:UntagResource",
            "cloudfront:UpdateDistribution",
        )
    },
    "AWS::CloudFront::OriginAccessControl": {
        "arn:aws:cloudfront::*:origin-access-control/*": (
            "cloudfront:CreateOriginAccessControl",
            "cloudfront:DeleteOriginAccessControl",
            "cloudfront:GetOriginAccessControl",
            "cloudfront:UpdateOriginAccessControl",
        )
    },
    "AWS::CloudFront::ResponseHeadersPolicy": {
        "arn:aws:cloudfront::*:response-headers-policy/*": (
            "cloudfront:CreateResponseHeadersPolicy",
            "cloudfront:DeleteResponseHeadersPolicy",
            "cloudfront:GetResponseHeadersPolicy",
            "cloudfront:UpdateResponseHeadersPolicy",
        )
    },
    "AWS::CloudWatch::Alarm": {
        "arn:aws:cloudwatch:*:*:alarm:STACK-*": (
            "cloudwatch:DeleteAlarms",
            "cloudwatch:ListTagsForResource",
            "cloudwatch:PutMetricAlarm",
            "cloudwatch:TagResource",
            "cloudwatch:UntagResource",
        ),
        "*": ("cloudwatch:DescribeAlarms",),
    },
    "AWS::CodeDeploy::Application": {
        "arn:aws:codedeploy:*:*:application:STACK-*": (
            "codedeploy:CreateApplication",
            "codedeploy:DeleteApplication",
            "codedeploy:GetApplication",
            "codedeploy:ListTagsForResource",
            "codedeploy:TagResource",
            "codedeploy:UntagResource",
        )
    },
    "AWS::CodeDeploy::DeploymentGroup": {
        **_DEPLOYMENT,
        "arn:aws:codedeploy:*:*:deploymentgroup:STACK-*": (
            *_DEPLOYMENT["arn:aws:codedeploy:*:*:deploymentgroup:STACK-*"],
            "codedeploy:CreateDeploymentGroup",
            "codedeploy:DeleteDeploymentGroup",
            "codedeploy:ListDeployments",
            "codedeploy:ListTagsForResource",
            "codedeploy:TagResource",
            "codedeploy:UntagResource",
            "codedeploy:UpdateDeploymentGroup",
        ),
        "arn:aws:codedeploy:*:*:application:STACK-*": (
            "codedeploy:GetApplicationRevision",
            "codedeploy:RegisterApplicationRevision",
        ),
    },
    "AWS::DynamoDB::Table": {
        "arn:aws:dynamodb:*:*:table/STACK-*": (
            "dynamodb:CreateTable",
            "dynamodb:DeleteTable",
            "dynamodb:DescribeContinuousBackups",
            "dynamodb:DescribeContributorInsights",
            "dynamodb:DescribeKinesisStreamingDestination",
            "dynamodb:DescribeTable",
            "dynamodb:DescribeTimeToLive",
            "dynamodb:GetResourcePolicy",
            "dynamodb:ListTagsOfResource",
            "dynamodb:TagResource",
            "dynamodb:UntagResource",
            "dynamodb:UpdateContinuousBackups",
            "dynamodb:UpdateTable",
            "dynamodb:UpdateTimeToLive",
        )
    },
    "AWS::ElastiCache::ServerlessCache": {
        "arn:aws:elasticache:*:*:serverlesscache:STACK": (
            "elasticache:AddTagsToResource",
            "elasticache:CreateServerlessCache",
            "elasticache:DeleteServerlessCache",
            "elasticache:ListTagsForResource",
            "elasticache:ModifyServerlessCache",
            "elasticache:RemoveTagsFromResource",
        ),
        "*": ("elasticache:DescribeServerlessCaches",),
        "arn:aws:iam::*:role/aws-service-role/elasticache.amazonaws.com/*": ("iam:CreateServiceLinkedRole",),
    },
    "AWS::ElastiCache::User": {
        "arn:aws:elasticache:*:*:user:STACK-*": (
            "elasticache:AddTagsToResource",
            "elasticache:CreateUser",
            "elasticache:DeleteUser",
            "elasticache:DescribeUsers",
            "elasticache:ListTagsForResource",
            "elasticache:ModifyUser",
            "elasticache:RemoveTagsFromResource",
        )
    },
    "AWS::ElastiCache::UserGroup": {
        "arn:aws:elasticache:*:*:usergroup:STACK": (
            "elasticache:AddTagsToResource",
            "elasticache:CreateServerlessCache",
            "elasticache:CreateUserGroup",
            "elasticache:DeleteUserGroup",
            "elasticache:DescribeUserGroups",
            "elasticache:ListTagsForResource",
            "elasticache:ModifyUserGroup",
            "elasticache:RemoveTagsFromResource",
        ),
        "arn:aws:elasticache:*:*:user:STACK-*": (
            "elasticache:CreateUserGroup",
            "elasticache:ModifyUserGroup",
        ),
    },
    "AWS::Events::Rule": {
        "arn:aws:events:*:*:rule/STACK-*": (
            "events:DeleteRule",
            "events:DescribeRule",
            "events:ListTagsForResource",
            "events:ListTargetsByRule",
            "events:PutRule",
            "events:PutTargets",
            "events:RemoveTargets",
            "events:TagResource",
            "events:UntagResource",
        )
    },
    "AWS::IAM::Role": {
        "arn:aws:iam::*:role/STACK-*": (
            "iam:CreateRole",
            "iam:DeleteRole",
            "iam:DeleteRolePolicy",
            "iam:GetRole",
            "iam:GetRolePolicy",
            "iam:ListAttachedRolePolicies",
            "iam:ListRolePolicies",
            "iam:PassRole",
            "iam:PutRolePermissionsBoundary",
            "iam:PutRolePolicy",
            "iam:TagRole",
            "iam:UntagRole",
            "iam:UpdateAssumeRolePolicy",
        )
    },
    "AWS::Kinesis::Stream": {
        "arn:aws:kinesis:*:*:stream/STACK-*": (
            "kinesis:AddTagsToStream",
            "kinesis:CreateStream",
            "kinesis:DecreaseStreamRetentionPeriod",
            "kinesis:DeleteStream",
            "kinesis:DescribeStreamSummary",
            "kinesis:IncreaseStreamRetentionPeriod",
            "kinesis:ListTagsForResource",
            "kinesis:ListTagsForStream",
            "kinesis:RemoveTagsFromStream",
            "kinesis:StartStreamEncryption",
            "kinesis:TagResource",
            "kinesis:UntagResource",
            "kinesis:UpdateShardCount",
            "kinesis:UpdateStreamMode",
        )
    },
    "AWS::Lambda::Alias": {
        _FUNCTION: (
            "lambda:CreateAlias",
            "lambda:DeleteAlias",
            "lambda:GetAlias",
            "lambda:GetProvisionedConcurrencyConfig",
            "lambda:UpdateAlias",
        ),
        **_DEPLOYMENT,
    },
    "AWS::Lambda::EventInvokeConfig": {
        _FUNCTION: (
            "lambda:DeleteFunctionEventInvokeConfig",
            "lambda:GetFunctionEventInvokeConfig",
            "lambda:PutFunctionEventInvokeConfig",
            "lambda:UpdateFunctionEventInvokeConfig",
        )
    },
    # AWS assigns the id.
    "AWS::Lambda::EventSourceMapping": {
        "*": (
            "lambda:CreateEventSourceMapping",
            "lambda:DeleteEventSourceMapping",
            "lambda:GetEventSourceMapping",
            "lambda:UpdateEventSourceMapping",
        ),
        "arn:aws:lambda:*:*:event-source-mapping:*": (
            "lambda:ListTags",
            "lambda:TagResource",
            "lambda:UntagResource",
        ),
    },
    "AWS::Lambda::Function": {
        _FUNCTION: (
            "lambda:CreateFunction",
            "lambda:DeleteFunction",
            "lambda:DeleteFunctionConcurrency",
            "lambda:GetFunction",
            "lambda:GetFunctionCodeSigningConfig",
            "lambda:GetFunctionConfiguration",
            "lambda:GetFunctionRecursionConfig",
            "lambda:GetFunctionScalingConfig",
            "lambda:GetRuntimeManagementConfig",
            "lambda:ListTags",
            "lambda:PublishVersion",
            "lambda:PutFunctionConcurrency",
            "lambda:TagResource",
            "lambda:UntagResource",
            "lambda:UpdateFunctionCode",
            "lambda:UpdateFunctionConfiguration",
        ),
        # To connect to an existing VPC, and to leave it.
        "*": (
            "ec2:DescribeNetworkInterfaces",
            "ec2:DescribeSecurityGroups",
            "ec2:DescribeSubnets",
            "ec2:DescribeVpcs",
        ),
    },
    "AWS::Lambda::Permission": {
        _FUNCTION: ("lambda:AddPermission", "lambda:GetPolicy", "lambda:RemovePermission")
    },
    "AWS::Lambda::Version": {
        _FUNCTION: (
            "lambda:DeleteFunction",
            "lambda:GetFunctionConfiguration",
            "lambda:GetFunctionScalingConfig",
            "lambda:GetProvisionedConcurrencyConfig",
            "lambda:GetRuntimeManagementConfig",
            "lambda:ListVersionsByFunction",
            "lambda:PublishVersion",
        )
    },
    "AWS::Logs::LogGroup": {
        "arn:aws:logs:*:*:log-group:STACK-*": _LOG_GROUP,
        "arn:aws:logs:*:*:log-group:/aws/vendedlogs/STACK-*": _LOG_GROUP,
        "*": ("logs:DescribeLogGroups", "logs:DescribeResourcePolicies"),
    },
    "AWS::Logs::MetricFilter": {
        "arn:aws:logs:*:*:log-group:STACK-*": (
            "logs:DeleteMetricFilter",
            "logs:DescribeMetricFilters",
            "logs:PutMetricFilter",
        )
    },
    "AWS::Route53::RecordSet": {
        _ZONE: (
            "route53:ChangeResourceRecordSets",
            "route53:GetHostedZone",
            "route53:ListResourceRecordSets",
        ),
        "arn:aws:route53:::change/*": ("route53:GetChange",),
        "*": ("route53:ListHostedZones",),
    },
    "AWS::S3::Bucket": {_BUCKET: _OF_BUCKET},
    "AWS::S3::BucketPolicy": {_BUCKET: _OF_BUCKET_POLICY},
    "AWS::SNS::Topic": {
        "arn:aws:sns:*:*:STACK-*": (
            "sns:CreateTopic",
            "sns:DeleteTopic",
            "sns:GetDataProtectionPolicy",
            "sns:GetTopicAttributes",
            "sns:ListSubscriptionsByTopic",
            "sns:ListTagsForResource",
            "sns:SetTopicAttributes",
            "sns:Subscribe",
            "sns:TagResource",
            "sns:Unsubscribe",
            "sns:UntagResource",
        )
    },
    "AWS::SNS::TopicPolicy": {"arn:aws:sns:*:*:STACK-*": ("sns:SetTopicAttributes",)},
    "AWS::SQS::Queue": {
        "arn:aws:sqs:*:*:STACK-*": (
            "sqs:CreateQueue",
            "sqs:DeleteQueue",
            "sqs:GetQueueAttributes",
            "sqs:GetQueueUrl",
            "sqs:ListQueueTags",
            "sqs:SetQueueAttributes",
            "sqs:TagQueue",
            "sqs:UntagQueue",
        )
    },
    "AWS::SQS::QueuePolicy": {"arn:aws:sqs:*:*:STACK-*": ("sqs:SetQueueAttributes",)},
    # CloudFormation names them after their logical ids, not after the stack.
    "AWS::SecretsManager::Secret": {
        **{
            f"arn:aws:secretsmanager:*:*:secret:{name}-*": (
                "secretsmanager:CreateSecret",
                "secretsmanager:DeleteSecret",
                "secretsmanager:DescribeSecret",
                "secretsmanager:GetSecretValue",
                "secretsmanager:TagResource",
                "secretsmanager:UntagResource",
                "secretsmanager:UpdateSecret",
            )
            for name in SECRETS
        },
        "*": ("secretsmanager:GetRandomPassword",),
    },
}
"""The actions needed to create, change and delete each type of resource."""

PREFLIGHT: Needs = {
    "*": (
        "apigateway:GET",
        "cloudformation:DescribeStacks",
        "cloudfront:ListDistributions",
        "ec2:DescribeSecurityGroups",
        "ec2:DescribeSubnets",
        "elasticache:DescribeServerlessCaches",
        "elasticache:DescribeUserGroups",
        "elasticache:DescribeUsers",
        "iam:GetPolicy",
        "iam:GetRole",
        "iam:SimulatePrincipalPolicy",
        "kinesis:DescribeLimits",
        "lambda:GetAccountSettings",
        "route53:GetHostedZone",
        "route53:ListResourceRecordSets",
        "servicequotas:ListServiceQuotas",
        "sns:GetTopicAttributes",
        "sns:ListSubscriptionsByTopic",
    ),
    "arn:aws:cloudformation:*:*:stack/STACK/*": ("cloudformation:DescribeStackResource",),
    "arn:aws:kinesis:*:*:stream/STACK-*": ("kinesis:DescribeStreamSummary",),
    "<TdApiKeySecretArn>": ("secretsmanager:DescribeSecret", "secretsmanager:GetSecretValue"),
    "<RedisUrlSecretArn>": ("secretsmanager:DescribeSecret",),
}
"""What `sluice preflight` needs. It changes nothing."""

REMOVAL: Needs = {
    "arn:aws:cloudformation:*:*:stack/STACK/*": (
        "cloudformation:DeleteStack",
        "cloudformation:DescribeStacks",
        "cloudformation:ListStackResources",
    ),
    "arn:aws:lambda:*:*:function:STACK-*": (
        "lambda:DeleteFunctionConcurrency",
        "lambda:GetFunctionConcurrency",
        "lambda:PutFunctionConcurrency",
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
