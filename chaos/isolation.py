"""`make isolation`: measure promise 4, how much failing databases delay the rows of other accounts.

Lets 1 to 200 of 500 databases fail for six minutes, and exits with status 1 if the others' rows wait too long.
"""

import sys
from itertools import product

import click

from chaos.load import Case, percentile, simulate
from chaos.run import Pool

BOUND = 1.5
"""The factor by which the others' 99th percentile may grow while one database hangs."""
_ACCOUNTS, _EVERY, _HOURS = 500, 30, 0.1
_COUNTS, _KINDS = (1, 16, 64, 200), ("hanging", "broken", "slow")
_PARKING_SECONDS = 20.0


def case(kind: str, failing: int, accounts: int = _ACCOUNTS, hours: float = _HOURS) -> Case:
    """Return a load on two shards, a row of each account in half a minute, in which so many of their databases fail."""
    return Case(kind, accounts / _EVERY, accounts, hours, 2, failing, window=5)


@click.command(help=__doc__)
def main() -> None:
    """Measure the delays and print them."""
    cases = [case("", 0), *(case(kind, count) for count, kind in product(_COUNTS, _KINDS))]
    with Pool() as pool:
        found = list(pool.map(simulate, cases))
    bound = 2 * percentile(found[0].delays, 0.99) + _PARKING_SECONDS
    click.echo(f"p50 / p99 of the rows in working databases, of {_ACCOUNTS}; limit {bound:.1f} s")
    for one in found:
        p50, p99 = (f"{percentile(one.delays, share):.1f} s" for share in (0.5, 0.99))
        click.echo(f"{one.case.failing} {one.case.kind}: {p50} / {p99} {', '.join(one.broken)}")
    sys.exit(any(percentile(one.delays, 0.99) > bound or one.broken for one in found))
