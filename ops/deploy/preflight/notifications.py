"""Checks that somebody is told of an alarm."""

from collections.abc import Iterator

from ops.deploy.preflight.survey import Survey, described
from ops.state.finding import Finding, fault, ok, warning

_PENDING = "PendingConfirmation"


def notifications(survey: Survey) -> Iterator[Finding]:
    """Check the alarms' topic, and that somebody has confirmed a subscription to it."""
    email, arn = survey.values["AlarmEmail"], survey.values["AlarmTopicArn"]
    if arn:
        yield from _given_topic(survey, arn)
    elif not email:
        yield warning(
            "alarms",
            "Nobody will be told of an alarm.",
            "Set AlarmEmail, or AlarmTopicArn for an existing SNS topic.",
        )
    elif (made := _own_topic(survey)) and not _has_readers(survey, made):
        yield warning(
            "alarms",
            f"Nobody is told of an alarm: {email} has not confirmed the subscription.",
            "Open AWS's message in that mailbox, and its spam folder. Otherwise subscribe again: "
            f"`aws sns subscribe --topic-arn {made} --protocol email --notification-endpoint {email}`.",
        )
    else:
        yield ok("alarms", email)


def _given_topic(survey: Survey, arn: str) -> Iterator[Finding]:
    if arn.split(":")[3] != survey.plan.region:
        yield fault("alarm topic", f"It is in {arn.split(':')[3]}.", f"Use one in {survey.plan.region}.")
    elif described(survey.client("sns").get_topic_attributes, TopicArn=arn) is None:
        yield fault("alarm topic", f"There is no topic {arn}.", "Correct AlarmTopicArn.")
    elif not _has_readers(survey, arn):
        yield warning(
            "alarm topic",
            "Nobody is told of an alarm: the topic has no confirmed subscription.",
            "Subscribe to it.",
        )
    else:
        yield ok("alarm topic")


def _own_topic(survey: Survey) -> str:
    """Return the ARN of the existing stack's topic; empty if there is none yet."""
    if not (survey.live or {}).get("AlarmEmail"):
        return ""
    found = described(
        survey.client("cloudformation").describe_stack_resource,
        StackName=survey.plan.stack,
        LogicalResourceId="AlarmTopic",
    )
    return found["StackResourceDetail"].get("PhysicalResourceId", "") if found else ""


def _has_readers(survey: Survey, arn: str) -> bool:
    pages = survey.client("sns").get_paginator("list_subscriptions_by_topic").paginate(TopicArn=arn)
    return any(one["SubscriptionArn"] != _PENDING for page in pages for one in page["Subscriptions"])
