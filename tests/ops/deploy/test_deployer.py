"""The deploy policies, compared with what AWS's own schemas say that CloudFormation does for each type of resource."""

import json
import re

import pytest

from ops.deploy import deployer
from ops.template import sluice_template
from tests.support.handlers import BEYOND, matches, named, needed, unused
from tests.support.modes import Mode
from tests.support.sam import transformed

MODES: dict[str, dict[str, str]] = {
    "smallest": {"Network": "external", "SdkHosting": "off"},
    "largest": {"DomainName": "a.example.com", "HostedZoneId": "Z1", "AlarmEmail": "a@example.com"},
}
TYPES = sorted({one["Type"] for one in transformed()["Resources"].values()})
STATEMENTS = [one for part in deployer.PARTS for one in deployer.policy(part)["Statement"]]
ALLOWED = [(action, one) for one in STATEMENTS for action in one["Action"]]
MORE = [*deployer.policy("setup")["Statement"], *deployer.policy("certify")["Statement"]]
OTHERS = [(action, one) for one in MORE for action in one["Action"]]


def service(kind: str) -> str:
    """Return with what the ids of a type's statements begin."""
    of_domain = ("AWS::ApiGatewayV2::DomainName", "AWS::ApiGatewayV2::ApiMapping")
    return "CertificateManager" if kind in of_domain else kind.split("::")[1]


def listed(kind: str) -> set[str]:
    """Return the actions that are listed for a type's service."""
    return {action for action, one in ALLOWED if one["Sid"].startswith(service(kind))}


@pytest.mark.parametrize("mode", MODES)
def test_a_stack_has_the_actions_of_its_types_handlers(mode: str) -> None:
    """CloudFormation calls the handlers with the deployer's permissions; one that is missing fails the deploy."""
    template = sluice_template()
    types = set(template.resources(template.parameters(MODES[mode])).values())
    found = {action for _, actions in deployer.needs(types) for action in actions}

    assert mode == "smallest" or types == set(TYPES)
    uses = {f"{kind} {one}": one for kind in types for one in needed(kind, found)}
    assert [] == sorted(use for use, one in uses.items() if not matches(one, found))


@pytest.mark.parametrize("name", sorted({service(kind) for kind in TYPES}))
def test_a_service_has_no_other_actions(name: str) -> None:
    """Whatever none of its handlers names has a reason of its own."""
    kinds = [kind for kind in TYPES if service(kind) == name]
    handled = {action for kind in kinds for action in named(kind)}
    others = {one for one in listed(kinds[0]) if not any(matches(action, [one]) for action in handled)}
    reasons = BEYOND.get(name, {})

    assert [] == sorted(one for one in others if not matches(one, reasons))
    assert [] == [one for one in reasons if not any(matches(action, [one]) for action in others)]


@pytest.mark.parametrize("kind", TYPES)
def test_every_exception_is_one(kind: str) -> None:
    """An exception that no handler names any more, or that is listed after all, is removed."""
    left_out = {one for one in named(kind) if not matches(one, listed(kind))}

    assert [] == [one for one in unused(kind) if not any(matches(a, [one]) for a in left_out)]


def test_every_statement_is_for_a_service_of_the_template_or_for_a_command() -> None:
    """No statement remains for a type of resource that the template has no more."""
    known = ("Stack", "Sam", "Release", "Preflight", "Removal", *map(service, TYPES))

    assert [] == [one["Sid"] for one in STATEMENTS if not one["Sid"].startswith(known)]


@pytest.mark.parametrize("part", deployer.PARTS)
def test_each_policy_fits_the_limit_of_a_managed_policy(part: str) -> None:
    """AWS allows 6,144 characters, not counting white space. No policy allows all actions of a service."""
    found = deployer.policy(part)
    actions = [action for one in found["Statement"] for action in one["Action"]]

    assert len(json.dumps(found, separators=(",", ":"))) <= 6144
    assert [] == [action for action in actions if action.endswith(":*") or action == "*"]


def test_only_the_stacks_secrets_and_functions_are_allowed() -> None:
    """CloudFormation names a secret after its logical id, so the policies name each. Commands have a wildcard only where AWS supports no resource."""
    everything = [(action, one["Resource"]) for action, one in (*ALLOWED, *OTHERS)]
    secrets = [(action, place) for action, place in everything if action.startswith("secretsmanager:")]
    resources = Mode({"Network": "external"}).resources().items()
    made = [name for name, one in resources if one["Type"] == "AWS::SecretsManager::Secret"]

    assert {
        *(f"arn:aws:secretsmanager:*:*:secret:{name}-*" for name in made),
        "<TdApiKeySecretArn>",
        "<RedisUrlSecretArn>",
        "*",
    } == {place for _, place in secrets}
    assert {"secretsmanager:GetRandomPassword"} == {action for action, place in secrets if place == "*"}
    functions = {place for action, place in everything if re.match("lambda:.*Function", action)}
    assert {"arn:aws:lambda:*:*:function:STACK-*"} == functions
    anywhere = ("cloudwatch:", "lambda:List", "events:List")
    assert all(action.startswith(anywhere) for action, one in OTHERS if one["Resource"] == "*")


def test_roles_are_created_only_within_the_boundary() -> None:
    """Whoever may create a role without a boundary and pass it to a function is an administrator in disguise."""
    conditions = {action: one.get("Condition", {}) for action, one in ALLOWED if action.startswith("iam:")}
    bounded = {"StringEquals": {"iam:PermissionsBoundary": "<PermissionsBoundary>"}}
    passed = conditions["iam:PassRole"]["StringEquals"]

    for action in ("iam:CreateRole", "iam:PutRolePermissionsBoundary", "iam:PutRolePolicy"):
        assert bounded == conditions[action]
    assert {"iam:PassedToService": ["codedeploy.amazonaws.com", "lambda.amazonaws.com"]} == passed
    assert not conditions.keys() & {"iam:AttachRolePolicy", "iam:DeleteRolePermissionsBoundary"}


def test_the_placeholders_are_parameters() -> None:
    """The administrator finds each value among the stage's parameters."""
    placeholders = {part.partition(">")[0] for part in json.dumps([*STATEMENTS, *MORE]).split("<")[1:]}

    assert placeholders
    assert placeholders == sluice_template().known(dict.fromkeys(placeholders, "")).keys()
