"""`sluice preflight`: checks what would make a deploy fail, before anything is created.

It runs with the deployer's credentials, and changes nothing.
"""

import functools
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from ops import screen
from ops.cost.monthly import monthly_cost
from ops.deploy.preflight.findings import findings
from ops.deploy.preflight.planning import planned, surveyed
from ops.deploy.preflight.survey import Deployment
from ops.failure import UNFINISHED
from ops.help_page import DEPLOY, IS_RELEASE
from ops.state.finding import Finding


def plan_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that say what is deployed: a section of samconfig.toml, and a stack that need not exist yet.

    They are passed as `plan`, with --parameter-overrides if the command has it.
    """

    @click.option(
        "--config-env",
        default="default",
        show_default=True,
        help="Section of samconfig.toml, as for sam. Without the file, the stage.",
    )
    @click.option(
        "--config-file",
        type=click.Path(path_type=Path, dir_okay=False),
        default=Path("samconfig.toml"),
        show_default=True,
        help="The samconfig.toml to read.",
    )
    @click.option("--region", default="", help="AWS region. Default: the section's, or your profile's.")
    @click.option(
        "--stack", "name", default="", metavar="NAME", help="Name of the stack. Default: the section's."
    )
    @functools.wraps(command)
    def wrapped(
        *args: Any,
        config_env: str,
        config_file: Path,
        region: str,
        name: str,
        parameter_overrides: str = "",
        **options: Any,
    ) -> Any:
        plan = planned(config_file, config_env, region, name, parameter_overrides)
        return command(*args, plan=plan, **options)

    return wrapped


@click.command("preflight")
@plan_options
@click.option("--parameter-overrides", default="", help="Parameters, instead of the section's.")
@click.option(
    "--database", default="", help="Treasure Data database that the API key must be able to write to."
)
@screen.json_option
def command(*, plan: Deployment, database: str, as_json: bool) -> None:
    """Check, before anything is created, what would make a deploy fail.

    This checks your permissions, quotas, names, the domain, the parameters and, with TD_API_KEY in the environment, the Treasure
    Data API key. It changes nothing.
    """
    raise click.exceptions.Exit(check(plan, os.environ.get("TD_API_KEY", ""), database, as_json=as_json))


def check(plan: Deployment, td_api_key: str, database: str, *, as_json: bool) -> int:
    """Show what would make a deploy fail and what the stack costs, and return the exit code that says whether it can be deployed."""
    survey = surveyed(plan, td_api_key, database)
    found = show(findings(survey), as_json=as_json)
    faults = sum(one.state == "fault" for one in found)
    if as_json:
        usd = monthly_cost(survey.values, survey.plan.region)
        screen.show_json(
            {"ready": not faults, "findings": [asdict(one) for one in found], "usd_per_month": usd}
        )
    elif faults:
        screen.say(f"\n{repeat(faults)}")
    else:
        screen.say(f"\n{plan.stack} can be deployed.\nNext: {_next(survey.plan)}.")
    return UNFINISHED if faults else 0


def _next(plan: Deployment) -> str:
    """Return what follows a check before a deploy. `sluice deploy` goes on with the setup itself."""
    deploy = f"{DEPLOY} with the same options"
    if IS_RELEASE:
        return deploy
    return f"{deploy} (in a clone, `.venv/bin/sam deploy`; its `--stack-name` is `--stack` here), then `sluice setup --stack {plan.stack} --region {plan.region}`"


def repeat(faults: int) -> str:
    """Return what to say about a number of faults."""
    return f"{screen.plural(faults, 'fault')}. Repeat this command once they are repaired."


def show(results: Iterable[Finding], *, as_json: bool) -> list[Finding]:
    """Return results, and show each as soon as it is there."""
    found = []
    for one in results:
        found.append(one)
        if not as_json:
            one.show()
    return found
