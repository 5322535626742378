"""Evaluates the template as CloudFormation does for given parameters, without deploying it."""

import re
from collections.abc import Mapping
from typing import Any

from tests.support.sam import template, transformed

_ABSENT = object()
_NAME = re.compile(r"\$\{([^}!]+)\}")
_STORES = ("Kinesis::Stream", "SQS::Queue", "DynamoDB::Table", "S3::Bucket", "SecretsManager::Secret")
DATA = {f"AWS::{name}" for name in _STORES}
"""The types of resources that store data."""


class Mode:
    """The template with some parameters that differ from their defaults."""

    def __init__(self, parameters: Mapping[str, str]) -> None:
        defaults = {name: str(found["Default"]) for name, found in template()["Parameters"].items()}
        assert parameters.keys() <= defaults.keys()
        self.parameters = defaults | parameters
        self._conditions: Mapping[str, Any] = template()["Conditions"]

    def template(self) -> dict[str, Any]:
        """Return the transformed template for this choice, with parameters, conditions and rules resolved."""
        made = {"AWSTemplateFormatVersion": "2010-09-09"}
        return made | {section: self._section(transformed()[section]) for section in ("Resources", "Outputs")}

    def resources(self) -> dict[str, Any]:
        """Return the resources that are created, by logical id."""
        return self._section(transformed()["Resources"])

    def outputs(self) -> dict[str, Any]:
        """Return the outputs, by name."""
        return self._section(transformed()["Outputs"])

    def properties(self, name: str) -> dict[str, Any]:
        """Return a resource's properties."""
        return self.resources()[name]["Properties"]

    def _section(self, found: Mapping[str, Any]) -> dict[str, Any]:
        return {
            name: self._decided({key: value for key, value in item.items() if key != "Condition"})
            for name, item in found.items()
            if "Condition" not in item or self._holds({"Condition": item["Condition"]})
        }

    def _holds(self, condition: Any) -> bool:
        match condition:
            case {"Condition": name}:
                return self._holds(self._conditions[name])
            case {"Fn::Equals": [left, right]}:
                return str(self._decided(left)) == str(self._decided(right))
            case {"Fn::Not": [one]}:
                return not self._holds(one)
            case {"Fn::And": list(several)}:
                return all(self._holds(one) for one in several)
            case {"Fn::Or": list(several)}:
                return any(self._holds(one) for one in several)
        raise AssertionError(f"unknown condition: {condition}")

    def _decided(self, value: Any) -> Any:
        match value:
            case {"Fn::If": [name, then, otherwise]}:
                return self._decided(then if self._holds({"Condition": name}) else otherwise)
            case {"Ref": "AWS::NoValue"}:
                return _ABSENT
            case {"Fn::FindInMap": [mapping, first, second]}:
                return template()["Mappings"][mapping][self._decided(first)][second]
            case {"Ref": name} if name in self.parameters:
                return self.parameters[name]
            case {"Fn::Sub": str(text)}:
                filled = _NAME.sub(lambda found: self.parameters.get(found[1], found[0]), text)
                return {"Fn::Sub": filled} if _NAME.search(filled) else filled
            case dict():
                members = {key: self._decided(member) for key, member in value.items()}
                return {key: member for key, member in members.items() if member is not _ABSENT}
            case list():
                return [found for member in value if (found := self._decided(member)) is not _ABSENT]
        return value
