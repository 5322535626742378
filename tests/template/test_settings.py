"""The template sets every variable that the functions read, and no others."""

import ast
import os
import re
import subprocess
import tomllib
from collections import Counter
from dataclasses import MISSING, fields
from typing import Any

import pytest

from shared.settings import IngestSettings, ScalerSettings, WorkerSettings
from tests.support.modes import Mode
from tests.support.sam import FUNCTIONS, ROOT, properties, template

# Variables of every function; Powertools reads those that begin with its name.
COMMON = {
    "STAGE",
    "RES_OPTIONS",
    "POWERTOOLS_SERVICE_NAME",
    "POWERTOOLS_METRICS_NAMESPACE",
    "POWERTOOLS_LOG_LEVEL",
}
# How the worker splits and parallelizes its uploads: set in code, not by a parameter.
INNER = {"UPLOAD_THREADS", "UPLOADS_PER_DATABASE", "CHUNK_MAX_ROWS", "CHUNK_MAX_BYTES"}
# The network's mode decides which of the two is set.
REDIS = {"REDIS_URL", "REDIS_URL_SECRET"}
CODE = (
    "benchmarks",
    "doubles",
    "ingest",
    "local",
    "ops",
    "release",
    "scaler",
    "shared",
    "tests/support",
    "worker",
)
READS = {
    "IngestFunction": IngestSettings,
    "WorkerFunction": WorkerSettings,
    "SenderFunction": WorkerSettings,
    "DrainFunction": WorkerSettings,
    "AdminFunction": WorkerSettings,
    "ScaleFunction": ScalerSettings,
}


def _settings(function: str) -> dict[str, Any]:
    return {setting.metadata["name"]: setting.default for setting in fields(READS[function])}


def _variables(function: str) -> dict[str, Any]:
    return dict(properties(function)["Environment"]["Variables"])


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_function_gets_its_settings(function: str) -> None:
    """Its variables are its declared settings, except those that are set only in code."""
    variables = Mode({}).properties(function)["Environment"]["Variables"]

    assert COMMON | (_settings(function).keys() - INNER) == variables.keys()


@pytest.mark.parametrize("function", FUNCTIONS)
def test_sam_local_can_point_a_function_at_another_aws(function: str) -> None:
    """`sam local` sets only variables that the template has; a deployed function does not have this one."""
    assert {"Ref": "AWS::NoValue"} == _variables(function)["AWS_ENDPOINT_URL"]
    assert "AWS_ENDPOINT_URL" not in Mode({}).properties(function)["Environment"]["Variables"]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_parameter_has_the_default_of_its_setting(function: str) -> None:
    """A setting with a default has a parameter with the same default."""
    variables = Mode({}).properties(function)["Environment"]["Variables"]
    for name, default in _settings(function).items():
        if default is MISSING or name in INNER | REDIS:
            continue
        assert (",".join(default) if isinstance(default, tuple) else str(default)) == str(variables[name])
        assert name.title().replace("_", "") in template()["Parameters"]


def test_variables_are_named_in_one_place() -> None:
    """Only shared/settings.py and the template name a variable, except the one that AWS's own clients read."""
    variables = {name for function in FUNCTIONS for name in _variables(function)} - {"AWS_ENDPOINT_URL"}
    sources = [path for folder in CODE for path in (ROOT / folder).rglob("*.py")]
    named = Counter(
        node.value
        for source in sources
        if source != ROOT / "shared/settings.py"
        for node in ast.walk(ast.parse(source.read_text()))
        if isinstance(node, ast.Constant) and node.value in variables
    )

    assert [] == [name for name, times in named.items() if times > 1]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_function_names_itself(function: str) -> None:
    """Its logs and metrics have the function's name."""
    assert function.removesuffix("Function").lower() == _variables(function)["POWERTOOLS_SERVICE_NAME"]
    assert {"Ref": "AWS::StackName"} == _variables(function)["POWERTOOLS_METRICS_NAMESPACE"]
    assert {"Ref": "Stage"} == _variables(function)["STAGE"]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_functions_run_python_3_13_on_the_chosen_architecture(function: str) -> None:
    """The default is arm64, and the Makefile builds the function."""
    assert "python3.13" == properties(function)["Runtime"]
    assert [{"Ref": "Architecture"}] == properties(function)["Architectures"]
    assert "arm64" == template()["Parameters"]["Architecture"]["Default"]
    assert "makefile" == template()["Resources"][function]["Metadata"]["BuildMethod"]


def test_every_parameter_has_a_description_and_a_default() -> None:
    """Each also has a constraint, because values can be wrong."""
    for name, parameter in template()["Parameters"].items():
        assert parameter.keys() >= {"Type", "Description", "Default"}, name
        assert parameter.keys() & {"AllowedValues", "AllowedPattern", "MinValue"}, name


def test_every_parameter_is_used_and_grouped() -> None:
    """Every parameter has an effect and is in a group of the console."""
    text = (ROOT / "template.yaml").read_text()
    groups = template()["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
    unused = [
        name for name in template()["Parameters"] if not re.search(rf"!Ref {name}\b|\$\{{{name}\}}", text)
    ]

    assert [] == unused
    assert list(template()["Parameters"]) == [name for group in groups for name in group["Parameters"]]


@pytest.mark.parametrize(
    ("origins", "allowed"),
    [
        ("*", True),
        ("https://www.example.com", True),
        ("https://a.example, http://localhost:8080", True),
        ("https://a.example/", False),
        ("a.example", False),
        ("*,https://a.example", False),
        ("", False),
    ],
)
def test_origins_are_validated_by_the_template(origins: str, allowed: bool) -> None:
    """A legal value is `*`, or a list of exact origins without a path."""
    pattern = template()["Parameters"]["AllowedOrigins"]["AllowedPattern"]

    assert allowed == bool(re.fullmatch(pattern, origins))


def _stages() -> dict[str, dict[str, Any]]:
    """Return the parameters that samconfig.toml passes to `sam deploy`, by stage."""
    config = tomllib.loads((ROOT / "samconfig.toml").read_text())
    return {
        name: section["global"]["parameters"] | section["deploy"]["parameters"]
        for name, section in config.items()
        if isinstance(section, dict)
    }


def _chosen(stage: str) -> dict[str, str]:
    return dict(pair.split("=") for pair in _stages()[stage]["parameter_overrides"].split())


def test_sam_deploy_defaults_to_dev() -> None:
    """Without `--config-env`, `sam deploy` uses the stage dev."""
    assert _stages()["dev"] == _stages()["default"]


@pytest.mark.parametrize("stage", ["dev", "stg", "prod"])
def test_stages_share_nothing(stage: str) -> None:
    """Each stage is a stack of its own, with valid parameters that set the stage."""
    deploy, chosen = _stages()[stage], _chosen(stage)

    assert f"sluice-{stage}" == deploy["stack_name"]
    assert stage == chosen["Stage"]
    assert [] == [
        name for name, value in chosen.items() if not _is_valid(template()["Parameters"][name], value)
    ]
    assert "CAPABILITY_IAM" == deploy["capabilities"]


def _is_valid(parameter: dict[str, Any], value: str) -> bool:
    if "AllowedValues" in parameter:
        return value in map(str, parameter["AllowedValues"])
    return int(value) >= parameter["MinValue"]


@pytest.mark.parametrize("stage", ["dev", "stg", "prod"])
def test_streams_keep_records_for_24_hours(stage: str) -> None:
    """A longer retention costs extra for every hour of a shard, and the archive keeps the records anyway."""
    assert 24 == Mode(_chosen(stage)).properties("Stream")["RetentionPeriodHours"]


@pytest.mark.parametrize("stage", ["default", "dev", "stg", "prod"])
def test_a_build_gets_the_parameters_of_its_deploy(stage: str) -> None:
    """`sam build` reads the same section as `sam deploy`: other parameters could build for the wrong processor."""
    config = tomllib.loads((ROOT / "samconfig.toml").read_text())[stage]

    assert "parameter_overrides" in config["global"]["parameters"]
    assert [] == [
        name
        for name, command in config.items()
        if name != "global" and "parameter_overrides" in command["parameters"]
    ]


@pytest.mark.parametrize("architecture", template()["Parameters"]["Architecture"]["AllowedValues"])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_function_is_built_for_the_processor_it_runs_on(function: str, architecture: str) -> None:
    """`sam build` runs make in the folder that the parameter selects, and make passes on the folder's name."""
    resource = template()["Resources"][function]
    folder = resource["Metadata"]["WorkingDirectory"]["Fn::Sub"].replace("${Architecture}", architecture)
    make = ["make", "--dry-run", "--makefile", str(ROOT / "lambda" / "Makefile"), f"build-{function}"]
    environment = {"PATH": os.environ["PATH"], "ARTIFACTS_DIR": "/out"}
    done = subprocess.run(
        make, cwd=ROOT / folder, env=environment, check=True, capture_output=True, text=True
    )

    assert [{"Ref": "Architecture"}] == properties(function)["Architectures"]
    assert f"{architecture} " in re.search(r"release\.function_zip \w+ (\w+ )", done.stdout)[1]  # type: ignore[index]  # else it fails


def test_outputs_have_descriptions() -> None:
    """Every output has a description for the console."""
    assert [] == [name for name, output in template()["Outputs"].items() if not output.get("Description")]
