"""What the SAM transform makes of the template, and what the linter says of both."""

import json
from pathlib import Path

from tests.support.sam import run, template, transformed


def test_the_transform_makes_the_event_sources_and_nothing_unexpected() -> None:
    """It adds mappings, schedules, and what a canary needs; every other resource stands in the template."""
    added = transformed()["Resources"].keys() - template()["Resources"].keys()
    (version,) = (name for name in added if name.startswith("IngestFunctionVersion"))

    assert added - {version} == {
        "WorkerFunctionStream",
        "DrainFunctionQueue",
        "RedriveFunctionEventInvokeConfig",
        "RedriveFunctionSchedule",
        "RedriveFunctionSchedulePermission",
        "RedriveFunctionSweep",
        "RedriveFunctionSweepPermission",
        "IngestFunctionAliaslive",
        "IngestFunctionDeploymentGroup",
        "ServerlessDeploymentApplication",
    }


def test_the_transformed_template_is_clean(tmp_path: Path) -> None:
    """cfn-lint has nothing to say about what CloudFormation is given."""
    path = tmp_path / "transformed.json"
    path.write_text(json.dumps(transformed()))
    assert run("cfn-lint", str(path)) == (0, "")


def test_the_template_is_valid() -> None:
    """`sam validate --lint` finds no fault."""
    status, said = run("sam", "validate", "--lint")
    assert status == 0, said
