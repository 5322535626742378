"""What the SAM transform makes of the template, and what the linter says of both."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.support.sam import ROOT, template, transformed


def _run(program: str, *arguments: str) -> tuple[int, str]:
    environment = os.environ | {"AWS_DEFAULT_REGION": "us-east-1", "SAM_CLI_TELEMETRY": "0"}
    command = [str(Path(sys.executable).with_name(program)), *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, check=False, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def test_the_transform_makes_the_event_sources_and_nothing_unexpected() -> None:
    """The transform adds the two mappings and the schedule; every other resource stands in the template."""
    assert transformed()["Resources"].keys() - template()["Resources"].keys() == {
        "WorkerFunctionStream",
        "DrainFunctionQueue",
        "RedriveFunctionEventInvokeConfig",
        "RedriveFunctionSchedule",
        "RedriveFunctionSchedulePermission",
    }


def test_the_transformed_template_is_clean(tmp_path: Path) -> None:
    """cfn-lint has nothing to say about what CloudFormation is given."""
    path = tmp_path / "transformed.json"
    path.write_text(json.dumps(transformed()))
    assert _run("cfn-lint", str(path)) == (0, "")


def test_the_template_is_valid() -> None:
    """`sam validate --lint` finds no fault."""
    status, said = _run("sam", "validate", "--lint")
    assert status == 0, said
