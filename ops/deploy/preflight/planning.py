"""What a deploy would do: the stack, region and parameters from samconfig.toml or the command line, and the world around it."""

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

from botocore.client import BaseClient
from botocore.config import Config

from ops.deploy.preflight.survey import Deployment, Survey
from ops.deploy.td_client import td_client
from ops.failure import Failure
from ops.help_page import IS_RELEASE
from ops.stack import session_in
from ops.template import overrides_in
from shared.aws_clients import makes_client


def planned(config: Path, environment: str, region: str, stack: str, overrides: str) -> Deployment:
    """Return what `sam deploy` would deploy with a section of samconfig.toml; without the file, it is the stage.

    Unless they are empty, the region, the stack's name and the parameters, as for `--parameter-overrides`, take the place of the section's.

    Raises:
        Failure: the file cannot be read, or names no stack.
    """
    found: dict[str, Any] = {}
    if not config.exists():
        stage = "dev" if environment == "default" else environment
        found = {"stack_name": f"sluice-{stage}", "parameter_overrides": f"Stage={stage}"}
    else:
        try:
            section = tomllib.loads(config.read_text()).get(environment, {})
        except tomllib.TOMLDecodeError as error:
            raise Failure(f"{config} is not TOML: {error}") from error
        for command in ("global", "deploy"):
            found |= section.get(command, {}).get("parameters", {})
    text = overrides or found.get("parameter_overrides", "")
    given = overrides_in(text if isinstance(text, str) else " ".join(text))
    name = stack or found.get("stack_name", "")
    if not name:
        raise Failure(
            f"{config} has no stack_name in the section {environment}: add one, or use `--stack NAME`"
        )
    where = region or found.get("region", "")
    build = None if IS_RELEASE else config.parent / ".aws-sam" / "build"
    return Deployment(name, where, given, build)


def surveyed(plan: Deployment, td_api_key: str, database: str) -> Survey:
    """Return the survey of a planned deployment with the caller's own credentials.

    Raises:
        Failure: no region is known.
    """
    from ops.deploy.preflight.dns_records import look_up  # noqa: PLC0415 -- dnspython would slow every command down

    session = session_in(plan.region)
    config = Config(connect_timeout=5, read_timeout=20, retries={"mode": "standard", "total_max_attempts": 5})

    @makes_client
    def client(service: str, where: str) -> BaseClient:
        made: BaseClient = session.client(service, region_name=where, config=config)  # type: ignore[call-overload]  # the stub accepts only literals
        return made

    return Survey(
        replace(plan, region=session.region_name),
        client,
        session.get_available_regions,
        look_up,
        td_client,
        td_api_key,
        database,
    )
