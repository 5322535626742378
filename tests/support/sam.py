"""The template as written, and as the SAM transform turns it into CloudFormation, without AWS."""

import copy
import os
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from samcli.yamlhelper import yaml_parse
from samtranslator.translator.transform import transform

from local import functions

ROOT = Path(__file__).parents[2]
FUNCTIONS = tuple(functions.FUNCTIONS)


@cache
def template() -> dict[str, Any]:
    """Return template.yaml, with short forms like `!Ref X` expanded to `{"Ref": "X"}`."""
    return _plain(yaml_parse((ROOT / "template.yaml").read_text()))


@cache
def transformed() -> dict[str, Any]:
    """Return the CloudFormation template that AWS would create from the packaged template."""
    packaged = copy.deepcopy(template())
    for resource in packaged["Resources"].values():
        if resource["Type"] == "AWS::Serverless::Function":
            resource["Properties"]["CodeUri"] = "s3://bucket/key"
    managed_policies = SimpleNamespace(load=dict)  # no role of ours has one, so IAM is not asked for them
    with patch.dict(os.environ, AWS_DEFAULT_REGION="us-east-1"):  # the transform needs any region
        return _plain(transform(packaged, {}, managed_policies))


def resources(kind: str) -> dict[str, Any]:
    """Return the transformed resources of a CloudFormation type by logical id."""
    return {name: found for name, found in transformed()["Resources"].items() if found["Type"] == kind}


def properties(name: str) -> dict[str, Any]:
    """Return the properties of a transformed resource."""
    return transformed()["Resources"][name]["Properties"]


def run(program: str, *arguments: str, environment: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Run a program of the virtual environment in the repository's folder. Return its exit code and output."""
    environment = environment or os.environ | {"AWS_DEFAULT_REGION": "us-east-1", "SAM_CLI_TELEMETRY": "0"}
    command = [str(Path(sys.executable).with_name(program)), *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, check=False, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(member) for key, member in value.items()}
    if isinstance(value, list):
        return [_plain(member) for member in value]
    return value
