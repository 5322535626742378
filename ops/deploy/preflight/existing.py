"""Checks of what already exists: the stack, and resources with names that the stack would use."""

from collections.abc import Iterator, Mapping
from typing import Any

from botocore.client import BaseClient

from ops.deploy.preflight.survey import Survey
from ops.deploy.stack_status import obstacle
from ops.state.finding import Finding, fault, ok


def credentials(survey: Survey) -> Iterator[Finding]:
    """Report the deployer's identity, and note the account and the existing stack in the survey."""
    who = survey.client("sts").get_caller_identity()
    survey.account = who["Account"]
    survey.look_at_stack()
    yield ok("credentials", f"{who['Arn']} in account {who['Account']}")


def stack(survey: Survey) -> Iterator[Finding]:
    """Check that the stack's name is free, or that the stack is in a state that can be deployed to."""
    pages = survey.client("cloudformation").get_paginator("describe_stacks").paginate()
    stacks = [stack for page in pages for stack in page["Stacks"]]
    ours = next((stack for stack in stacks if stack["StackName"] == survey.plan.stack), None)
    if ours is None:
        yield ok("stack", f"{survey.plan.stack} is free")
    else:
        yield _existing(survey, ours)
        yield from _left_network(survey)
    sam = next((stack for stack in stacks if stack["StackName"] == "aws-sam-cli-managed-default"), None)
    if (
        survey.plan.build is not None
        and sam is not None
        and not sam["StackStatus"].endswith(("CREATE_COMPLETE", "UPDATE_COMPLETE"))
    ):
        yield fault(
            "upload bucket",
            f"The SAM CLI's own stack aws-sam-cli-managed-default is in {sam['StackStatus']}.",
            "Delete it: `aws cloudformation delete-stack --stack-name aws-sam-cli-managed-default`. "
            "`sam deploy` creates it again.",
        )


def _existing(survey: Survey, stack: Mapping[str, Any]) -> Finding:
    name, status = stack["StackName"], stack["StackStatus"]
    if stack.get("Description") not in (None, "", survey.template.description):
        return fault(
            "stack",
            f"The name {name} is taken by another stack.",
            "Change stack_name in samconfig.toml, or use another `--stack NAME`.",
        )
    said = f"{name} is in {status}."
    if advice := obstacle(status, name, survey.plan.region):
        return fault("stack", said, f"{advice}.")
    return ok("stack", said)


def _left_network(survey: Survey) -> Iterator[Finding]:
    """Reject a deploy that leaves a VPC and at once removes the permissions that Lambda needs to delete its interfaces there."""
    live = survey.live or {}
    if live.get("Network") == "existing" and not survey.values["SubnetIds"]:
        yield fault(
            "network",
            "The functions leave their subnets, and without SubnetIds Lambda lacks permission to delete its interfaces there.",
            f"Keep SubnetIds={live.get('SubnetIds', '')} for an hour after this deploy.",
        )


def names(survey: Survey) -> Iterator[Finding]:
    """Check that names which the stack chooses itself, not CloudFormation, are free."""
    cache: BaseClient = survey.client(
        "elasticache"
    )  # without the types of its operations, which come from a table
    own = survey.values | {"AWS::StackName": survey.plan.stack}
    for kind, operation, answer, key in (
        ("ServerlessCache", "describe_serverless_caches", "ServerlessCaches", "ServerlessCacheName"),
        ("User", "describe_users", "Users", "UserId"),
        ("UserGroup", "describe_user_groups", "UserGroups", "UserGroupId"),
    ):
        names = {
            survey.template.resolve(survey.template.properties(name)[key], own)
            for name, of_type in survey.new_types.items()
            if of_type == f"AWS::ElastiCache::{kind}"
        }
        if not names:
            continue
        pages = cache.get_paginator(operation).paginate()
        if taken := sorted(names & {one[key] for page in pages for one in page[answer]}):
            yield fault(
                "names",
                f"ElastiCache already has a {kind} named {taken[0]}.",
                "Delete it, or change stack_name in samconfig.toml.",
            )
            return
    yield ok("names")
