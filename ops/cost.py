"""`sluice cost`: estimates the monthly cost of a stack by component, and how to reduce it."""

import math
import re
from dataclasses import asdict, replace
from typing import Any

import click

from ops import screen
from ops.estimate import SECRETS, Setup, Workload, estimate, levers, total
from ops.prices import DEFAULT_REGION, READ_ON, REGIONS, unconfirmed

_UNITS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9}
_TEMPLATE = Setup()
_VOLUMES = (1e5, 1e6, 1e7, 1e8, 1e9)
_BAR = 40
_LEAST_BAR = 0.1  # dollars per million at which a bar begins


class _Count(click.ParamType):
    """A count such as 250000, 10M or 1.5G."""

    name = "count"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return it as a number above 0."""
        if isinstance(value, float):
            return value
        written = re.fullmatch(r"(\d+(?:\.\d+)?)([kKmMgG]?)", str(value))
        if written is None or not float(written[1]):
            self.fail(f"{value!r} is no count such as 250000, 10M or 1.5G", param, ctx)
        return float(written[1]) * _UNITS[written[2].lower()]


def lean(setup: Setup) -> Setup:
    """Return the setup with every setting that makes it cheaper without another network."""
    return replace(setup, stream_mode="AUTO", retention_hours=24, window=60)


@click.command("cost")
@click.option(
    "--events", type=_Count(), required=True, metavar="COUNT", help="Events per month, such as 250000 or 10M."
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
    "--region",
    type=click.Choice(sorted(REGIONS)),
    default=DEFAULT_REGION,
    show_default=True,
    help="Region whose prices to use.",
)
@click.option(
    "--network",
    type=click.Choice(sorted(SECRETS)),
    default=_TEMPLATE.network,
    show_default=True,
    help="Where Redis runs (template parameter Network). Your own Redis is not included.",
)
@click.option(
    "--stream-mode",
    type=click.Choice(["AUTO", "PROVISIONED", "ON_DEMAND"]),
    default=_TEMPLATE.stream_mode,
    show_default=True,
    help="Template parameter StreamMode.",
)
@click.option(
    "--shards",
    type=click.IntRange(1),
    default=_TEMPLATE.shards,
    show_default=True,
    metavar="N",
    help="Template parameter ShardCount, for PROVISIONED. More shards are counted if the load needs them.",
)
@click.option(
    "--retention-hours",
    type=click.IntRange(24, 8760),
    default=_TEMPLATE.retention_hours,
    show_default=True,
    metavar="HOURS",
    help="Template parameter RetentionHours.",
)
@click.option(
    "--window",
    type=click.IntRange(0, 300),
    default=_TEMPLATE.window,
    show_default=True,
    metavar="SECONDS",
    help="Template parameter BatchWindowSeconds.",
)
@screen.json_option
def command(
    *,
    events: float,
    events_per_request: float,
    region: str,
    network: str,
    stream_mode: str,
    shards: int,
    retention_hours: int,
    window: int,
    as_json: bool,
) -> None:
    """Estimate what a stack costs per month, by component, and what would make it cheaper.

    It makes no network calls. Prices are in ops/prices.py with dates and sources, usage per event in ops/estimate.py.
    Free tiers, discounts and taxes are not included.
    """
    workload = Workload(events, events_per_request)
    setup = Setup(
        network=network,
        stream_mode=stream_mode,
        shards=shards,
        retention_hours=retention_hours,
        window=window,
    )
    told = tell(workload, setup, region)
    if as_json:
        screen.show_json(told)
    else:
        _show(told)


def tell(workload: Workload, setup: Setup, region: str) -> dict[str, Any]:
    """Return everything that there is to say."""
    prices = REGIONS[region]

    def ours(events: float) -> float:
        return total(replace(workload, events=events), setup, prices)

    month = ours(workload.events)
    return {
        "events": workload.events,
        "events_per_request": workload.per_request,
        "region": region,
        "prices_read_on": READ_ON,
        "prices_not_confirmed": unconfirmed(region),
        "setup": asdict(setup),
        "components": [asdict(line) for line in estimate(workload, setup, prices)],
        "usd": round(month, 2),
        "usd_per_million": round(month / workload.events * 1e6, 3),
        "levers": [asdict(lever) for lever in levers(workload, setup, prices)],
        "usd_lean": round(total(workload, lean(setup), prices), 2),
        "by_volume": [
            {"events": events, "usd_per_million": round(ours(events) / events * 1e6, 3)}
            for events in _VOLUMES
        ],
    }


def _show(told: dict[str, Any]) -> None:
    screen.show_table(
        ("component", "USD a month", "share", "usage"),
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
    screen.say(f"\n${told['usd']:,.2f} a month, ${told['usd_per_million']:,.2f} per million events.\n")
    _show_levers(told)
    top = max(volume["usd_per_million"] for volume in told["by_volume"])
    screen.say("USD per million events, by events a month:")
    for volume in told["by_volume"]:
        screen.say(
            f"{volume['events']:>15,.0f}  {bar(volume['usd_per_million'], top)} {volume['usd_per_million']:,.2f}"
        )
    screen.say(f"\nPrices of {told['region']} as of {told['prices_read_on']}, without free tiers.")
    if told["prices_not_confirmed"]:
        screen.say(f"Not confirmed: {', '.join(told['prices_not_confirmed'])}.")


def _show_levers(told: dict[str, Any]) -> None:
    if not told["levers"]:
        return
    biggest, *others = told["levers"]
    screen.say(f"The biggest lever: {_lever(biggest)}.")
    for lever in others:
        screen.say(f"             then: {_lever(lever)}.")
    screen.say(
        f"All settings above combined, with the same network and requests: ${told['usd_lean']:,.2f} a month.\n"
    )


def _lever(lever: dict[str, Any]) -> str:
    return f"{lever['setting']} saves ${lever['saves']:,.2f}, but {lever['price']}"


def bar(value: float, top: float) -> str:
    """Return a bar whose length is the logarithm of a price, from the least that is drawn to the top."""
    longest = math.log(max(top, 2 * _LEAST_BAR) / _LEAST_BAR)
    return "█" * max(1, round(_BAR * math.log(max(value, _LEAST_BAR) / _LEAST_BAR) / longest))
