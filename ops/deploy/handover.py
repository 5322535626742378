"""What a team gets once its stack works: a write key with code to paste, the cost, and how to go on or remove everything."""

from typing import Any

import click

from ops import screen
from ops.commands import certify, keys, remove
from ops.cost.monthly import cost_line, monthly_cost
from ops.stack import Stack


def removal(stack: str, region: str) -> str:
    """Return the command that removes a stack with its data."""
    return f"sluice remove --stack {stack} --region {region}"


def show(stack: Stack, account: str, key: str) -> None:
    """Print the account's write key with code to paste, the cost, and the next commands."""
    region = str(stack.session.region_name)
    screen.say("\nThe write key, and code to paste:\n")
    serial = key.split(".")[1].partition("-")[2]
    words = [account, *(["--serial", serial] if serial else [])]
    keys.issue.main(words, standalone_mode=False, obj=stack)
    screen.say(f"\nCost: {cost_line(stack.parameters, region)}\n")
    screen.show_table(
        ("next", "command"),
        [
            ("how it is", f"sluice status {stack.option}"),
            ("events as they arrive", f"sluice tail {stack.option}"),
            ("test every promise here", f"sluice certify {stack.option}"),
            ("remove everything", removal(stack.name, region)),
        ],
    )


def document(stack: Stack, account: str, key: str) -> dict[str, Any]:
    """Return the same as a JSON object."""
    region = str(stack.session.region_name)
    return {
        "stack": stack.name,
        "region": region,
        "url": stack.outputs["ApiUrl"],
        "account": account,
        "key": key,
        "usd_per_month": monthly_cost(stack.parameters, region),
        "remove": removal(stack.name, region),
    }


def offer_certification(stack: Stack) -> None:
    """Offer to test every promise on this stage, and then to keep or remove it. Never for prod."""
    if stack.parameters.get("Stage") == "prod":
        return
    question = (
        "\nTest every promise on this stage now? That takes about an hour and a half and costs a few cents"
    )
    if not click.confirm(question, default=False, err=True):
        return
    certify.command.main(["--yes", "--despite-traffic"], standalone_mode=False, obj=stack)
    if not click.confirm("Keep this stage", default=True, err=True):
        remove.command.main([], standalone_mode=False, obj=stack)
