"""Checks that need no AWS credentials: the parameters, the region and the build."""

import json
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

from ops.cost.monthly import cost_line
from ops.deploy.preflight.survey import Survey
from ops.state.finding import Finding, fault, ok, warning
from shared.settings import IngestSettings

_STACK_NAME = re.compile(r"[a-z][a-z0-9-]{0,32}")
_SERVICES = {
    *("ApiGatewayV2", "AppConfig", "CodeDeploy", "DynamoDB", "ElastiCache"),
    *("Events", "Kinesis", "Lambda", "SQS", "SecretsManager"),
}
"""The services that some regions lack."""
_MOST_VARIABLES = 4096
"""Bytes of all environment variables of a function, as JSON, that Lambda accepts."""
_NOT_A_PARAMETER = "x" * 40
"""Stands for the value of a variable that is not a parameter's, such as a queue's URL: they have so many bytes on average."""
_MACHINES = {62: "x86_64", 183: "arm64"}


def parameters(survey: Survey) -> Iterator[Finding]:
    """Check the parameters against the template, and against each other."""
    objections = survey.template.objections(survey.overrides) or [*_unreadable(survey), *_too_long(survey)]
    for said in objections:
        yield fault("parameters", said, "Correct parameter_overrides in samconfig.toml.")
    if not _STACK_NAME.fullmatch(survey.plan.stack):
        yield fault(
            "stack name",
            f"{survey.plan.stack} is not a valid stack name for Sluice.",
            "Use at most 33 lower-case letters, digits and hyphens, beginning with a letter.",
        )
    values = survey.values
    setting = {"PROVISIONED": "ShardCount", "AUTO": "MaxShards"}.get(values["StreamMode"], "")
    shards, workers = int(values.get(setting, "0")), int(values["WorkerConcurrency"])
    if 0 < workers < shards:
        yield fault(
            "parameters",
            f"WorkerConcurrency={workers} is less than {setting}={shards}, so some shards would have to wait.",
            f"Set WorkerConcurrency to 0 or to at least {shards}.",
        )
    elif not objections:
        yield ok("parameters")


def _unreadable(survey: Survey) -> Iterator[str]:
    """Yield which parameters have values with which the ingest could not start: the template's patterns do not find all of them."""
    variables = survey.template.variables("IngestFunction")
    for setting in fields(IngestSettings):
        match variables.get(setting.metadata["name"]):
            case {"Ref": str(name)} if text := survey.values.get(name):
                try:
                    setting.metadata["parse"](text)
                except ValueError as error:
                    yield f"{name} cannot be {text!r}: {error}."


def _too_long(survey: Survey) -> Iterator[str]:
    """Yield which parameter makes the ingest's environment variables too large: only it has lists of any length."""
    variables = survey.template.variables("IngestFunction")
    sources = {name: value["Ref"] for name, value in variables.items() if "Ref" in value}
    values = {name: survey.values.get(sources.get(name, ""), _NOT_A_PARAMETER) for name in variables}
    if (size := len(json.dumps(values, separators=(",", ":")))) > _MOST_VARIABLES:
        longest = max(sources, key=lambda name: len(values[name]))
        yield (
            f"{sources[longest]} is too long: the ingest's environment variables have about {size:,} bytes, and Lambda accepts "
            f"{_MOST_VARIABLES:,}."
        )


def cost(survey: Survey) -> Iterator[Finding]:
    """Say what the stack costs."""
    yield ok("cost", cost_line(survey.values, survey.plan.region))


def region(survey: Survey) -> Iterator[Finding]:
    """Check that the region has every service."""
    region = survey.plan.region
    services = {name.split("::")[1] for name in survey.types.values()} & _SERVICES
    missing = sorted(name for name in services if region not in survey.regions(name.lower()))
    if missing:
        yield fault(
            "region",
            f"{region} does not have {', '.join(missing)}.",
            "Check its name, or deploy to another region.",
        )
    else:
        yield ok("region", region)


def build(survey: Survey) -> Iterator[Finding]:
    """Check that the build is for the stack's architecture."""
    if survey.plan.build is None:
        return
    built = {_processor(path) for path in survey.plan.build.glob("*/**/*.so")} - {""}
    wanted = survey.values["Architecture"]
    if built - {wanted}:
        yield fault(
            "build",
            f"{survey.plan.build} is built for {', '.join(sorted(built))}, but the stack's Architecture is {wanted}.",
            "Run `sam build` with the same --config-env or --parameter-overrides as `sam deploy`.",
        )
    elif built:
        yield ok("build", f"for {wanted}")
    else:
        yield warning("build", "There is no build yet.", "Run `sam build` before `sam deploy`.")


def _processor(library: Path) -> str:
    """Return a shared library's architecture; empty if its ELF header names neither of Lambda's, or it has none."""
    with library.open("rb") as file:
        head = file.read(20)
    return _MACHINES.get(int.from_bytes(head[18:20], "little"), "") if head.startswith(b"\x7fELF") else ""
