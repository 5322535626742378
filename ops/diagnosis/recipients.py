"""Whether anybody is told of a stack's alarms."""

from ops.stack import Stack

_PENDING = "PendingConfirmation"


def why_nobody_is_told(stack: Stack) -> str:
    """Return why an alarm of a deployed stack reaches nobody, and what to do; empty if it reaches somebody.

    Raises:
        ClientError: SNS rejects the call.
        BotoCoreError: it cannot be reached.
    """
    if stack.is_local:
        return ""
    topic = stack.outputs.get("AlarmTopic")
    if topic is None:
        return "nobody is told of an alarm: set AlarmEmail or AlarmTopicArn, and deploy"
    pages = stack.client("sns").get_paginator("list_subscriptions_by_topic").paginate(TopicArn=topic)
    if any(one["SubscriptionArn"] != _PENDING for page in pages for one in page["Subscriptions"]):
        return ""
    return "nobody is told of an alarm: open AWS's message in the mailbox of AlarmEmail and confirm, or subscribe to the topic"
