"""`sluice cost`: estimates the monthly cost of a stack by component."""

import re
from dataclasses import asdict
from typing import Any

import click

from ops import screen
from ops.cost.estimate import IDLE, Setup, Workload, estimate, total
from ops.cost.prices import DEFAULT_REGION, READ_ON, REGIONS, unconfirmed
from ops.cost.worst import as_object
from ops.failure import Failure
from ops.stack import deployed
from ops.template import overrides_in, sluice_template

_UNITS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9}


def _count(text: str) -> float:
    """Parse a count such as 250000, 10M or 1.5G."""
    written = re.fullmatch(r"(\d+(?:\.\d+)?)([kKmMgG]?)", text)
    if written is None:
        raise click.BadParameter(f"{text!r} is not a count: use a number such as 250000, 10M or 1.5G")
    return float(written[1]) * _UNITS[written[2].lower()]


@click.command("cost")
@click.option("--events", type=_count, metavar="COUNT", help="Events per month, such as 250000 or 10M.")
@click.option(
    "--worst",
    "is_worst",
    is_flag=True,
    help="Instead, show the most that the stack can cost, whatever anyone sends.",
)
@click.option(
    "--accounts",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    metavar="N",
    help="With --worst: accounts with the default budget.",
)
@click.option(
    "--events-per-request",
    type=click.FloatRange(1, 500),
    default=10.0,
    show_default=True,
    metavar="N",
    help="Events per request: 1 for a pixel, more for batches from the browser SDK.",
)
@click.option(
    "--batch-ids",
    is_flag=True,
    help="Each request carries a batch id, as from the browser SDK and the server client.",
)
@click.option(
    "--stack",
    "name",
    metavar="NAME",
    help="Use the parameters and region of this deployed stack instead of the template's defaults.",
)
@click.option(
    "--region",
    metavar="REGION",
    help=f"AWS region of the prices and of the stack. Default: {DEFAULT_REGION}, or the stack's.",
)
@click.option(
    "--parameter-overrides",
    default="",
    help="Parameters of the template that differ, such as 'Network=external BatchWindowSeconds=60'.",
)
@screen.json_option
def command(
    *,
    events: float | None,
    is_worst: bool,
    accounts: int,
    events_per_request: float,
    batch_ids: bool,
    name: str | None,
    region: str | None,
    parameter_overrides: str,
    as_json: bool,
) -> None:
    """Estimate what a stack costs per month, by component and when idle.

    With --stack it reads the stack's parameters; otherwise it makes no network calls. Prices are in ops/cost/prices.csv with their
    sources, usage per event in ops/cost/estimate.py. Free tiers, discounts and taxes are not included.

    With --worst it shows the most that the stack can cost if somebody sends all that its limits let through, day and night.
    """
    if (events is None) is not is_worst:
        raise click.UsageError("use either --events or --worst")
    parameters = overrides_in(parameter_overrides)
    if objections := sluice_template().objections(parameters):
        raise Failure(" ".join(objections))
    if name is not None:
        stack = deployed(name, region)
        parameters = {**stack.parameters, **parameters}
        region = stack.session.region_name
    region = region or DEFAULT_REGION
    if region not in REGIONS:
        raise Failure(
            f"there are no prices for {region}: use --region with one of {', '.join(sorted(REGIONS))}"
        )
    setup = Setup.of(parameters)
    if events is None:
        most = as_object(setup, REGIONS[region], accounts)
        screen.show_json(most | {"region": region}) if as_json else _show_worst(most, region)
        return
    told = (
        tell(Workload(events, events_per_request, batch_ids=batch_ids), setup, region)
        if events
        else tell(IDLE, setup, region) | {"events": 0, "usd_per_million": None}
    )
    if as_json:
        screen.show_json(told)
    else:
        _show(told)


def tell(workload: Workload, setup: Setup, region: str) -> dict[str, Any]:
    """Return the whole estimate as a JSON object."""
    prices = REGIONS[region]
    month = total(workload, setup, prices)
    return {
        "events": workload.events,
        "events_per_request": workload.per_request,
        "batch_ids": workload.batch_ids,
        "region": region,
        "prices_read_on": READ_ON,
        "prices_not_confirmed": unconfirmed(region),
        "setup": asdict(setup),
        "components": [asdict(line) for line in estimate(workload, setup, prices)],
        "usd": round(month, 2),
        "usd_per_million": round(month / workload.events * 1e6, 3),
        "usd_idle": round(total(IDLE, setup, prices), 2),
    }


def _show_worst(most: dict[str, Any], region: str) -> None:
    screen.show_table(
        ("component", "USD per day", "usage"),
        [(line["component"], f"{line['usd_per_day']:8.2f}", line["of"]) for line in most["components"]],
    )
    screen.say(
        f"\nAt most ${most['usd_per_day']:,.2f} a day, ${most['usd_per_month']:,.2f} a month, if somebody sends "
        f"{most['requests_per_second']:,} requests a second (ThrottlingRate) day and night and spends the budget of "
        f"{screen.plural(most['accounts'], 'account')}. docs/costs.md explains the limits.\nPrices of {region} as of {READ_ON}."
    )


def _show(told: dict[str, Any]) -> None:
    requests = told["events"] / told["events_per_request"]
    each = f", ${told['usd_per_million']:,.2f} per million events" if told["events"] else ""
    screen.say(
        f"{told['events']:,.0f} events a month in {requests:,.0f} requests, {told['events_per_request']:g} events each "
        "(--events-per-request; a pixel sends 1):"
    )
    screen.show_table(
        ("component", "USD per month", "share", "usage"),
        [
            (
                line["component"],
                f"{line['usd']:8.2f}",
                f"{line['usd'] / told['usd'] * 100:4.0f} %",
                line["of"],
            )
            for line in told["components"]
        ],
    )
    screen.say(
        f"\n${told['usd']:,.2f} per month{each}. "
        f"Without traffic: ${told['usd_idle']:,.2f} per month. --parameter-overrides shows what a setting saves."
    )
    screen.say(f"Prices of {told['region']} as of {told['prices_read_on']}, without free tiers.")
    if told["prices_not_confirmed"]:
        screen.say(
            f"No source confirms these prices, which ops/cost/prices.csv describes: {', '.join(told['prices_not_confirmed'])}."
        )
    screen.say("docs/costs.md lists the sources of the prices.")
