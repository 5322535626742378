"""Permissions, encryption, and data that must not be logged. tests/runtime/test_rights.py compares roles with the calls that functions make."""

import json
import re
from typing import Any

import pytest

from tests.support import docs_tables
from tests.support.modes import Mode
from tests.support.rights import granted, listed
from tests.support.sam import FUNCTIONS, properties, resources, template, transformed

ROLES = tuple(function.replace("Function", "Role") for function in FUNCTIONS)
# Policies that exist in one mode only. AWS supports no narrower resource than `*` for their actions.
INTERFACES = {
    *("ec2:AssignPrivateIpAddresses", "ec2:CreateNetworkInterface", "ec2:DeleteNetworkInterface"),
    *("ec2:DescribeNetworkInterfaces", "ec2:DescribeSubnets", "ec2:UnassignPrivateIpAddresses"),
}
METRICS = ("scale", "Allow", {"cloudwatch:GetMetricData"})
NETWORK = ("network", "Allow", INTERFACES)
NETWORK_BY_CODE = ("network", "Deny", INTERFACES)
# The mode with the fewest permissions, and those that add some.
PLAIN = {"Network": "external"}
MANAGED = {"Network": "managed"}
EXISTING = {"Network": "existing", "SubnetIds": "subnet-0a", "SecurityGroupIds": "sg-0a"}
LEFT = EXISTING | {"Network": "external"}
OWN_ACCOUNT = {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}
PLAIN_HTTP = {"Bool": {"aws:SecureTransport": "false"}}
USERS = {"WorkerRole": "RedisReader", "SenderRole": "RedisReader", "AdminRole": "RedisWriter"}
"""The roles of functions that use Redis, and the user as whom each signs in to a managed one."""


def test_the_sender_may_read_the_stream_only_for_watermarks() -> None:
    """Without a table for watermarks, its role lacks these permissions."""
    without, with_table = granted("SenderRole"), granted("SenderRole", PLAIN | {"WatermarkTable": "marks"})
    reads = {"kinesis:GetRecords", "kinesis:GetShardIterator"}

    assert not without["Stream"] & reads
    assert without | {"Stream": without["Stream"] | reads} == with_table


@pytest.mark.parametrize(("role", "user"), USERS.items())
def test_a_role_signs_in_to_the_managed_redis_as_one_user(role: str, user: str) -> None:
    """With a managed Redis this permission replaces the one to read the URL, and nothing else changes."""
    plain = granted(role)
    assert {"secretsmanager:GetSecretValue"} == plain.pop("RedisUrlSecret")

    assert plain | {name: {"elasticache:Connect"} for name in ("Redis", user)} == granted(role, MANAGED)


def _statements(role: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return the statements of a role's policies, each with the policy's name."""
    return [
        (policy["PolicyName"], statement)
        for policy in role["Policies"]
        for statement in policy["PolicyDocument"]["Statement"]
    ]


def _on_everything(parameters: dict[str, str], role: str) -> list[tuple[str, str, set[str]]]:
    """Return policy, effect and actions of each statement of a role that applies to all resources."""
    found = _statements(Mode(parameters).properties(role))
    wide = [(policy, one) for policy, one in found if one["Resource"] == "*"]
    return [(policy, one["Effect"], set(listed(one["Action"]))) for policy, one in wide]


@pytest.mark.parametrize("role", ROLES)
def test_roles_name_resources_wherever_aws_allows_it(role: str) -> None:
    """Lambda deletes interfaces after a function has left a network, so the role keeps the right while subnets are named."""
    always = [METRICS] if role == "ScaleRole" else []
    interfaces = [NETWORK, NETWORK_BY_CODE] if role in USERS else []

    for mode in (PLAIN, MANAGED):
        assert always == _on_everything(mode, role)
    for mode in (EXISTING, LEFT):
        assert [*interfaces, *always] == _on_everything(mode, role)


def test_only_lambda_itself_manages_network_interfaces() -> None:
    """Its role must grant EC2 actions to Lambda, but the function's own code is denied them."""
    found = _statements(Mode(EXISTING).properties("WorkerRole"))
    (_, deny) = (one for policy, one in found if policy == "network")

    assert ["lambda:SourceFunctionArn"] == list(deny["Condition"]["ArnLike"])


def test_a_deployment_only_moves_the_ingests_alias() -> None:
    """CodeDeploy's role may change the aliases of that function only."""
    role = properties("DeploymentRole")
    (_, move), (_, look) = _statements(role)
    live = [{"Fn::GetAtt": ["IngestFunction", "Arn"]}, {"Fn::Sub": "${IngestFunction.Arn}:*"}]
    actions = ["lambda:GetAlias", "lambda:GetProvisionedConcurrencyConfig", "lambda:UpdateAlias"]
    (trust,) = role["AssumeRolePolicyDocument"]["Statement"]

    assert {"Service": "codedeploy.amazonaws.com"} == trust["Principal"]
    assert {"StringEqualsIfExists": OWN_ACCOUNT} == trust["Condition"]
    assert (actions, live) == (move["Action"], move["Resource"])
    assert ("cloudwatch:DescribeAlarms", "*") == (look["Action"], look["Resource"])


def test_a_boundary_can_be_written_from_the_list_of_actions() -> None:
    """functions.json has every action that a role allows in any mode: one that a boundary lacks fails deliveries or deploys."""
    found = json.loads(docs_tables.roles())
    told = {action for statements in found.values() for one in statements for action in one["actions"]}
    modes = [Mode(one).resources() for one in (PLAIN, EXISTING, MANAGED | {"WatermarkTable": "marks"})]
    roles = [one["Properties"] for mode in modes for one in mode.values() if one["Type"] == "AWS::IAM::Role"]

    allowed = [one["Action"] for role in roles for _, one in _statements(role)]

    assert told == {action for one in allowed for action in listed(one)}


def test_no_action_is_a_wildcard() -> None:
    """No role allows all actions of a service or has a managed policy."""
    made = Mode(MANAGED).resources().items()
    roles = {name: one["Properties"] for name, one in made if one["Type"] == "AWS::IAM::Role"}
    statements = [one for role in roles.values() for _, one in _statements(role)]

    assert [] == [one for one in statements if "*" in "".join(listed(one["Action"]))]
    assert {*ROLES, "DeploymentRole"} == roles.keys()
    assert [] == [name for name, role in roles.items() if "ManagedPolicyArns" in role]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_each_function_has_its_own_role(function: str) -> None:
    """Only Lambda can assume the role, and not for another account. It may write to the function's log group."""
    role = function.replace("Function", "Role")
    (trust,) = properties(role)["AssumeRolePolicyDocument"]["Statement"]

    assert {"Fn::GetAtt": [role, "Arn"]} == properties(function)["Role"]
    assert ("Allow", "sts:AssumeRole") == (trust["Effect"], trust["Action"])
    assert {"Service": "lambda.amazonaws.com"} == trust["Principal"]
    assert {"StringEqualsIfExists": OWN_ACCOUNT} == trust["Condition"]
    assert {"logs:CreateLogStream", "logs:PutLogEvents"} == granted(role)["Logs"]


AES256 = [{"ServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]
ENCRYPTED: dict[str, dict[str, Any]] = {
    "AWS::Kinesis::Stream": {"StreamEncryption": {"EncryptionType": "KMS", "KeyId": "alias/aws/kinesis"}},
    "AWS::SQS::Queue": {"SqsManagedSseEnabled": True},
    # DynamoDB's own key: with the AWS managed one, each function instance would pay for requests to KMS.
    "AWS::DynamoDB::Table": {"SSESpecification": {"SSEEnabled": False}},
    "AWS::S3::Bucket": {
        "BucketEncryption": {"ServerSideEncryptionConfiguration": AES256},
        "OwnershipControls": {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]},
    },
}


@pytest.mark.parametrize("kind", ENCRYPTED)
def test_every_data_store_is_encrypted(kind: str) -> None:
    """AWS encrypts secrets and log groups by default, and a serverless cache always."""
    for one in resources(kind).values():
        assert one["Properties"] == one["Properties"] | ENCRYPTED[kind]


@pytest.mark.parametrize(
    ("policy", "actions"),
    [("OverflowQueuePolicy", "sqs:*"), ("DataBucketPolicy", "s3:*"), ("SdkBucketPolicy", "s3:*")],
)
def test_plain_http_is_denied(policy: str, actions: str) -> None:
    """The policy denies it to everyone, and lets nobody in but CloudFront, which reads the SDK for the stack's distribution."""
    deny, *others = properties(policy)["PolicyDocument"]["Statement"]

    assert ("Deny", "*", actions) == (deny["Effect"], deny["Principal"], deny["Action"])
    assert PLAIN_HTTP == deny["Condition"]
    if policy == "OverflowQueuePolicy":
        queues = [one["Ref"] for one in properties(policy)["Queues"]]
        assert ([*resources("AWS::SQS::Queue")], "*") == (queues, deny["Resource"])
    assert (policy == "SdkBucketPolicy") == bool(others)
    for allow in others:
        assert ("Allow", "s3:GetObject") == (allow["Effect"], allow["Action"])
        assert {"Service": "cloudfront.amazonaws.com"} == allow["Principal"]
        assert "distribution/${SdkDistribution}" in str(allow["Condition"]["StringEquals"]["aws:SourceArn"])


def test_only_the_stacks_own_resources_invoke_functions() -> None:
    """Each permission names a service and a single source in this stack."""
    permissions = [one["Properties"] for one in resources("AWS::Lambda::Permission").values()]
    services = ("apigateway", "events", "lambda.alarms.cloudwatch")

    assert {f"{service}.amazonaws.com" for service in services} == {one["Principal"] for one in permissions}
    assert [] == [one for one in permissions if "SourceArn" not in one]
    assert {} == resources("AWS::Lambda::Url")


LOGGED = {
    *("requestId", "requestTimeEpoch", "identity.sourceIp", "httpMethod", "path", "protocol", "status"),
    *("responseLength", "responseLatency", "integrationLatency", "integrationErrorMessage", "error.message"),
}


def test_the_access_log_has_no_query_string() -> None:
    """It has one line of JSON per request, without query strings or headers, and is off by default."""
    mode = Mode({"AccessLog": "on"})
    log = mode.properties("ApiStage")["AccessLogSettings"]

    assert "AccessLogSettings" not in Mode({}).properties("ApiStage")
    assert {"Fn::GetAtt": ["AccessLogs", "Arn"]} == log["DestinationArn"]
    assert "30" == mode.properties("AccessLogs")["RetentionInDays"]
    assert mode.properties("AccessLogs")["LogGroupName"]["Fn::Sub"].startswith("/aws/vendedlogs/")
    assert "\n" not in log["Format"]
    assert LOGGED == set(re.findall(r"\$context\.([\w.]+)", log["Format"]))


def test_no_secret_passes_through_the_template() -> None:
    """Secrets are generated in place or named by ARN; no parameter, variable or resource contains one."""
    secrets = {name: one["Properties"] for name, one in resources("AWS::SecretsManager::Secret").items()}

    named = sorted(name for name in template()["Parameters"] if "Secret" in name)
    assert ["RedisUrlSecretArn", "TdApiKeySecretArn"] == named
    assert "resolve:" not in str(transformed())
    assert ["WriteKeySecret"] == [name for name, one in secrets.items() if "GenerateSecretString" in one]
    assert [] == [name for name, one in secrets.items() if "SecretString" in one]
