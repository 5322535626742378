"""`sluice preflight`: checks what would make a deploy fail, before anything is created.

It runs with the deployer's credentials, and changes nothing.
"""

import os
import shlex
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import boto3
import click
import requests
from botocore.client import BaseClient
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from ops import screen
from ops.check_result import CheckResult, fault, unknown
from ops.failure import UNFINISHED, Failure, explained
from ops.preflight_domain import domain, sdk
from ops.preflight_quotas import concurrency, quotas, stream
from ops.preflight_references import network, secrets, topic
from ops.preflight_rights import rights
from ops.preflight_settings import build, parameters, region
from ops.preflight_stack import credentials, names, stack
from ops.preflight_survey import Deployment, Survey, World
from ops.preflight_td import RealSite, treasure_data
from shared.aws_clients import makes_client

_LOOKS = (stack, rights, names, concurrency, stream, quotas, network, domain, sdk, topic, secrets)


def findings(survey: Survey) -> Iterator[CheckResult]:
    """Run the checks and yield their results. Without credentials, checks of AWS are left out."""
    for settled in (parameters, region, build):
        yield from settled(survey)
    found = list(_guarded(credentials, survey))
    yield from found
    if found[0].state == "ok":
        for look in _LOOKS:
            yield from _guarded(look, survey)
    yield from _guarded(treasure_data, survey)


def _guarded(look: Callable[[Survey], Iterator[CheckResult]], survey: Survey) -> Iterator[CheckResult]:
    """Yield the results of a check. An error of AWS makes its result unknown, or a fault for `credentials`."""
    try:
        yield from look(survey)
    except (ClientError, BotoCoreError) as error:
        found = fault if look is credentials else unknown
        yield found(look.__name__.replace("_", " "), explained(error).message)


_DNS_TYPES = {"NS": 2, "CAA": 257}


def _lookup(name: str, kind: str) -> list[str] | None:
    """Look up DNS records over HTTPS, because Python's resolver supports only addresses. None: no answer."""
    try:
        answer = requests.get(
            "https://dns.google/resolve", params={"name": name, "type": str(_DNS_TYPES[kind])}, timeout=5
        ).json()
    except (requests.RequestException, ValueError):
        return None
    return [one["data"] for one in answer.get("Answer", ()) if one.get("type") == _DNS_TYPES[kind]]


def planned(config: Path, environment: str, region: str, stack: str, overrides: str) -> Deployment:
    """Return what `sam deploy` would deploy.

    Args:
        config: samconfig.toml; it need not exist.
        environment: its section, as for `--config-env`.
        region: the region; empty for the section's, or else the session's.
        stack: the stack's name; empty for the section's.
        overrides: parameters as for `--parameter-overrides`; empty for the section's.

    Raises:
        Failure: the file cannot be read, or names no stack.
    """
    found: dict[str, Any] = {}
    if config.exists():
        try:
            section = tomllib.loads(config.read_text()).get(environment, {})
        except tomllib.TOMLDecodeError as error:
            raise Failure(f"{config} is not TOML: {error}") from error
        for command in ("global", "deploy"):
            found |= section.get(command, {}).get("parameters", {})
    text = overrides or found.get("parameter_overrides", "")
    pairs = shlex.split(text if isinstance(text, str) else " ".join(text))
    given = dict(pair.partition("=")[::2] for pair in pairs)
    name = stack or found.get("stack_name", "")
    if not name:
        raise Failure(
            f"{config} has no stack_name in the section {environment}: add one, or use --stack-name"
        )
    where = region or found.get("region", "")
    return Deployment(name, where, given, config.parent / ".aws-sam" / "build")


@click.command("preflight")
@click.option(
    "--config-env", default="default", show_default=True, help="Section of samconfig.toml, as for sam."
)
@click.option(
    "--config-file",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("samconfig.toml"),
    show_default=True,
    help="The samconfig.toml to read.",
)
@click.option("--stack-name", default="", help="Name of the stack to create. Default: the section's.")
@click.option("--region", default="", help="Region to deploy to. Default: the section's, or your profile's.")
@click.option("--parameter-overrides", default="", help="Parameters, instead of the section's.")
@click.option(
    "--database", default="", help="Treasure Data database that the API key must be able to write to."
)
@screen.json_option
@click.pass_context
def command(
    ctx: click.Context,
    *,
    config_env: str,
    config_file: Path,
    stack_name: str,
    region: str,
    parameter_overrides: str,
    database: str,
    as_json: bool,
) -> None:
    """Check, before anything is created, what would make a deploy fail.

    This checks your permissions, quotas, names, the domain, the parameters and, with TD_API_KEY in the environment, the Treasure
    Data API key. It changes nothing.
    """
    plan = planned(config_file, config_env, region, stack_name, parameter_overrides)
    session = boto3.Session(region_name=plan.region or os.environ.get("AWS_REGION"))
    if not session.region_name:
        raise Failure("no region: pass --region or set AWS_REGION")
    plan = Deployment(plan.stack, session.region_name, plan.given, plan.build)
    config = Config(connect_timeout=5, read_timeout=20, retries={"mode": "standard", "total_max_attempts": 5})

    @makes_client
    def client(service: str, where: str) -> BaseClient:
        made: BaseClient = session.client(service, region_name=where, config=config)  # type: ignore[call-overload]  # the stub accepts only literals
        return made

    world = World(client, session.get_available_regions, _lookup, RealSite)
    found = []
    for finding in findings(Survey(plan, world, os.environ.get("TD_API_KEY", ""), database)):
        found.append(finding)
        if not as_json:
            finding.show()
    faults = sum(finding.state == "fault" for finding in found)
    if as_json:
        screen.show_json({"ready": not faults, "findings": [asdict(finding) for finding in found]})
    else:
        screen.say(f"\n{screen.plural(faults, 'fault')}." if faults else f"\n{plan.stack} can be deployed.")
    ctx.exit(UNFINISHED if faults else 0)
