"""Reads template.yaml, and resolves the intrinsic functions that the commands and the local stack need."""

import re
import shlex
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from ops.failure import Failure
from shared.errors import SluiceError
from shared.telemetry import SERVICE

_PLACEHOLDER = re.compile(r"\$\{([A-Za-z0-9:.]+)\}")
_NO_VALUE = object()
_FUNCTION = "AWS::Serverless::Function"
_FROM_FUNCTIONS = {
    "AWS::CodeDeploy::Application",
    "AWS::CodeDeploy::DeploymentGroup",
    "AWS::Events::Rule",
    "AWS::Lambda::Alias",
    "AWS::Lambda::EventInvokeConfig",
    "AWS::Lambda::EventSourceMapping",
    "AWS::Lambda::Function",
    "AWS::Lambda::Permission",
    "AWS::Lambda::Version",
}
"""The resource types that the SAM transform creates for functions with events, an alias and a canary."""


class TemplateError(SluiceError):
    """The template uses an unsupported function, or refers to an unknown value."""


class Template:
    """A SAM template: YAML with CloudFormation's short tags, such as `!Ref`."""

    def __init__(self, text: str) -> None:
        document = expanded(text)
        self._parameters: Mapping[str, Any] = document.get("Parameters", {})
        self._rules: Mapping[str, Any] = document.get("Rules", {})
        self.description: str = document.get("Description", "")
        self._conditions: Mapping[str, Any] = document.get("Conditions", {})
        self._mappings: Mapping[str, Any] = document.get("Mappings", {})
        self._globals: Mapping[str, Any] = document.get("Globals", {}).get("Function", {})
        self._resources: Mapping[str, Any] = document["Resources"]

    def parameters(self, overrides: Mapping[str, str]) -> dict[str, str]:
        """Return the value of each parameter: its default, unless it is overridden.

        Raises:
            TemplateError: the template has no such parameter.
        """
        if unknown := overrides.keys() - self._parameters.keys():
            raise TemplateError(f"no such parameter: {', '.join(sorted(unknown))}")
        defaults = {name: str(parameter["Default"]) for name, parameter in self._parameters.items()}
        return defaults | dict(overrides)

    def known(self, given: Mapping[str, str]) -> dict[str, str]:
        """Return those of the given values that are for parameters of the template."""
        return {name: value for name, value in given.items() if name in self._parameters}

    def mapping(self, name: str) -> Mapping[str, Mapping[str, str]]:
        """Return one of the template's mappings."""
        found: Mapping[str, Mapping[str, str]] = self._mappings[name]
        return found

    def objections(self, overrides: Mapping[str, str]) -> list[str]:
        """Return why CloudFormation would reject values of parameters, each reason as a sentence."""
        said = [
            f"The template has no parameter {name}."
            for name in sorted(overrides.keys() - self._parameters.keys())
        ]
        known = self.known(overrides)
        said += [
            f"{name} cannot be {value!r}: {wanted}."
            for name, value in known.items()
            if (wanted := _objection(self._parameters[name], value))
        ]
        values = self.parameters(known)
        said += [
            assertion["AssertDescription"]
            for rule in self._rules.values()
            if "RuleCondition" not in rule or self._holds(rule["RuleCondition"], values)
            for assertion in rule["Assertions"]
            if not self._holds(assertion["Assert"], values)
        ]
        return said

    def resources(self, values: Mapping[str, str]) -> dict[str, str]:
        """Return the type of each resource of a stack with these values of all parameters, by logical id.

        Each type that the SAM transform creates for functions appears once, under a made-up id.
        """
        made = {
            name: str(resource["Type"])
            for name, resource in self._resources.items()
            if "Condition" not in resource or self._holds({"Condition": resource["Condition"]}, values)
        }
        return {name: kind for name, kind in made.items() if kind != _FUNCTION} | {
            kind.replace("::", ""): kind for kind in _FROM_FUNCTIONS
        }

    def logical_ids(self, kind: str) -> list[str]:
        """Return the logical ids of the resources of a type, in the order of the template."""
        return [name for name, resource in self._resources.items() if resource["Type"] == kind]

    def names_alarm(self, stack: str, name: str) -> bool:
        """Return whether an alarm of a stack has this name. A stack's name may be the beginning of another stack's."""
        for alarm in self.logical_ids("AWS::CloudWatch::Alarm"):
            text = self.properties(alarm)["AlarmName"]["Fn::Sub"]
            parts = re.split(r"(\$\{[^}]*\})", text if isinstance(text, str) else text[0])
            known = {"${AWS::StackName}": re.escape(stack)}
            patterns = (known.get(one, ".+") if one.startswith("${") else re.escape(one) for one in parts)
            if re.fullmatch("".join(patterns), name):
                return True
        return False

    def schedules(self, given: Mapping[str, str]) -> set[str]:
        """Return the logical ids of the rules that run functions on schedule in a stack with these parameters."""
        values = self.parameters(self.known(given))
        return {
            f"{function}{name}"
            for function in self.logical_ids(_FUNCTION)
            for name, event in self.properties(function).get("Events", {}).items()
            if event["Type"] == "Schedule"
            and self.resolve(event["Properties"].get("State", "ENABLED"), values) != "DISABLED"
        }

    def services(self) -> dict[str, str]:
        """Return the functions' names in logs and metrics, by logical id."""
        return {name: self.variables(name)[SERVICE] for name in self.logical_ids(_FUNCTION)}

    def properties(self, resource: str) -> dict[str, Any]:
        """Return the properties of a resource, unresolved."""
        properties: dict[str, Any] = self._resources[resource]["Properties"]
        return properties

    def reserved_concurrency(self, function: str, values: Mapping[str, str]) -> int:
        """Return the reserved concurrency of a function in a stack with these parameters; 0 if there is none."""
        found = self.resolve(self.properties(function).get("ReservedConcurrentExecutions", 0), values)
        return 0 if found is _NO_VALUE else int(found)

    def variables(self, function: str) -> dict[str, Any]:
        """Return the environment variables of a function, including those of Globals, unresolved."""
        variables: dict[str, Any] = {}
        for properties in (self._globals, self.properties(function)):
            variables |= properties.get("Environment", {}).get("Variables", {})
        return variables

    def resolve(self, value: Any, values: Mapping[str, str]) -> Any:
        """Return a part of the template with its intrinsic functions replaced by their results.

        `values` has the results of `!Ref` and `!GetAtt` by their argument, such as `Stage`, `Stream` and `Stream.Arn`.

        Raises:
            TemplateError: it uses an unsupported function, or `values` lacks a name.
        """
        match value:
            case {"Ref": "AWS::NoValue"}:
                return _NO_VALUE
            case {"Ref": str(name)} | {"Fn::GetAtt": str(name)}:
                return _lookup(name, values)
            case {"Fn::Sub": str(text)}:
                return _PLACEHOLDER.sub(lambda placeholder: _lookup(placeholder[1], values), text)
            case {"Fn::FindInMap": [mapping, *keys]}:
                found: Any = self._mappings[mapping]
                for key in keys:
                    found = found[self.resolve(key, values)]
                return found
            case {"Fn::If": [condition, yes, no]}:
                holds = self._holds({"Condition": condition}, values)
                return self.resolve(yes if holds else no, values)
            case dict():
                if unknown := [key for key in value if key.startswith("Fn::")]:
                    raise TemplateError(f"cannot resolve {unknown[0]}")
                members = {key: self.resolve(member, values) for key, member in value.items()}
                return {key: member for key, member in members.items() if member is not _NO_VALUE}
            case list():
                items = [self.resolve(item, values) for item in value]
                return [item for item in items if item is not _NO_VALUE]
        return value

    def _holds(self, condition: Any, values: Mapping[str, str]) -> bool:
        match condition:
            case {"Condition": name}:
                return self._holds(self._conditions[name], values)
            case {"Fn::Equals": [left, right]}:
                return str(self.resolve(left, values)) == str(self.resolve(right, values))
            case {"Fn::Not": [negated]}:
                return not self._holds(negated, values)
            case {"Fn::And": list() as conditions}:
                return all(self._holds(one, values) for one in conditions)
            case {"Fn::Or": list() as conditions}:
                return any(self._holds(one, values) for one in conditions)
        raise TemplateError(f"cannot evaluate the condition {condition}")


def _objection(parameter: Mapping[str, Any], value: str) -> str:
    """Return which values a parameter allows; empty if it allows this one."""
    if "AllowedValues" in parameter:
        allowed = [str(one) for one in parameter["AllowedValues"]]
        return "" if value in allowed else f"use {', '.join(allowed)}"
    if parameter["Type"] == "Number":
        least, most = parameter.get("MinValue", float("-inf")), parameter.get("MaxValue", float("inf"))
        is_number = re.fullmatch(r"-?\d+", value) is not None
        return "" if is_number and least <= int(value) <= most else f"use a number from {least} to {most}"
    if "AllowedPattern" in parameter and not re.fullmatch(parameter["AllowedPattern"], value):
        return f"use {parameter['ConstraintDescription']}"
    return ""


def _lookup(name: str, values: Mapping[str, str]) -> str:
    if name not in values:
        raise TemplateError(f"the local stack has no value for {name}")
    return values[name]


class _Loader(yaml.CSafeLoader):
    """Turns short tags into long ones: `!Ref X` into `{"Ref": "X"}`, `!If [...]` into `{"Fn::If": [...]}`."""


def _long_form(loader: _Loader, tag: str, node: yaml.Node) -> dict[str, Any]:
    if isinstance(node, yaml.MappingNode):
        argument: Any = loader.construct_mapping(node, deep=True)
    elif isinstance(node, yaml.SequenceNode):
        argument = loader.construct_sequence(node, deep=True)
    else:
        argument = node.value
    return {tag if tag in {"Ref", "Condition"} else f"Fn::{tag}": argument}


_Loader.add_multi_constructor("!", _long_form)


def expanded(text: str) -> dict[str, Any]:
    """Parse a template, with CloudFormation's functions in their long form and YAML's anchors expanded."""
    document: dict[str, Any] = yaml.load(text, _Loader)  # noqa: S506 -- a safe loader with more tags
    return document


def overrides_in(text: str) -> dict[str, str]:
    """Return parameters as `sam` takes them, such as `Network=external ArchiveDays=2`.

    Raises:
        Failure: a quotation does not end.
    """
    try:
        return dict(pair.partition("=")[::2] for pair in shlex.split(text))
    except ValueError as error:
        raise Failure(f"the parameters {text!r} cannot be read: {error}") from error


@cache
def sluice_template() -> Template:
    """Return Sluice's own template."""
    return Template(Path(__file__).with_name("template.yaml").read_text())
