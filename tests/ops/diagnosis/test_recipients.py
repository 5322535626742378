"""Whether anybody is told of a stack's alarms."""

from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from ops.diagnosis.recipients import why_nobody_is_told
from ops.stack import Stack

TOPIC = "arn:aws:sns:us-east-1:123456789012:sluice-dev-AlarmTopic"


def a_stack(*subscriptions: str, topic: str | None = TOPIC) -> Stack:
    """Return a stack whose topic has these subscriptions."""
    sns = boto3.client("sns", region_name="us-east-1", aws_access_key_id="k", aws_secret_access_key="s")
    stubber = Stubber(sns)
    found = [{"SubscriptionArn": one} for one in subscriptions]
    stubber.add_response("list_subscriptions_by_topic", {"Subscriptions": found}, {"TopicArn": TOPIC})
    stubber.activate()
    session: Any = type("Session", (), {"client": lambda *_, **__: sns})()
    return Stack("sluice-dev", {} if topic is None else {"AlarmTopic": topic}, session)


@pytest.mark.parametrize(
    ("stack", "said"),
    [
        (a_stack(topic=None), "set AlarmEmail or AlarmTopicArn"),
        (a_stack(), "confirm, or subscribe"),
        (a_stack("PendingConfirmation"), "confirm, or subscribe"),
        (a_stack("PendingConfirmation", f"{TOPIC}:1"), ""),
    ],
    ids=["no topic", "no subscription", "pending", "confirmed"],
)
def test_somebody_is_told_once_a_subscription_is_confirmed(stack: Stack, said: str) -> None:
    """AWS sends nothing to an address whose owner has not confirmed it."""
    found = why_nobody_is_told(stack)

    assert said in found
    assert bool(said) == bool(found)


def test_the_local_stack_has_no_alarms() -> None:
    """So nobody needs to be told."""
    session: Any = None

    assert "" == why_nobody_is_told(Stack("local", {}, session, functions={}))
