"""Reads what the template's roles allow."""

import re
from collections.abc import Mapping
from typing import Any

from tests.support.modes import Mode

# Parameters for which no policy depends on the mode.
_PLAIN = {"Network": "external"}
_OF_LAMBDA = "network"
"""The policy with permissions that Lambda needs to join a network and that the function's own code is denied."""


def listed(value: Any) -> list[Any]:
    """Return a value that IAM accepts alone or in a list as a list."""
    return value if isinstance(value, list) else [value]


def named(resource: Any) -> str:
    """Return the logical id that an IAM resource refers to, with any suffix after its ARN."""
    match resource:
        case {"Fn::GetAtt": [name, "Arn" | "ARN" | "Id"]}:
            return str(name)
        case "*":
            return "*"
        case {"Fn::Sub": text}:
            return re.sub(r"\$\{(\w+)\.Arn\}", r"\1", text)
    raise AssertionError(f"unknown resource: {resource}")


def granted(role: str, parameters: Mapping[str, str] = _PLAIN) -> dict[str, set[str]]:
    """Return the actions that a role allows, by resource."""
    found: dict[str, set[str]] = {}
    for policy in Mode(parameters).properties(role)["Policies"]:
        if policy["PolicyName"] == _OF_LAMBDA:
            continue
        for statement in policy["PolicyDocument"]["Statement"]:
            assert "Allow" == statement["Effect"]
            for resource in listed(statement["Resource"]):
                found.setdefault(named(resource), set()).update(listed(statement["Action"]))
    return found
