"""What a team gets once its stack works: a write key with code to paste, the cost, and how to go on or remove everything."""

from collections.abc import Mapping
from typing import Any

import click

from ops import screen
from ops.commands import certify, cost, remove
from ops.commands.keys import issue
from ops.cost.estimate import Setup, Workload
from ops.cost.prices import REGIONS
from ops.cost.worst import Bounds, as_object
from ops.stack import Stack

EXPECTED = Workload(10e6, 10.0)
"""The traffic for which the cost is shown: events a month, and events per request."""


def monthly_cost(parameters: Mapping[str, str], region: str) -> dict[str, float] | None:
    """Return what a stack costs in dollars a month; None without prices for the region.

    `idle` is without traffic, `expected` with the traffic EXPECTED, and `worst` the most that one account's senders can cause.
    """
    if region not in REGIONS:
        return None
    setup = Setup.of(parameters)
    told = cost.tell(EXPECTED, setup, region)
    most = as_object(Bounds.of(parameters), setup, REGIONS[region])
    return {"idle": told["usd_idle"], "expected": told["usd"], "worst": round(most["usd_per_month"], 2)}


def cost_line(parameters: Mapping[str, str], region: str) -> str:
    """Return the monthly cost as a sentence."""
    found = monthly_cost(parameters, region)
    if found is None:
        return f"Cost: unknown for {region}. `sluice cost --events 10M --region us-east-1` shows that of another region."
    return (
        f"Cost: about ${found['idle']:,.0f} a month without traffic, ${found['expected']:,.0f} with {EXPECTED.events / 1e6:.0f} "
        f"million events a month, at most ${found['worst']:,.0f} whatever anyone sends. `sluice cost` explains each."
    )


def removal(stack: Stack) -> str:
    """Return the command that removes a stack with its data."""
    return removal_of(stack.name, str(stack.session.region_name))


def removal_of(stack: str, region: str) -> str:
    """Return the same for a stack that need not exist yet."""
    return f"sluice remove --stack {stack} --region {region}"


def show(stack: Stack, account: str, key: str) -> None:
    """Print the account's write key with code to paste, the cost, and the next commands."""
    screen.say("\nThe write key, and code to paste:\n")
    serial = key.split(".")[1].partition("-")[2]
    words = [account, *(["--serial", serial] if serial else [])]
    issue.command.main(words, standalone_mode=False, obj=stack)
    screen.say(f"\n{cost_line(stack.parameters, str(stack.session.region_name))}\n")
    screen.show_table(
        ("next", "command"),
        [
            ("how it is", f"sluice status {stack.option}"),
            ("events as they arrive", f"sluice tail {stack.option}"),
            ("test every promise here", f"sluice certify {stack.option}"),
            ("remove everything", removal(stack)),
        ],
    )


def document(stack: Stack, account: str, key: str) -> dict[str, Any]:
    """Return the same as a JSON object."""
    return {
        "stack": stack.name,
        "region": stack.session.region_name,
        "url": stack.outputs["ApiUrl"],
        "account": account,
        "key": key,
        "usd_per_month": monthly_cost(stack.parameters, str(stack.session.region_name)),
        "remove": removal(stack),
    }


def offer_certification(stack: Stack) -> None:
    """Offer to test every promise on this stage, and then to keep or remove it. Never for prod."""
    if stack.parameters.get("Stage") == "prod":
        return
    question = "\nTest every promise on this stage now? That takes about an hour and costs a few cents"
    if not click.confirm(question, default=False, err=True):
        return
    certify.command.main(["--yes", "--despite-traffic"], standalone_mode=False, obj=stack)
    if not click.confirm("Keep this stage", default=True, err=True):
        remove.command.main([], standalone_mode=False, obj=stack)
