"""Checks that somebody can be told of an alarm. `sluice doctor` looks whether the recipient has confirmed."""

from collections.abc import Iterator

from ops.deploy.preflight.survey import Survey, described
from ops.state.finding import Finding, fault, ok, warning


def notifications(survey: Survey) -> Iterator[Finding]:
    """Check the alarms' recipients."""
    email, arn = survey.values["AlarmEmail"], survey.values["AlarmTopicArn"]
    if not arn and not email:
        advice = "Set AlarmEmail, or AlarmTopicArn for an existing SNS topic."
        yield warning("alarms", "Nobody will be told of an alarm.", advice)
    elif not arn:
        yield ok("alarms", email)
    elif arn.split(":")[3] != survey.plan.region:
        yield fault("alarm topic", f"It is in {arn.split(':')[3]}.", f"Use one in {survey.plan.region}.")
    elif described(survey.client("sns").get_topic_attributes, TopicArn=arn) is None:
        yield fault("alarm topic", f"There is no topic {arn}.", "Correct AlarmTopicArn.")
    else:
        yield ok("alarm topic")
