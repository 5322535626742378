"""The permissions needed to deploy: CloudFormation creates, changes and deletes resources with the caller's permissions.

Actions are listed by resource type, so that a test can compare them with template.yaml, and `sluice preflight` checks only those
for the resources that the given parameters create.
"""

from collections.abc import Iterable, Mapping
from typing import Any

type Needs = Mapping[str, tuple[str, ...]]
"""Actions by the ARN that they apply to. STACK stands for the stack's name, ZONE for the hosted zone's id."""

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
        "s3:CreateBucket",
        "s3:GetBucketLocation",
        "s3:GetObject",
        "s3:ListBucket",
        "s3:PutBucketPolicy",
        "s3:PutBucketPublicAccessBlock",
        "s3:PutBucketTagging",
        "s3:PutBucketVersioning",
        "s3:PutEncryptionConfiguration",
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
_EVERY_API = ("apigateway:DELETE", "apigateway:GET", "apigateway:PATCH", "apigateway:POST", "apigateway:PUT")
_BUCKET = "arn:aws:s3:::STACK-*"
_FUNCTION = "arn:aws:lambda:*:*:function:STACK-*"
_APPCONFIG = "arn:aws:appconfig:*:*:application/*"
_ZONE = "arn:aws:route53:::hostedzone/ZONE"

TYPES: Mapping[str, Needs] = {
    "AWS::ApiGatewayV2::Api": {_API: _EVERY_API},
    "AWS::ApiGatewayV2::ApiMapping": {_DOMAIN: _EVERY_API},
    "AWS::ApiGatewayV2::DomainName": {_DOMAIN: _EVERY_API},
    "AWS::ApiGatewayV2::Integration": {_API: _EVERY_API},
    "AWS::ApiGatewayV2::Route": {_API: _EVERY_API},
    # A stage with an access log needs log delivery, which AWS cannot restrict to resources.
    "AWS::ApiGatewayV2::Stage": {
        _API: _EVERY_API,
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
        ),
    },
    "AWS::AppConfig::ConfigurationProfile": {
        _APPCONFIG: (
            "appconfig:CreateConfigurationProfile",
            "appconfig:DeleteConfigurationProfile",
            "appconfig:GetConfigurationProfile",
            "appconfig:TagResource",
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
        ),
        _ZONE: ("route53:ChangeResourceRecordSets",),
    },
    "AWS::CloudFront::Distribution": {
        "arn:aws:cloudfront::*:distribution/*": (
            "cloudfront:CreateDistribution",
            "cloudfront:DeleteDistribution",
            "cloudfront:GetDistribution",
            "cloudfront:TagResource",
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
        ),
        "*": ("cloudwatch:DescribeAlarms",),
    },
    "AWS::CloudWatch::Dashboard": {
        "arn:aws:cloudwatch::*:dashboard/STACK-*": (
            "cloudwatch:DeleteDashboards",
            "cloudwatch:GetDashboard",
            "cloudwatch:PutDashboard",
        )
    },
    "AWS::CodeDeploy::Application": {
        "arn:aws:codedeploy:*:*:application:STACK-*": (
            "codedeploy:CreateApplication",
            "codedeploy:DeleteApplication",
            "codedeploy:GetApplication",
            "codedeploy:ListTagsForResource",
            "codedeploy:TagResource",
        )
    },
    "AWS::CodeDeploy::DeploymentGroup": {
        "arn:aws:codedeploy:*:*:deploymentgroup:STACK-*": (
            "codedeploy:CreateDeployment",
            "codedeploy:CreateDeploymentGroup",
            "codedeploy:DeleteDeploymentGroup",
            "codedeploy:GetDeployment",
            "codedeploy:GetDeploymentGroup",
            "codedeploy:TagResource",
            "codedeploy:UpdateDeploymentGroup",
        ),
        "arn:aws:codedeploy:*:*:deploymentconfig:CodeDeployDefault.*": ("codedeploy:GetDeploymentConfig",),
    },
    "AWS::DynamoDB::Table": {
        "arn:aws:dynamodb:*:*:table/STACK-*": (
            "dynamodb:CreateTable",
            "dynamodb:DeleteTable",
            "dynamodb:DescribeContinuousBackups",
            "dynamodb:DescribeTable",
            "dynamodb:DescribeTimeToLive",
            "dynamodb:ListTagsOfResource",
            "dynamodb:TagResource",
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
            "kinesis:ListTagsForStream",
            "kinesis:StartStreamEncryption",
            "kinesis:UpdateShardCount",
            "kinesis:UpdateStreamMode",
        )
    },
    "AWS::Lambda::Alias": {
        _FUNCTION: ("lambda:CreateAlias", "lambda:DeleteAlias", "lambda:GetAlias", "lambda:UpdateAlias")
    },
    "AWS::Lambda::EventInvokeConfig": {
        _FUNCTION: (
            "lambda:DeleteFunctionEventInvokeConfig",
            "lambda:GetFunctionEventInvokeConfig",
            "lambda:PutFunctionEventInvokeConfig",
        )
    },
    # AWS assigns the id.
    "AWS::Lambda::EventSourceMapping": {
        "*": (
            "lambda:CreateEventSourceMapping",
            "lambda:DeleteEventSourceMapping",
            "lambda:GetEventSourceMapping",
            "lambda:TagResource",
            "lambda:UpdateEventSourceMapping",
        )
    },
    "AWS::Lambda::Function": {
        _FUNCTION: (
            "lambda:CreateFunction",
            "lambda:DeleteFunction",
            "lambda:DeleteFunctionConcurrency",
            "lambda:GetFunction",
            "lambda:GetFunctionConfiguration",
            "lambda:ListTags",
            "lambda:PutFunctionConcurrency",
            "lambda:TagResource",
            "lambda:UpdateFunctionCode",
            "lambda:UpdateFunctionConfiguration",
        ),
        # To connect to an existing VPC.
        "*": ("ec2:DescribeSecurityGroups", "ec2:DescribeSubnets", "ec2:DescribeVpcs"),
    },
    "AWS::Lambda::Permission": {
        _FUNCTION: ("lambda:AddPermission", "lambda:GetPolicy", "lambda:RemovePermission")
    },
    "AWS::Lambda::Version": {_FUNCTION: ("lambda:ListVersionsByFunction", "lambda:PublishVersion")},
    "AWS::Logs::LogGroup": {
        "arn:aws:logs:*:*:log-group:STACK-*": (
            "logs:CreateLogGroup",
            "logs:DeleteLogGroup",
            "logs:ListTagsForResource",
            "logs:PutRetentionPolicy",
            "logs:TagResource",
        ),
        "*": ("logs:DescribeLogGroups",),
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
    },
    "AWS::S3::Bucket": {
        _BUCKET: (
            "s3:CreateBucket",
            "s3:DeleteBucket",
            "s3:GetBucket*",
            "s3:GetEncryptionConfiguration",
            "s3:GetLifecycleConfiguration",
            "s3:ListBucket",
            "s3:PutBucketOwnershipControls",
            "s3:PutBucketPublicAccessBlock",
            "s3:PutBucketTagging",
            "s3:PutBucketVersioning",
            "s3:PutEncryptionConfiguration",
            "s3:PutLifecycleConfiguration",
        )
    },
    "AWS::S3::BucketPolicy": {_BUCKET: ("s3:DeleteBucketPolicy", "s3:GetBucketPolicy", "s3:PutBucketPolicy")},
    "AWS::SNS::Topic": {
        "arn:aws:sns:*:*:STACK-*": (
            "sns:CreateTopic",
            "sns:DeleteTopic",
            "sns:GetTopicAttributes",
            "sns:ListSubscriptionsByTopic",
            "sns:ListTagsForResource",
            "sns:SetTopicAttributes",
            "sns:Subscribe",
            "sns:TagResource",
            "sns:Unsubscribe",
        )
    },
    "AWS::SNS::TopicPolicy": {"arn:aws:sns:*:*:STACK-*": ("sns:SetTopicAttributes",)},
    "AWS::SQS::Queue": {
        "arn:aws:sqs:*:*:STACK-*": (
            "sqs:CreateQueue",
            "sqs:DeleteQueue",
            "sqs:GetQueueAttributes",
            "sqs:ListQueueTags",
            "sqs:SetQueueAttributes",
            "sqs:TagQueue",
        )
    },
    "AWS::SQS::QueuePolicy": {"arn:aws:sqs:*:*:STACK-*": ("sqs:SetQueueAttributes",)},
    # CloudFormation names them after their logical ids, not after the stack.
    "AWS::SecretsManager::Secret": {
        "arn:aws:secretsmanager:*:*:secret:*": (
            "secretsmanager:CreateSecret",
            "secretsmanager:DeleteSecret",
            "secretsmanager:DescribeSecret",
            "secretsmanager:GetSecretValue",
            "secretsmanager:TagResource",
            "secretsmanager:UpdateSecret",
        ),
        "*": ("secretsmanager:GetRandomPassword",),
    },
}
"""The actions needed to create, change and delete each type of resource."""

PREFLIGHT = (
    "acm:DescribeCertificate",
    "apigateway:GET",
    "cloudformation:DescribeStacks",
    "cloudfront:ListDistributions",
    "ec2:DescribeSecurityGroups",
    "ec2:DescribeSubnets",
    "elasticache:DescribeServerlessCaches",
    "elasticache:DescribeUserGroups",
    "elasticache:DescribeUsers",
    "iam:GetRole",
    "iam:SimulatePrincipalPolicy",
    "kinesis:DescribeLimits",
    "lambda:GetAccountSettings",
    "route53:GetHostedZone",
    "route53:ListResourceRecordSets",
    "secretsmanager:DescribeSecret",
    "secretsmanager:GetSecretValue",
    "servicequotas:ListServiceQuotas",
    "sns:GetTopicAttributes",
)
"""The actions that `sluice preflight` uses. It changes nothing."""

_SERVICES = {
    "cache": ("ElastiCache",),
    "domain": ("CertificateManager", "Route53", "CloudFront"),
    "support": ("AppConfig", "CloudWatch", "CodeDeploy", "Events", "Logs", "SNS"),
}
_PART_OF = {service: part for part, services in _SERVICES.items() for service in services}
PARTS: Mapping[str, tuple[str, ...]] = {
    part: tuple(name for name in TYPES if _PART_OF.get(name.split("::")[1], "deploy") == part)
    for part in ("deploy", *_SERVICES)
}
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
    """Return the IAM policy of one of PARTS; STACK stands for the stack's name, ZONE for the hosted zone's id."""
    found = needs(PARTS[part])
    if part == "deploy":
        found["*"] = tuple(sorted({*found["*"], *PREFLIGHT}))
        objects = "arn:aws:s3:::STACK-code-*/*"  # the bucket itself is among the stack's
        found[objects] = BY_RELEASE[objects]
    else:
        found = {
            place: rest
            for place, actions in found.items()
            if (
                rest := tuple(
                    one for one in actions if one not in (*ALWAYS.get(place, ()), *BY_SAM.get(place, ()))
                )
            )
        }
    statements = [
        {"Effect": "Allow", "Action": list(actions), "Resource": place} for place, actions in found.items()
    ]
    return {"Version": "2012-10-17", "Statement": statements}
