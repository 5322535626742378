"""The documented policies let CloudFormation do its work on the stack's own resources.

tests/ops/deploy/test_deployer.py compares their actions with AWS's schemas; this file compares the resources, too.
"""

import json
from collections.abc import Mapping
from fnmatch import fnmatchcase

import pytest

from doubles.iam import Role
from ops.deploy import deployer
from tests.support.handlers import needed
from tests.support.sam import transformed

BOUNDARY = "arn:aws:iam::123456789012:policy/boundary"
GIVEN = {"STACK": "sluice-dev", "<PermissionsBoundary>": BOUNDARY, "<HostedZoneId>": "Z1"}
# Values of the keys of conditions.
CONTEXT = {"iam:PassedToService": "lambda.amazonaws.com", "iam:PermissionsBoundary": BOUNDARY}
# The resource that a handler's action needs, by pattern of the action or by type, without the beginning of its ARN.
ELSEWHERE: Mapping[str, str] = {
    "codedeploy:*Revision": "codedeploy:R:A:application:sluice-dev-X",
    "codedeploy:GetDeploymentConfig": "codedeploy:R:A:deploymentconfig:CodeDeployDefault.LambdaAllAtOnce",
    "codedeploy:*Deployment*": "codedeploy:R:A:deploymentgroup:sluice-dev-X/X",
    "iam:CreateServiceLinkedRole": "iam::A:role/aws-service-role/elasticache.amazonaws.com/X",
    "route53:GetChange": "route53:::change/1",
    "route53:*": "route53:::hostedzone/Z1",
}
PLACES: Mapping[str, str] = {
    "AWS::ApiGatewayV2::ApiMapping": "apigateway:R::/domainnames/X/apimappings/1",
    "AWS::ApiGatewayV2::DomainName": "apigateway:R::/domainnames/X",
    "AWS::ApiGatewayV2": "apigateway:R::/apis/X",
    "AWS::AppConfig": "appconfig:R:A:application/X",
    "AWS::CertificateManager": "acm:R:A:certificate/X",
    "AWS::CloudFront::Distribution": "cloudfront::A:distribution/X",
    "AWS::CloudFront::OriginAccessControl": "cloudfront::A:origin-access-control/X",
    "AWS::CloudFront::ResponseHeadersPolicy": "cloudfront::A:response-headers-policy/X",
    "AWS::CloudWatch": "cloudwatch:R:A:alarm:sluice-dev-X",
    "AWS::CodeDeploy": "codedeploy:R:A:application:sluice-dev-X",
    "AWS::DynamoDB": "dynamodb:R:A:table/sluice-dev-X",
    "AWS::ElastiCache::ServerlessCache": "elasticache:R:A:serverlesscache:sluice-dev",
    "AWS::ElastiCache::User": "elasticache:R:A:user:sluice-dev-X",
    "AWS::ElastiCache::UserGroup": "elasticache:R:A:usergroup:sluice-dev",
    "AWS::Events": "events:R:A:rule/sluice-dev-X",
    "AWS::IAM": "iam::A:role/sluice-dev-X",
    "AWS::Kinesis": "kinesis:R:A:stream/sluice-dev-X",
    "AWS::Lambda::EventSourceMapping": "lambda:R:A:event-source-mapping:X",
    "AWS::Lambda": "lambda:R:A:function:sluice-dev-X",
    "AWS::Logs": "logs:R:A:log-group:sluice-dev-X",
    "AWS::Route53": "route53:::hostedzone/Z1",
    "AWS::S3": "s3:::sluice-dev-x",
    "AWS::SNS": "sns:R:A:sluice-dev-X",
    "AWS::SQS": "sqs:R:A:sluice-dev-X",
    "AWS::SecretsManager": "secretsmanager:R:A:secret:WriteKeySecret-X",
}


def arn(text: str) -> str:
    """Return the ARN of a resource in the account and the region of this test."""
    return "arn:aws:" + text.replace(":R:", ":us-east-1:").replace(":A:", ":123456789012:")


def place(kind: str, action: str) -> str:
    """Return the ARN of the resource on which a handler of a type makes a call."""
    elsewhere = (text for pattern, text in ELSEWHERE.items() if fnmatchcase(action, pattern))
    own = PLACES.get(kind) or PLACES[kind.rpartition("::")[0]]
    return arn(own if kind == "AWS::CodeDeploy::Application" else next(elsewhere, own))


@pytest.fixture(scope="module")
def role() -> Role:
    """The policies of a deployer of `sluice-dev` whose stage has a boundary and a domain."""
    text = json.dumps([one for part in deployer.PARTS for one in deployer.policy(part)["Statement"]])
    for name, value in GIVEN.items():
        text = text.replace(name, value)
    return Role("Deployer", [one for one in json.loads(text) if "<" not in one["Resource"]])


@pytest.mark.parametrize("kind", sorted({one["Type"] for one in transformed()["Resources"].values()}))
def test_cloudformation_may_do_its_work_on_the_stacks_resources(role: Role, kind: str) -> None:
    """Each action that a handler names is allowed on the resource as CloudFormation names it, and with the boundary."""
    actions = needed(kind, set())

    assert [] == sorted(one for one in actions if not role.allows(one, place(kind, one), CONTEXT))


@pytest.mark.parametrize(
    ("action", "on", "context"),
    [
        ("secretsmanager:GetSecretValue", "secretsmanager:R:A:secret:somebody-elses", {}),
        ("lambda:PutFunctionConcurrency", "lambda:R:A:function:other", {}),
        ("kinesis:DeleteStream", "kinesis:R:A:stream/other-Stream-X", {}),
        ("iam:CreateRole", "iam::A:role/sluice-dev-X", {}),
        ("iam:PassRole", "iam::A:role/sluice-dev-X", {"iam:PassedToService": "ec2.amazonaws.com"}),
    ],
)
def test_a_deployer_is_no_administrator(role: Role, action: str, on: str, context: dict[str, str]) -> None:
    """Other stacks and secrets are out of reach, and so are roles without the boundary or for other services."""
    assert not role.allows(action, arn(on), context)
