"""The result of the SAM transform, and the findings of the linters."""

from tests.support.sam import run, template, transformed


def test_the_transform_adds_only_expected_resources() -> None:
    """It adds mappings, schedules and the canary's resources; all others are in the template."""
    added = transformed()["Resources"].keys() - template()["Resources"].keys()
    (version,) = (name for name in added if name.startswith("IngestFunctionVersion"))

    assert added - {version} == {
        "WorkerFunctionStream",
        "DrainFunctionQueue",
        "SenderFunctionEventInvokeConfig",
        "SenderFunctionSchedule",
        "SenderFunctionSchedulePermission",
        "SenderFunctionSweep",
        "SenderFunctionSweepPermission",
        "SenderFunctionWatermarks",
        "SenderFunctionWatermarksPermission",
        "ScaleFunctionEventInvokeConfig",
        "ScaleFunctionSchedule",
        "ScaleFunctionSchedulePermission",
        "ScaleFunctionBacklog",
        "ScaleFunctionBacklogPermission",
        "IngestFunctionAliaslive",
        "IngestFunctionDeploymentGroup",
        "ServerlessDeploymentApplication",
    }


# The regions of Treasure Data's sites, in the order of the parameter TdSite, and five more.
REGIONS = (
    *("us-east-1", "ap-northeast-1", "eu-central-1", "ap-northeast-2", "ap-northeast-3"),
    *("us-west-2", "eu-west-1", "ap-southeast-1", "ap-southeast-2", "ca-central-1"),
)


def test_every_region_has_what_the_template_needs() -> None:
    """cfn-lint knows the resource types and values that each region supports."""
    assert run("cfn-lint", "template.yaml", "--regions", *REGIONS) == (0, "")
