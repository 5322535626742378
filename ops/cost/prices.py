"""AWS prices in US dollars on READ_ON, before taxes, discounts and free tiers.

They are in prices.csv, for the regions of Treasure Data's sites and more; a region without a value of its own has that of us-east-1.
AWS's pages show most prices only with JavaScript, so each price has, besides the authoritative page, the source where it was read. A
price without a source, estimated from the region's other prices, is not confirmed; on-demand streams outside us-east-1 and Tokyo
are assumed to differ as much as shard-hours.
"""

import csv
from collections.abc import Mapping
from pathlib import Path

READ_ON = "2026-11-25"
DEFAULT_REGION = "us-east-1"

with Path(__file__).with_suffix(".csv").open(newline="") as _file:
    TABLE: Mapping[str, Mapping[str, str]] = {row["price"]: row for row in csv.DictReader(_file)}
"""The rows of prices.csv by the name of the price that the estimate uses."""

_COLUMNS = list(next(iter(TABLE.values())))
REGIONS: Mapping[str, Mapping[str, float]] = {
    region: {name: float(row[region] or row[DEFAULT_REGION]) for name, row in TABLE.items()}
    for region in _COLUMNS[_COLUMNS.index(DEFAULT_REGION) :]
}
"""Prices by region and name."""

US_EAST_1 = REGIONS[DEFAULT_REGION]


def unconfirmed(region: str) -> list[str]:
    """Return the names of the region's prices that are not confirmed."""
    return [name for name, row in TABLE.items() if not row.get(f"seen in {region}", row["seen elsewhere"])]
