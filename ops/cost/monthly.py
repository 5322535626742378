"""What a stack costs in a month: without traffic, with an expected one, and at most."""

from collections.abc import Mapping

from ops.cost.estimate import IDLE, Setup, Workload, total
from ops.cost.prices import REGIONS
from ops.cost.worst import as_object

EXPECTED = Workload(10e6, 10.0, batch_ids=True)
"""The traffic for which the cost is shown: events a month in batches, as the browser SDK sends them. docs/costs.md has the same figure."""


def monthly_cost(parameters: Mapping[str, str], region: str) -> dict[str, float] | None:
    """Return what a stack costs in dollars a month; None without prices for the region.

    `idle` is without traffic, `expected` with the traffic EXPECTED, and `worst` the most that one account's senders can cause.
    """
    if region not in REGIONS:
        return None
    setup, prices = Setup.of(parameters), REGIONS[region]
    return {
        "idle": round(total(IDLE, setup, prices), 2),
        "expected": round(total(EXPECTED, setup, prices), 2),
        "worst": as_object(setup, prices)["usd_per_month"],
    }


def cost_line(parameters: Mapping[str, str], region: str) -> str:
    """Return the monthly cost as a sentence."""
    found = monthly_cost(parameters, region)
    if found is None:
        return f"Unknown for {region}. `sluice cost --events 10M --region us-east-1` shows that of another region."
    return (
        f"About ${found['idle']:,.0f} a month without traffic, ${found['expected']:,.0f} with {EXPECTED.events / 1e6:.0f} "
        f"million events a month, at most ${found['worst']:,.0f} whatever anyone sends. `sluice cost` explains each."
    )
