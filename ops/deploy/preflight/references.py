"""Checks of what parameters name: subnets and security groups, the roles' boundary, secrets, who is told of alarms."""

from collections.abc import Iterator

from botocore.exceptions import ClientError

from ops.deploy.preflight.survey import Survey
from ops.failure import if_there
from ops.state.finding import Finding, fault, ok, warning


def network(survey: Survey) -> Iterator[Finding]:
    """Check that subnets and security groups exist, in one VPC."""
    if survey.values["Network"] != "existing" or not survey.values["SubnetIds"]:
        return
    ec2 = survey.client("ec2")
    try:
        subnets = ec2.describe_subnets(SubnetIds=survey.values["SubnetIds"].split(","))["Subnets"]
        groups = ec2.describe_security_groups(GroupIds=survey.values["SecurityGroupIds"].split(","))[
            "SecurityGroups"
        ]
    except ClientError as error:
        if "NotFound" not in error.response["Error"]["Code"]:
            raise
        yield fault(
            "network",
            error.response["Error"]["Message"],
            f"SubnetIds and SecurityGroupIds must be in {survey.plan.region}.",
        )
        return
    networks = {one["VpcId"] for one in (*subnets, *groups)}
    if len(networks) > 1:
        yield fault(
            "network",
            f"SubnetIds and SecurityGroupIds are in several VPCs: {', '.join(sorted(networks))}.",
            "Choose them from one VPC.",
        )
    else:
        yield ok("network", f"in {networks.pop()}")


def boundary(survey: Survey) -> Iterator[Finding]:
    """Check that the permissions boundary exists."""
    arn = survey.values["PermissionsBoundary"]
    if not arn:
        return
    if if_there(survey.client("iam").get_policy, PolicyArn=arn) is None:
        yield fault("permissions boundary", f"There is no policy {arn}.", "Correct PermissionsBoundary.")
    else:
        yield ok("permissions boundary")


def secrets(survey: Survey) -> Iterator[Finding]:
    """Check that the secrets exist in this region, and that the functions may read them."""
    for parameter in ("TdApiKeySecretArn", "RedisUrlSecretArn"):
        arn = survey.values[parameter]
        if not arn:
            continue
        if arn.split(":")[3] != survey.plan.region:
            yield fault(parameter, f"It is in {arn.split(':')[3]}.", f"Use one in {survey.plan.region}.")
            continue
        found = if_there(survey.client("secretsmanager").describe_secret, SecretId=arn)
        if found is None:
            yield fault(parameter, f"There is no secret {arn}.", f"Correct {parameter}.")
        elif found.get("KmsKeyId", "alias/aws/secretsmanager").rpartition("/")[2] != "secretsmanager":
            yield fault(
                parameter,
                f"It is encrypted with {found['KmsKeyId']}, which the functions may not use.",
                "Encrypt it with the AWS managed key aws/secretsmanager.",
            )
        else:
            yield ok(parameter)


def notifications(survey: Survey) -> Iterator[Finding]:
    """Check that somebody can be told of an alarm. `sluice doctor` looks whether the recipient has confirmed."""
    email, arn = survey.values["AlarmEmail"], survey.values["AlarmTopicArn"]
    if not arn and not email:
        advice = "Set AlarmEmail, or AlarmTopicArn for an existing SNS topic."
        yield warning("alarms", "Nobody will be told of an alarm.", advice)
    elif not arn:
        yield ok("alarms", email)
    elif arn.split(":")[3] != survey.plan.region:
        yield fault("alarm topic", f"It is in {arn.split(':')[3]}.", f"Use one in {survey.plan.region}.")
    elif if_there(survey.client("sns").get_topic_attributes, TopicArn=arn) is None:
        yield fault("alarm topic", f"There is no topic {arn}.", "Correct AlarmTopicArn.")
    else:
        yield ok("alarm topic")
