"""Checks of the deployer's permissions, by IAM and the organization's policies."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from ops.deploy import deployer
from ops.deploy.preflight.survey import Survey
from ops.state.finding import Finding, fault, ok, warning

if TYPE_CHECKING:
    from mypy_boto3_iam.type_defs import ContextEntryTypeDef


def rights(survey: Survey) -> Iterator[Finding]:
    """Check that IAM and the organization's policies allow the caller every action of the deploy."""
    iam = survey.client("iam")
    arn = survey.client("sts").get_caller_identity()["Arn"]
    if arn.endswith(":root"):
        yield warning(
            "rights", "These are the root user's credentials.", "Deploy with a role or a user instead."
        )
        return
    if ":assumed-role/" in arn:
        arn = iam.get_role(RoleName=arn.split("/")[1])["Role"]["Arn"]
    denied: dict[str, None] = {}
    by_organization: dict[str, None] = {}
    for place, actions in deployer.needs(survey.types.values(), is_release=survey.plan.build is None):
        pages = iam.get_paginator("simulate_principal_policy").paginate(
            PolicySourceArn=arn,
            ActionNames=[_example(action) for action in actions],
            ResourceArns=[_concrete(survey, place)],
            ContextEntries=_context(survey),
        )
        for result in (one for page in pages for one in page["EvaluationResults"]):
            if result["EvalDecision"] != "allowed":
                by_scp = not result.get("OrganizationsDecisionDetail", {}).get("AllowedByOrganizations", True)
                (by_organization if by_scp else denied)[result["EvalActionName"]] = None
    if by_organization:
        yield fault(
            "organization",
            f"A policy of your organization denies {', '.join(by_organization)}"
            f"{_about_cache(survey, by_organization)}.",
            "Ask its administrators for an exception, or avoid the resource: Network=existing or external, SdkHosting=off.",
        )
    if denied:
        yield fault(
            "rights",
            f"{arn} may not do {', '.join(denied)}.",
            "Attach the policies in docs/deploying.md#permissions to it. They allow roles only with the PermissionsBoundary that they name.",
        )
    if not denied and not by_organization:
        yield ok("rights", "everything this deploy needs")


def _about_cache(survey: Survey, actions: Mapping[str, None]) -> str:
    is_public = _connection_type(survey) == "public" and "elasticache:CreateServerlessCache" in actions
    return ", perhaps because the cache has a public endpoint" if is_public else ""


def _context(survey: Survey) -> "list[ContextEntryTypeDef]":
    """Return values of condition keys that policies may use."""
    values = {
        "elasticache:ConnectionType": _connection_type(survey),
        "iam:PassedToService": "lambda.amazonaws.com",
        "iam:PermissionsBoundary": survey.values["PermissionsBoundary"],
    }
    return [
        {"ContextKeyName": key, "ContextKeyValues": [value], "ContextKeyType": "string"}
        for key, value in values.items()
        if value
    ]


def _connection_type(survey: Survey) -> str:
    caches = [name for name, kind in survey.types.items() if kind == "AWS::ElastiCache::ServerlessCache"]
    return str(survey.template.properties(caches[0]).get("ConnectionType", "vpc")) if caches else ""


def _concrete(survey: Survey, place: str) -> str:
    """Return an ARN as this stack will have it."""
    if place == "*":
        return place
    stack = survey.plan.stack
    head, *rest = place.split(":", 5)
    parts = [head, *rest]
    parts[3] = survey.plan.region if parts[3] == "*" else parts[3]
    parts[4] = survey.account if parts[4] == "*" else parts[4]
    names = parts[5].replace("STACK-*", f"{stack}-x").replace("STACK", stack)
    for name, value in survey.values.items():
        names = names.replace(f"<{name}>", value)
    parts[5] = names.replace("*", "x")
    return ":".join(parts)


def _example(action: str) -> str:
    """Return one of the actions that a pattern stands for, because IAM does not simulate patterns."""
    return {
        "s3:Get*Configuration": "s3:GetLifecycleConfiguration",
        "s3:GetBucket*": "s3:GetBucketLocation",
    }.get(action, action)
