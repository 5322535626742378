"""`sluice preflight`: checks what would make a deploy fail, before anything is created.

It runs with the deployer's credentials, and changes nothing.
"""

import os
from dataclasses import asdict
from pathlib import Path

import click

from ops import screen
from ops.commands import setup
from ops.deploy.preflight.findings import findings
from ops.deploy.preflight.planning import planned, surveyed
from ops.failure import UNFINISHED


@click.command("preflight")
@setup.plan_options
@setup.stack_option
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
    region: str,
    name: str,
    parameter_overrides: str,
    database: str,
    as_json: bool,
) -> None:
    """Check, before anything is created, what would make a deploy fail.

    This checks your permissions, quotas, names, the domain, the parameters and, with TD_API_KEY in the environment, the Treasure
    Data API key. It changes nothing.
    """
    plan = planned(config_file, config_env, region, name, parameter_overrides)
    found = []
    for finding in findings(surveyed(plan, os.environ.get("TD_API_KEY", ""), database)):
        found.append(finding)
        if not as_json:
            finding.show()
    faults = sum(finding.state == "fault" for finding in found)
    if as_json:
        screen.show_json({"ready": not faults, "findings": [asdict(finding) for finding in found]})
    else:
        screen.say(f"\n{screen.plural(faults, 'fault')}." if faults else f"\n{plan.stack} can be deployed.")
    ctx.exit(UNFINISHED if faults else 0)
