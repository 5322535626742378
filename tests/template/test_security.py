"""Who may do what, what is encrypted, and what leaves no trace."""

import re
from typing import Any

import pytest

from tests.support.sam import FUNCTIONS, properties, resources, template, transformed

LOG = {"logs:CreateLogStream", "logs:PutLogEvents"}
LEDGER = {"dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:Query", "dynamodb:UpdateItem"}
DELIVERY_SECRETS = ("RedisUrlSecret", "TdApiKeySecret")

ALLOWED: dict[str, dict[str, set[str]]] = {
    "IngestRole": {
        "Stream": {"kinesis:PutRecord", "kinesis:PutRecords"},
        "OverflowQueue": {"sqs:SendMessage"},
        "WriteKeySecret": {"secretsmanager:GetSecretValue"},
        "IngestLogs": LOG,
    },
    "WorkerRole": {
        "Stream": {
            "kinesis:DescribeStream",
            "kinesis:DescribeStreamSummary",
            "kinesis:GetRecords",
            "kinesis:GetShardIterator",
            "kinesis:ListShards",
        },
        "Ledger": LEDGER,
        "AsideBucket/*": {"s3:PutObject"},
        "AsideBucket": {"s3:ListBucket"},
        **{key: {"secretsmanager:GetSecretValue"} for key in DELIVERY_SECRETS},
        "WorkerLogs": LOG,
    },
    "RedriveRole": {
        "Ledger": LEDGER,
        "AsideBucket/*": {"s3:DeleteObject", "s3:GetObject", "s3:PutObject"},
        "AsideBucket": {"s3:ListBucket"},
        **{key: {"secretsmanager:GetSecretValue"} for key in DELIVERY_SECRETS},
        "RedriveLogs": LOG,
    },
    "DrainRole": {
        "OverflowQueue": {
            "sqs:ChangeMessageVisibility",
            "sqs:DeleteMessage",
            "sqs:GetQueueAttributes",
            "sqs:ReceiveMessage",
        },
        "Stream": {
            "kinesis:GetRecords",
            "kinesis:GetShardIterator",
            "kinesis:ListShards",
            "kinesis:PutRecord",
        },
        "Ledger": {"dynamodb:PutItem"},
        "AsideBucket/*": {"s3:PutObject"},
        "DrainLogs": LOG,
    },
    "AdminRole": {
        **{key: {"secretsmanager:GetSecretValue"} for key in DELIVERY_SECRETS},
        "AdminLogs": LOG,
    },
}


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _named(resource: dict[str, Any]) -> str:
    """Return the logical id that an IAM resource refers to, with what follows its ARN."""
    match resource:
        case {"Fn::GetAtt": [name, "Arn" | "Id"]} | {"Fn::If": [_, {"Fn::GetAtt": [name, "Id"]}, _]}:
            return str(name)
        case {"Fn::Sub": text}:
            return re.sub(r"\$\{(\w+)\.Arn\}", r"\1", text)
    raise AssertionError(f"a resource that this test does not know: {resource}")


@pytest.mark.parametrize("role", ALLOWED)
def test_a_role_allows_what_its_function_does_and_no_more(role: str) -> None:
    """Every action of every role is listed here, each on the one resource that it is for."""
    allowed: dict[str, set[str]] = {}
    for policy in properties(role)["Policies"]:
        for statement in policy["PolicyDocument"]["Statement"]:
            assert "Allow" == statement["Effect"]
            for resource in _listed(statement["Resource"]):
                allowed.setdefault(_named(resource), set()).update(_listed(statement["Action"]))

    assert ALLOWED[role] == allowed


def test_no_action_is_a_wildcard() -> None:
    """No role may do whatever a service offers, and none has a managed policy."""
    actions = [
        action
        for role in resources("AWS::IAM::Role").values()
        for policy in role["Properties"]["Policies"]
        for statement in policy["PolicyDocument"]["Statement"]
        for action in _listed(statement["Action"])
    ]
    assert [] == [action for action in actions if "*" in action]
    assert [] == [
        name
        for name, role in resources("AWS::IAM::Role").items()
        if "ManagedPolicyArns" in role["Properties"]
    ]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_each_function_has_a_role_that_lambda_alone_assumes(function: str) -> None:
    """The role is the function's own, and its trust names Lambda."""
    role = function.replace("Function", "Role")

    assert {"Fn::GetAtt": [role, "Arn"]} == properties(function)["Role"]
    assert [
        {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}
    ] == (properties(role)["AssumeRolePolicyDocument"]["Statement"])


def test_what_holds_data_is_encrypted() -> None:
    """Stream, queue, table and bucket are encrypted at rest; secrets and log groups are so by themselves."""
    assert {"EncryptionType": "KMS", "KeyId": "alias/aws/kinesis"} == properties("Stream")["StreamEncryption"]
    assert properties("OverflowQueue")["SqsManagedSseEnabled"]
    assert properties("Ledger")["SSESpecification"]["SSEEnabled"]
    rules = properties("AsideBucket")["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert [{"ServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}] == rules


def test_these_are_all_that_hold_data() -> None:
    """A new kind of resource that holds data has to be added to the tests of encryption and retention."""
    kinds = {"AWS::Kinesis::Stream", "AWS::SQS::Queue", "AWS::DynamoDB::Table", "AWS::S3::Bucket"}
    held = {name for name, resource in transformed()["Resources"].items() if resource["Type"] in kinds}

    assert {"Stream", "OverflowQueue", "Ledger", "AsideBucket"} == held


@pytest.mark.parametrize(
    ("policy", "actions"), [("OverflowQueuePolicy", "sqs:*"), ("AsideBucketPolicy", "s3:*")]
)
def test_connections_that_are_not_encrypted_are_refused(policy: str, actions: str) -> None:
    """The only statement of a resource's policy denies plain HTTP to everybody."""
    (statement,) = properties(policy)["PolicyDocument"]["Statement"]

    assert ("Deny", "*", actions) == (statement["Effect"], statement["Principal"], statement["Action"])
    assert {"Bool": {"aws:SecureTransport": "false"}} == statement["Condition"]


def test_the_bucket_is_closed_to_the_public() -> None:
    """All four blocks are on, and access lists are off."""
    bucket = properties("AsideBucket")

    assert {
        "BlockPublicAcls": True,
        "BlockPublicPolicy": True,
        "IgnorePublicAcls": True,
        "RestrictPublicBuckets": True,
    } == bucket["PublicAccessBlockConfiguration"]
    assert {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]} == bucket["OwnershipControls"]


def test_only_our_own_api_and_schedule_invoke_functions() -> None:
    """Each permission names a service and the one source of ours."""
    principals = {
        name: (permission["Properties"]["Principal"], "SourceArn" in permission["Properties"])
        for name, permission in resources("AWS::Lambda::Permission").items()
    }
    assert {
        "ApiPermission": ("apigateway.amazonaws.com", True),
        "RedriveFunctionSchedulePermission": ("events.amazonaws.com", True),
    } == principals
    assert {} == resources("AWS::Lambda::Url")


@pytest.mark.parametrize("function", FUNCTIONS)
def test_logs_of_a_function_are_kept_for_a_set_time(function: str) -> None:
    """Each function writes JSON to a log group of the stack."""
    logging = properties(function)["LoggingConfig"]

    assert "JSON" == logging["LogFormat"]
    assert {"RetentionInDays": {"Ref": "LogRetentionDays"}} == properties(logging["LogGroup"]["Ref"])


def test_the_access_log_holds_no_query_string() -> None:
    """It is one JSON line per request, kept for a set time, without what a query string or a header carries."""
    log = properties("ApiStage")["AccessLogSettings"]
    variables = set(re.findall(r"\$context\.([\w.]+)", log["Format"]))

    assert {"Fn::GetAtt": ["ApiLogs", "Arn"]} == log["DestinationArn"]
    assert {"RetentionInDays": {"Ref": "LogRetentionDays"}} == properties("ApiLogs")
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
    """Secrets are generated in place or named by ARN; none is a parameter's or a variable's value."""
    assert {"TdApiKeySecretArn", "RedisUrlSecretArn"} == {
        name for name in template()["Parameters"] if "Secret" in name
    }
    assert "resolve:" not in str(template())
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
