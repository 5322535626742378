"""The deploy policies, compared with what AWS's own schemas say that CloudFormation does for each type of resource."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from ops.deploy import deployer
from ops.template import sluice_template
from tests.support.handlers import BEYOND, UNUSED, matches, named, needed
from tests.support.modes import Mode


def listed(kind: str) -> set[str]:
    """Return the actions that are listed for a type."""
    return {action for actions in deployer.TYPES[kind].values() for action in actions}


@pytest.mark.parametrize("kind", deployer.TYPES)
def test_a_type_has_the_actions_of_its_handlers(kind: str) -> None:
    """CloudFormation calls the handlers with the deployer's permissions; one that is missing fails the deploy."""
    found = listed(kind)

    assert [] == sorted(one for one in needed(kind, found) if not matches(one, found))


@pytest.mark.parametrize("kind", deployer.TYPES)
def test_a_type_has_no_other_actions(kind: str) -> None:
    """Whatever none of its handlers names has a reason of its own."""
    others = {one for one in listed(kind) if not any(matches(action, [one]) for action in named(kind))}

    assert [] == sorted(one for one in others if not matches(one, BEYOND.get(kind, {})))


@pytest.mark.parametrize("kind", deployer.TYPES)
def test_every_exception_is_one(kind: str) -> None:
    """An exception that no handler names any more, or that is listed after all, is removed."""
    left_out = {one for one in named(kind) if not matches(one, listed(kind))}
    others = {one for one in listed(kind) if not any(matches(action, [one]) for action in named(kind))}

    assert [] == [
        one for one in UNUSED.get(kind, {}) if not any(matches(action, [one]) for action in left_out)
    ]
    assert [] == [one for one in BEYOND.get(kind, {}) if not any(matches(action, [one]) for action in others)]


def test_the_policies_cover_the_template_s_resource_types_and_no_others() -> None:
    """Each type of resource in the template has its actions. No action is for any other type."""
    types = set(sluice_template().all_types())

    assert types == deployer.TYPES.keys()
    assert types == {name for names in deployer.PARTS.values() for name in names}
    assert {
        action
        for part in deployer.PARTS
        for one in deployer.policy(part)["Statement"]
        for action in one["Action"]
    } >= {action for actions in deployer.needs(types).values() for action in actions}


@pytest.mark.parametrize("part", deployer.PARTS)
def test_each_policy_fits_the_limit_of_a_managed_policy(part: str) -> None:
    """AWS allows 6,144 characters, not counting white space. No policy allows all actions of a service."""
    found = deployer.policy(part)
    actions = [action for one in found["Statement"] for action in one["Action"]]

    assert len(json.dumps(found, separators=(",", ":"))) <= 6144
    assert [] == [action for action in actions if action.endswith(":*") or action == "*"]


def _statements() -> list[dict[str, Any]]:
    return [one for part in deployer.PARTS for one in deployer.policy(part)["Statement"]]


def test_only_the_stacks_secrets_and_the_given_ones_are_allowed() -> None:
    """CloudFormation names a secret after its logical id, so the policies name each of them."""
    places = {
        one["Resource"]
        for one in _statements()
        if any(action.startswith("secretsmanager:") for action in one["Action"])
    }
    made = [name for name, kind in _all_resources().items() if kind == "AWS::SecretsManager::Secret"]

    assert {
        *(f"arn:aws:secretsmanager:*:*:secret:{name}-*" for name in made),
        "<TdApiKeySecretArn>",
        "<RedisUrlSecretArn>",
        "*",
    } == places
    assert {"secretsmanager:GetRandomPassword"} == {
        action
        for one in _statements()
        for action in one["Action"]
        if one["Resource"] == "*" and action.startswith("secretsmanager:")
    }


def _all_resources() -> Mapping[str, str]:
    mode = Mode({"Network": "external"}).resources()
    return {name: resource["Type"] for name, resource in mode.items()}


def test_roles_are_created_only_within_the_boundary() -> None:
    """Whoever may create a role without a boundary and pass it to a function is an administrator in disguise."""
    conditions = {
        action: one.get("Condition", {})
        for one in _statements()
        for action in one["Action"]
        if action.startswith("iam:")
    }
    bounded = {"StringEquals": {"iam:PermissionsBoundary": "<PermissionsBoundary>"}}
    passed = conditions["iam:PassRole"]["StringEquals"]

    assert [bounded] * 3 == [
        conditions[action]
        for action in ("iam:CreateRole", "iam:PutRolePermissionsBoundary", "iam:PutRolePolicy")
    ]
    assert {"iam:PassedToService": ["codedeploy.amazonaws.com", "lambda.amazonaws.com"]} == passed
    assert not conditions.keys() & {"iam:AttachRolePolicy", "iam:DeleteRolePermissionsBoundary"}


def test_the_placeholders_are_parameters() -> None:
    """The administrator finds each value among the stage's parameters."""
    texts = json.dumps([deployer.policy(part) for part in deployer.PARTS])
    placeholders = {part.partition(">")[0] for part in texts.split("<")[1:]}

    assert placeholders
    assert [] == [name for name in placeholders if not sluice_template().has_parameter(name)]
