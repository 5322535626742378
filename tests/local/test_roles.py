"""The doubles refuse calls that the template's roles do not allow."""

from typing import Any

import pytest
from botocore.exceptions import ClientError

from local.functions import FUNCTIONS, WORKER
from local.roles import role_of
from tests.support.delivery import BUCKET, RESOURCES, STREAM, TABLE, Delivery
from tests.support.rights import granted

ARNS = {
    "Stream": RESOURCES.stream_arn,
    "OverflowQueue": RESOURCES.queue_arn,
    "Ledger": RESOURCES.references()["Ledger.Arn"],
    "Ledger/index/worklist": f"{RESOURCES.references()['Ledger.Arn']}/index/worklist",
    "DataBucket": f"arn:aws:s3:::{BUCKET}",
    "DataBucket/spans/*": f"arn:aws:s3:::{BUCKET}/spans/2026112403/shard/1-2-ab.gz",
    "DataBucket/rejected/*": f"arn:aws:s3:::{BUCKET}/rejected/shop/1.gz",
    "DataBucket/edge/policy": f"arn:aws:s3:::{BUCKET}/edge/policy",
    "WriteKeySecret": RESOURCES.write_key_secret,
    "TdApiKeySecret": RESOURCES.td_api_key_secret,
    "RedisUrlSecret": RESOURCES.redis_url_secret,
}
CONTEXT = {"s3:ResourceAccount": "123456789012"}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_local_role_allows_exactly_what_the_deployed_role_allows(name: str) -> None:
    """Each action in the transformed template is allowed on its resource and no other, unless granted on all."""
    role = role_of(FUNCTIONS[name], RESOURCES)
    rights = granted(name.replace("Function", "Role"))
    actions = {action for allowed in rights.values() for action in allowed if not action.startswith("logs:")}

    assert {
        (action, place) for place in ARNS for action in actions if role.allows(action, ARNS[place], CONTEXT)
    } == {(action, place) for place in ARNS for action in rights.get(place, set()) | rights.get("*", set())}


def test_a_bucket_can_be_listed_only_in_the_stack_s_account() -> None:
    """The double evaluates the statement's condition."""
    role, elsewhere = role_of(WORKER, RESOURCES), {"s3:ResourceAccount": "210987654321"}

    assert role.allows("s3:ListBucket", ARNS["DataBucket"], CONTEXT)
    assert not role.allows("s3:ListBucket", ARNS["DataBucket"], elsewhere)


@pytest.mark.parametrize(
    ("client", "call", "request_"),
    [
        ("kinesis", "put_record", {"StreamName": STREAM, "Data": b"", "PartitionKey": "k"}),
        ("s3", "delete_object", {"Bucket": BUCKET, "Key": "k"}),
        ("dynamodb", "scan", {"TableName": TABLE}),
        ("sqs", "send_message", {"QueueUrl": RESOURCES.queue_url, "MessageBody": "b"}),
        ("secrets", "get_secret_value", {"SecretId": RESOURCES.write_key_secret}),
    ],
)
def test_the_worker_in_tests_has_only_its_rights(client: str, call: str, request_: dict[str, Any]) -> None:
    """A test would therefore fail if the worker made a call that its role does not allow."""
    effects = Delivery().wiring.effects
    with pytest.raises(ClientError, match="AccessDenied"):
        getattr(getattr(effects, client), call)(**request_)
