"""The template's parameters and stages, and the variables that they become."""

import ast
import os
import re
import subprocess
import tomllib
from collections import Counter
from dataclasses import MISSING, fields

import pytest

from shared.settings import IngestSettings, ScalerSettings, WorkerSettings
from tests.support.modes import Mode
from tests.support.sam import FUNCTIONS, ROOT, properties, template

# Variables of every function; Powertools reads those that begin with its name.
COMMON = {"STAGE", "RES_OPTIONS"}
COMMON |= {"POWERTOOLS_SERVICE_NAME", "POWERTOOLS_METRICS_NAMESPACE", "POWERTOOLS_LOG_LEVEL"}
# The network's mode decides which of the two is set.
REDIS = {"REDIS_URL", "REDIS_URL_SECRET"}
CODE = ("benchmarks", "doubles", "ingest", "local", "ops", "release", "scaler", "shared", "worker")
CODE += ("tests/support",)
STAGES = ("dev", "stg", "prod")
OTHERS = {"IngestFunction": IngestSettings, "ScaleFunction": ScalerSettings}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_function_gets_its_settings(function: str) -> None:
    """Its variables are its declared settings, and AWS_ENDPOINT_URL, which only `sam local` sets."""
    variables = Mode({}).properties(function)["Environment"]["Variables"]
    read = fields(OTHERS.get(function, WorkerSettings))
    settings = {one.metadata["name"]: one.default for one in read if one.metadata}
    declared = properties(function)["Environment"]["Variables"]

    assert COMMON | settings.keys() == variables.keys()
    assert {"AWS_ENDPOINT_URL": {"Ref": "AWS::NoValue"}}.items() <= declared.items()
    assert function.removesuffix("Function").lower() == variables["POWERTOOLS_SERVICE_NAME"]
    assert {"Ref": "AWS::StackName"} == variables["POWERTOOLS_METRICS_NAMESPACE"]
    for name in settings.keys() - REDIS:
        if (default := settings[name]) is not MISSING:
            text = ",".join(default) if isinstance(default, tuple) else str(default)
            assert text == str(variables[name])
            assert name.title().replace("_", "") in template()["Parameters"]


def test_variables_are_named_in_one_place() -> None:
    """Only shared/settings.py and the template name a variable, except the one that AWS's own clients read."""
    of_functions = (properties(function)["Environment"]["Variables"] for function in FUNCTIONS)
    variables = {name for one in of_functions for name in one} - {"AWS_ENDPOINT_URL"}
    sources = [path for folder in CODE for path in (ROOT / folder).rglob("*.py")]
    named = Counter(
        node.value
        for source in sources
        if source != ROOT / "shared/settings.py"
        for node in ast.walk(ast.parse(source.read_text()))
        if isinstance(node, ast.Constant) and node.value in variables
    )

    assert [] == [name for name, times in named.items() if times > 1]


def test_every_parameter_is_explained_constrained_and_grouped() -> None:
    """The console shows parameters in their groups. Each has a default, and a constraint, because values can be wrong."""
    groups = template()["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]

    assert list(template()["Parameters"]) == [name for group in groups for name in group["Parameters"]]
    for name, parameter in template()["Parameters"].items():
        assert parameter.keys() >= {"Type", "Description", "Default"}, name
        assert parameter.keys() & {"AllowedValues", "AllowedPattern", "MinValue"}, name
    assert [] == [name for name, output in template()["Outputs"].items() if not output.get("Description")]


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


@pytest.mark.parametrize("stage", STAGES)
def test_stages_share_nothing(stage: str) -> None:
    """Without `--config-env`, sam uses `dev`; `sam build` reads the parameters of `sam deploy`, or the processor could be wrong."""
    config = tomllib.loads((ROOT / "samconfig.toml").read_text())
    given = config[stage]["global"]["parameters"] | config[stage]["deploy"]["parameters"]
    chosen = dict(pair.split("=") for pair in given["parameter_overrides"].split())

    assert all(config["default"][name] == config["dev"][name] for name in config["dev"])
    assert f"sluice-{stage}" == given["stack_name"]
    assert stage == chosen["Stage"]
    assert "CAPABILITY_IAM" == given["capabilities"]
    assert [] == [
        name
        for name, command in (*config[stage].items(), *config["default"].items())
        if name != "global" and "parameter_overrides" in command["parameters"]
    ]
    # A longer retention costs extra for every hour of a shard, and the archive keeps the records anyway.
    assert 24 == Mode(chosen).properties("Stream")["RetentionPeriodHours"]


@pytest.mark.parametrize("architecture", template()["Parameters"]["Architecture"]["AllowedValues"])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_function_is_built_for_the_processor_it_runs_on(function: str, architecture: str) -> None:
    """`sam build` runs make in the folder that the parameter selects, and make passes on the folder's name."""
    resource = template()["Resources"][function]
    folder = resource["Metadata"]["WorkingDirectory"]["Fn::Sub"].replace("${Architecture}", architecture)
    make = ["make", "--dry-run", "--makefile", str(ROOT / "lambda" / "Makefile"), f"build-{function}"]
    env = {"PATH": os.environ["PATH"], "ARTIFACTS_DIR": "/out"}
    done = subprocess.run(make, cwd=ROOT / folder, env=env, check=True, capture_output=True, text=True)

    assert "makefile" == resource["Metadata"]["BuildMethod"]
    assert "python3.13" == properties(function)["Runtime"]
    assert [{"Ref": "Architecture"}] == properties(function)["Architectures"]
    assert f"{architecture} " in re.search(r"release\.function_zip \w+ (\w+ )", done.stdout)[1]  # type: ignore[index]  # else it fails
