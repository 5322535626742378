"""Values that the local stack reads from template.yaml."""

from typing import Any

import pytest

from ops.template import Template, TemplateError, sluice_template
from tests.support.sam import resources

TEXT = """
Parameters:
  Stage: {Type: String, Default: dev}
  Buckets: {Type: Number, Default: 16}
  SecretArn: {Type: String, Default: ''}
Conditions:
  IsProd: !Equals [!Ref Stage, prod]
  IsTest: !Not [!Condition IsProd]
  MakesSecret: !Equals [!Ref SecretArn, '']
  MakesTestSecret: !And [!Condition IsTest, !Condition MakesSecret]
  HasSixteen: !Equals [!Ref Buckets, 16]
Globals:
  Function:
    Environment:
      Variables: {STAGE: !Ref Stage, COMMON: both}
Resources:
  Stream:
    Type: AWS::Kinesis::Stream
    Properties: {}
  First:
    Type: AWS::Serverless::Function
    Properties:
      Environment:
        Variables: &first {OWN: first, COMMON: first}
  Second:
    Type: AWS::Serverless::Function
    Properties:
      Environment:
        Variables:
          <<: *first
          OWN: second
  Third:
    Type: AWS::Serverless::Function
    Properties: {}
"""


def resolved(value: str, **overrides: str) -> Any:
    """Return what a value written in YAML resolves to, in a stack with one stream."""
    template = Template(f"{TEXT}  Probe:\n    Type: Probe\n    Properties: {{value: {value}}}\n")
    values = template.parameters(overrides) | {"Stream": "events", "Stream.Arn": "arn:events"}
    return template.resolve(template.properties("Probe"), values)["value"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("text", "text"),
        ("!Ref Buckets", "16"),
        ("!Ref Stream", "events"),
        ("!GetAtt Stream.Arn", "arn:events"),
        ("!Sub '${Stage}: ${Stream.Arn}'", "dev: arn:events"),
        ("!If [IsProd, a, b]", "b"),
        ("!If [IsTest, a, b]", "a"),
        ("!If [HasSixteen, a, b]", "a"),
        ("!If [MakesTestSecret, !Ref Stream, !Ref SecretArn]", "events"),
        ("[1, !Ref AWS::NoValue, {a: !Ref Stage, b: !Ref AWS::NoValue}]", [1, {"a": "dev"}]),
    ],
)
def test_intrinsic_functions_are_resolved(value: str, expected: object) -> None:
    """References, conditions and substitutions give the same values as in CloudFormation, also with other parameters."""
    assert expected == resolved(value)
    assert ["prod", "a"] == resolved("[!Ref Stage, !If [IsProd, a, b]]", Stage="prod")


@pytest.mark.parametrize(
    ("value", "overrides", "message"),
    [
        ("!Ref Queue", {}, "no value for Queue"),
        ("!GetAtt Stream.Name", {}, "no value for Stream.Name"),
        ("!Sub '${Queue}'", {}, "no value for Queue"),
        ("!Join ['', [a]]", {}, "cannot resolve Fn::Join"),
        ("text", {"Bucket": "4"}, r"no such parameter: Bucket$"),
    ],
)
def test_unresolvable_values_are_reported(value: str, overrides: dict[str, str], message: str) -> None:
    """An unknown reference, function or parameter is an error, not an empty value."""
    with pytest.raises(TemplateError, match=message):
        resolved(value, **overrides)


def test_functions_inherit_global_variables() -> None:
    """A function's own variables take precedence over those in Globals."""
    template = Template(TEXT)

    assert ["First", "Second", "Third"] == template.logical_ids("AWS::Serverless::Function")
    assert {"STAGE": {"Ref": "Stage"}, "COMMON": "first", "OWN": "second"} == template.variables("Second")
    assert {"STAGE": {"Ref": "Stage"}, "COMMON": "both"} == template.variables("Third")


def test_alarms_of_a_stack_are_told_from_those_of_another() -> None:
    """A stack's name may be the beginning of another's."""
    ours, others = ("attention", "canary-7"), ("dev-attention", "dev-canary-7", "of-somebody-else")

    assert all(sluice_template().names_alarm("sluice", f"sluice-{name}") for name in ours)
    assert not any(sluice_template().names_alarm("sluice", f"sluice-{name}") for name in others)


def test_a_stack_s_schedules_are_the_rules_that_are_enabled() -> None:
    """SAM makes a rule of each. The one for watermarks is enabled only with a table to write them to."""
    every = sluice_template().schedules({"WatermarkTable": "sluice_watermarks"})

    assert resources("AWS::Events::Rule").keys() == every
    assert {"SenderFunctionWatermarks"} == every - sluice_template().schedules({})
