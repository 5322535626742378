"""Permissions, encryption, and data that must not be logged."""

import re
from typing import Any

import pytest

from tests.support.modes import Mode
from tests.support.rights import granted, listed
from tests.support.sam import FUNCTIONS, properties, resources, template, transformed

LOG = {"logs:CreateLogStream", "logs:PutLogEvents"}
LEDGER = {"dynamodb:PutItem", "dynamodb:Query", "dynamodb:UpdateItem"}
CLAIMS = {"dynamodb:BatchGetItem", "dynamodb:PartiQLInsert"}
DELIVERY_SECRETS = ("RedisUrlSecret", "TdApiKeySecret")

ALLOWED: dict[str, dict[str, set[str]]] = {
    "IngestRole": {
        "Stream": {"kinesis:DescribeStreamSummary", "kinesis:PutRecord", "kinesis:PutRecords"},
        "OverflowNotices": {"sqs:SendMessage"},
        "OverflowQueue": {"sqs:SendMessage"},
        "WriteKeySecret": {"secretsmanager:GetSecretValue"},
        "DataBucket/edge/policy": {"s3:GetObject"},
        "Counters": {"dynamodb:UpdateItem"},
        "Logs": LOG,
    },
    "WorkerRole": {
        "Stream": {
            "kinesis:DescribeStream",
            "kinesis:DescribeStreamSummary",
            "kinesis:GetRecords",
            "kinesis:GetShardIterator",
            "kinesis:ListShards",
        },
        "Ledger": LEDGER | CLAIMS | {"dynamodb:DescribeTable", "dynamodb:GetItem"},
        "DataBucket/spans/*": {"s3:GetObject", "s3:PutObject"},
        "DataBucket/rejected/*": {"s3:PutObject"},
        "DataBucket/aws/lambda/*": {"s3:PutObject"},
        "DataBucket": {"s3:ListBucket"},
        **{key: {"secretsmanager:GetSecretValue"} for key in DELIVERY_SECRETS},
        "Logs": LOG,
    },
    "SenderRole": {
        "Stream": {"kinesis:DescribeStreamSummary", "kinesis:ListShards", "kinesis:PutRecord"},
        "OverflowQueue": {"sqs:GetQueueAttributes"},
        "OverflowNotices": {"sqs:ReceiveMessage"},
        "Ledger": LEDGER | {"dynamodb:BatchGetItem", "dynamodb:DescribeTable", "dynamodb:GetItem"},
        "Ledger/index/worklist": {"dynamodb:Query"},
        "DataBucket/spans/*": {"s3:DeleteObject", "s3:DeleteObjectVersion", "s3:GetObject", "s3:PutObject"},
        "DataBucket/rejected/*": {"s3:DeleteObjectVersion", "s3:GetObject", "s3:PutObject"},
        "DataBucket/forget/*": {"s3:GetObject", "s3:PutObject"},
        "DataBucket/edge/policy": {"s3:GetObject", "s3:PutObject"},
        "DataBucket": {"s3:ListBucket", "s3:ListBucketVersions"},
        "WriteKeySecret": {"secretsmanager:GetSecretValue"},
        **{key: {"secretsmanager:GetSecretValue"} for key in DELIVERY_SECRETS},
        "Logs": LOG,
    },
    "DrainRole": {
        "OverflowQueue": {
            "sqs:ChangeMessageVisibility",
            "sqs:DeleteMessage",
            "sqs:GetQueueAttributes",
            "sqs:ReceiveMessage",
        },
        "Stream": {"kinesis:PutRecord", "kinesis:PutRecords"},
        "Ledger": {"dynamodb:PutItem"},
        "DataBucket/spans/*": {"s3:PutObject"},
        "Logs": LOG,
    },
    "ScaleRole": {
        "Stream": {"kinesis:DescribeStreamSummary", "kinesis:UpdateShardCount", "kinesis:UpdateStreamMode"},
        "*": {"cloudwatch:GetMetricData"},
        "OverflowQueue": {"sqs:GetQueueAttributes"},
        "DataBucket/edge/policy": {"s3:GetObject", "s3:PutObject"},
        "Logs": LOG,
    },
    "AdminRole": {
        "DataBucket/edge/policy": {"s3:GetObject", "s3:PutObject"},
        **{key: {"secretsmanager:GetSecretValue"} for key in DELIVERY_SECRETS},
        "Logs": LOG,
    },
}


# Policies that exist in one mode only. AWS supports no narrower resource than `*` for their actions.
INTERFACES = {
    "ec2:AssignPrivateIpAddresses",
    "ec2:CreateNetworkInterface",
    "ec2:DeleteNetworkInterface",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSubnets",
    "ec2:UnassignPrivateIpAddresses",
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
IN_VPC = ("WorkerRole", "SenderRole", "AdminRole")


@pytest.mark.parametrize("role", ALLOWED)
def test_a_role_allows_what_its_function_does_and_no_more(role: str) -> None:
    """This file lists every action of every role, each for the one resource that it needs."""
    assert ALLOWED[role] == granted(role)


def test_the_sender_may_read_the_stream_only_for_watermarks() -> None:
    """Without a table for watermarks, its role lacks these permissions."""
    stream = ALLOWED["SenderRole"]["Stream"] | {"kinesis:GetRecords", "kinesis:GetShardIterator"}

    assert ALLOWED["SenderRole"] | {"Stream": stream} == granted(
        "SenderRole", {"Network": "external", "WatermarkTable": "sluice_watermarks"}
    )


def _on_everything(parameters: dict[str, str], role: str) -> list[tuple[str, str, set[str]]]:
    """Return policy, effect and actions of each statement of a role that applies to all resources."""
    return [
        (policy["PolicyName"], statement["Effect"], set(listed(statement["Action"])))
        for policy in Mode(parameters).properties(role)["Policies"]
        for statement in policy["PolicyDocument"]["Statement"]
        if statement["Resource"] == "*"
    ]


@pytest.mark.parametrize(
    ("role", "user"),
    [("WorkerRole", "RedisReader"), ("SenderRole", "RedisReader"), ("AdminRole", "RedisWriter")],
)
def test_a_role_signs_in_to_the_managed_redis_as_one_user(role: str, user: str) -> None:
    """With a managed Redis this permission replaces the one to read the URL, and nothing else changes."""
    changed = {resource: ALLOWED[role][resource] for resource in ALLOWED[role].keys() - {"RedisUrlSecret"}}

    assert changed | {name: {"elasticache:Connect"} for name in ("Redis", user)} == granted(role, MANAGED)


@pytest.mark.parametrize("role", ALLOWED)
def test_roles_name_resources_wherever_aws_allows_it(role: str) -> None:
    """Only network interfaces, in their mode, and metrics are allowed on all resources."""
    always = [METRICS] if role == "ScaleRole" else []
    interfaces = [NETWORK, NETWORK_BY_CODE] if role in IN_VPC else []

    assert always == _on_everything(PLAIN, role)
    assert [*interfaces, *always] == _on_everything(EXISTING, role)
    assert always == _on_everything(MANAGED, role)


@pytest.mark.parametrize("role", IN_VPC)
def test_lambda_can_delete_interfaces_after_a_function_has_left_a_network(role: str) -> None:
    """The role keeps the permission while subnets are named; without it, interfaces would stay in the VPC for ever."""
    assert "ec2:DeleteNetworkInterface" in {
        action for _, effect, actions in _on_everything(LEFT, role) if effect == "Allow" for action in actions
    }


def test_only_lambda_itself_manages_network_interfaces() -> None:
    """Its role must grant EC2 actions to Lambda, but the function's own code is denied them."""
    (policy,) = (
        found
        for found in Mode(EXISTING).properties("WorkerRole")["Policies"]
        if found["PolicyName"] == "network"
    )
    (_, deny) = policy["PolicyDocument"]["Statement"]

    assert ["lambda:SourceFunctionArn"] == list(deny["Condition"]["ArnLike"])


def test_a_deployment_only_moves_the_ingests_alias() -> None:
    """CodeDeploy's role may change the aliases of that function only."""
    role = properties("DeploymentRole")
    (policy,) = role["Policies"]
    move, look = policy["PolicyDocument"]["Statement"]
    (trust,) = role["AssumeRolePolicyDocument"]["Statement"]

    assert {"Service": "codedeploy.amazonaws.com"} == trust["Principal"]
    assert {"StringEquals": OWN_ACCOUNT} == trust["Condition"]
    assert ["lambda:GetAlias", "lambda:GetProvisionedConcurrencyConfig", "lambda:UpdateAlias"] == move[
        "Action"
    ]
    assert [{"Fn::GetAtt": ["IngestFunction", "Arn"]}, {"Fn::Sub": "${IngestFunction.Arn}:*"}] == move[
        "Resource"
    ]
    assert ("cloudwatch:DescribeAlarms", "*") == (look["Action"], look["Resource"])


def test_no_action_is_a_wildcard() -> None:
    """No role allows all actions of a service or has a managed policy."""
    roles = {name: found for name, found in Mode(MANAGED).resources().items() if _is_role(found)}
    actions = [
        action
        for role in roles.values()
        for policy in role["Properties"]["Policies"]
        for statement in policy["PolicyDocument"]["Statement"]
        for action in listed(statement["Action"])
    ]
    assert [] == [action for action in actions if "*" in action]
    assert {*ALLOWED, "DeploymentRole"} == roles.keys()
    assert [] == [name for name, role in roles.items() if "ManagedPolicyArns" in role["Properties"]]


def _is_role(resource: dict[str, Any]) -> bool:
    return bool(resource["Type"] == "AWS::IAM::Role")


@pytest.mark.parametrize("function", FUNCTIONS)
def test_each_function_has_its_own_role(function: str) -> None:
    """Only Lambda can assume the role, and not for another account."""
    role = function.replace("Function", "Role")
    (trust,) = properties(role)["AssumeRolePolicyDocument"]["Statement"]

    assert {"Fn::GetAtt": [role, "Arn"]} == properties(function)["Role"]
    assert ("Allow", "sts:AssumeRole") == (trust["Effect"], trust["Action"])
    assert {"Service": "lambda.amazonaws.com"} == trust["Principal"]
    assert {"StringEqualsIfExists": OWN_ACCOUNT} == trust["Condition"]


def test_data_is_encrypted_at_rest() -> None:
    """The template encrypts stream, queues and buckets; AWS encrypts the table, secrets and log groups by default.

    The table has DynamoDB's own key: with the AWS managed one, each function instance would pay for requests to KMS.
    """
    assert {"EncryptionType": "KMS", "KeyId": "alias/aws/kinesis"} == properties("Stream")["StreamEncryption"]
    assert properties("OverflowQueue")["SqsManagedSseEnabled"]
    assert properties("OverflowNotices")["SqsManagedSseEnabled"]
    assert not properties("Ledger")["SSESpecification"]["SSEEnabled"]
    for bucket in ("DataBucket", "SdkBucket"):
        rules = properties(bucket)["BucketEncryption"]["ServerSideEncryptionConfiguration"]
        assert [{"ServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}] == rules


def test_every_data_store_is_listed() -> None:
    """A new data store must be added to the tests of encryption and retention."""
    kinds = {
        "AWS::Kinesis::Stream",
        "AWS::SQS::Queue",
        "AWS::DynamoDB::Table",
        "AWS::S3::Bucket",
        "AWS::ElastiCache::ServerlessCache",  # always encrypted, and accepts TLS only
    }
    held = {name for name, resource in transformed()["Resources"].items() if resource["Type"] in kinds}

    without_data = {"OverflowNotices", "Counters"}
    assert {"Stream", "OverflowQueue", "Ledger", "DataBucket", "SdkBucket", "Redis"} | without_data == held


@pytest.mark.parametrize(
    ("policy", "actions"), [("OverflowQueuePolicy", "sqs:*"), ("DataBucketPolicy", "s3:*")]
)
def test_plain_http_is_denied(policy: str, actions: str) -> None:
    """The policy denies it to everyone and grants nothing to anyone."""
    (statement,) = properties(policy)["PolicyDocument"]["Statement"]

    assert ("Deny", "*", actions) == (statement["Effect"], statement["Principal"], statement["Action"])
    assert {"Bool": {"aws:SecureTransport": "false"}} == statement["Condition"]


def test_only_the_stacks_distribution_reads_the_sdk_bucket() -> None:
    """The policy denies plain HTTP and lets CloudFront read on behalf of the stack's distribution."""
    deny, allow = properties("SdkBucketPolicy")["PolicyDocument"]["Statement"]

    assert ("Deny", "*", "s3:*") == (deny["Effect"], deny["Principal"], deny["Action"])
    assert {"Bool": {"aws:SecureTransport": "false"}} == deny["Condition"]
    assert ("Allow", "s3:GetObject") == (allow["Effect"], allow["Action"])
    assert {"Service": "cloudfront.amazonaws.com"} == allow["Principal"]
    assert "distribution/${SdkDistribution}" in str(allow["Condition"]["StringEquals"]["aws:SourceArn"])


@pytest.mark.parametrize("name", ["DataBucket", "SdkBucket"])
def test_buckets_block_public_access(name: str) -> None:
    """All four blocks are on, and access control lists are off."""
    bucket = properties(name)

    assert {
        "BlockPublicAcls": True,
        "BlockPublicPolicy": True,
        "IgnorePublicAcls": True,
        "RestrictPublicBuckets": True,
    } == bucket["PublicAccessBlockConfiguration"]
    assert {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]} == bucket["OwnershipControls"]


def test_only_the_stacks_own_resources_invoke_functions() -> None:
    """Each permission names a service and a single source in this stack."""
    principals = {
        name: (permission["Properties"]["Principal"], "SourceArn" in permission["Properties"])
        for name, permission in resources("AWS::Lambda::Permission").items()
    }
    assert {
        "ApiPermission": ("apigateway.amazonaws.com", True),
        "SenderFunctionSchedulePermission": ("events.amazonaws.com", True),
        "SenderFunctionSweepPermission": ("events.amazonaws.com", True),
        "SenderFunctionWatermarksPermission": ("events.amazonaws.com", True),
        "ScaleFunctionSchedulePermission": ("events.amazonaws.com", True),
        "ScaleFunctionBacklogPermission": ("events.amazonaws.com", True),
        "StreamThrottlesPermission": ("lambda.alarms.cloudwatch.amazonaws.com", True),
    } == principals
    assert {} == resources("AWS::Lambda::Url")


@pytest.mark.parametrize("function", FUNCTIONS)
def test_function_logs_have_a_retention(function: str) -> None:
    """Each function writes JSON to a log group of the stack."""
    logging = properties(function)["LoggingConfig"]

    assert "JSON" == logging["LogFormat"]
    assert {"RetentionInDays": {"Ref": "LogRetentionDays"}} == properties(logging["LogGroup"]["Ref"])


def test_the_access_log_has_no_query_string() -> None:
    """It has one line of JSON per request, without query strings or headers, and is off by default."""
    mode = Mode({"AccessLog": "on"})
    log = mode.properties("ApiStage")["AccessLogSettings"]
    variables = set(re.findall(r"\$context\.([\w.]+)", log["Format"]))

    assert "AccessLogSettings" not in Mode({}).properties("ApiStage")
    assert {"Fn::GetAtt": ["AccessLogs", "Arn"]} == log["DestinationArn"]
    assert {
        "RetentionInDays": "30",
        "LogGroupName": {"Fn::Sub": "/aws/vendedlogs/${AWS::StackName}-access"},
    } == (mode.properties("AccessLogs"))
    assert "\n" not in log["Format"]
    assert variables == {
        "requestId",
        "requestTimeEpoch",
        "identity.sourceIp",
        "httpMethod",
        "path",
        "protocol",
        "status",
        "responseLength",
        "responseLatency",
        "integrationLatency",
        "integrationErrorMessage",
        "error.message",
    }


def test_no_secret_passes_through_the_template() -> None:
    """Secrets are generated in place or named by ARN; no parameter, variable or resource contains one."""
    assert {"TdApiKeySecretArn", "RedisUrlSecretArn"} == {
        name for name in template()["Parameters"] if "Secret" in name
    }
    assert "resolve:" not in str(transformed())
    assert ["WriteKeySecret"] == [
        name
        for name, secret in resources("AWS::SecretsManager::Secret").items()
        if "GenerateSecretString" in secret["Properties"]
    ]
    assert [] == [
        name
        for name, secret in resources("AWS::SecretsManager::Secret").items()
        if "SecretString" in secret["Properties"]
    ]
