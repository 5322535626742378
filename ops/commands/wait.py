"""`sluice wait`: waits until a table's rows are complete."""

import click

from ops import known_accounts, screen
from ops.failure import TIMED_OUT, UNFINISHED
from ops.moment import LENGTH, MOMENT
from ops.stack import Stack, works_on_stack
from ops.state.completeness import Wait, table_document
from shared.clock import SystemClock
from worker.watermark import Completeness


@click.command("wait")
@works_on_stack
@click.option("--account", required=True, help="The account.")
@click.option("--table", required=True, help="Its table.")
@click.option(
    "--until",
    type=MOMENT,
    required=True,
    help="Wait until all rows received before this time are in Treasure Data.",
)
@click.option(
    "--timeout",
    type=LENGTH,
    help="Give up after this time, but not before 5s, with exit code 4. Default: never.",
)
@screen.json_option
def command(
    stack: Stack, *, account: str, table: str, until: float, timeout: float | None, as_json: bool
) -> None:
    """Wait until a table is complete up to a time: all rows received before it are in Treasure Data.

    Exit codes: 0 complete, 3 complete except for dead rows, 4 not complete within --timeout. The time is when Sluice
    received the rows (the column received_at), because clients that were offline send events with older times.
    """
    if said := known_accounts.misnamed(account, table):
        raise click.UsageError(said)
    unknown = known_accounts.note(stack, account)
    clock = SystemClock()

    def tell(text: str) -> None:
        screen.note(f"Note: {text}")

    waiting = Wait(
        stack.watermarks(),
        clock,
        (lambda _: None) if as_json else tell,
        lambda: stack.invoke("SenderFunction", {"mark": True}),
        needs_mark=not stack.parameters.get("WatermarkTable"),
    )
    found = waiting.until(account, table, until, None if timeout is None else clock.now() + timeout)
    before = found.before(account, table)
    is_complete = before is not None and before >= until * 1000
    if is_complete and unknown and all(other != account for other, _ in found.tables):
        raise unknown
    dead = found.dead.get((account, table), 0)
    if as_json:
        screen.show_json({"complete": is_complete} | table_document(found, account, table))
    else:
        screen.say(_sentence(stack, found, account, table, until, is_complete=is_complete))
    raise click.exceptions.Exit(UNFINISHED if is_complete and dead else 0 if is_complete else TIMED_OUT)


def _sentence(
    stack: Stack, found: Completeness, account: str, table: str, until: float, *, is_complete: bool
) -> str:
    name, before = f"{account}.{table}", found.before(account, table)
    if not is_complete:
        known = f"only before {screen.utc(before / 1000)}" if before is not None else found.obstacle
        return f"{name} is not complete before {screen.utc(until)}: {known}."
    dead = found.dead.get((account, table), 0)
    if not dead:
        return f"{name} is complete before {screen.utc(until)}."
    rows = screen.plural(dead, "dead row")
    return f"{name} is complete before {screen.utc(until)}, except for {rows}: `sluice dead list {stack.option}` shows them."
