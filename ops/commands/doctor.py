"""`sluice doctor`: the state of a stack as a list of checks, a test event, and measurements and repairs that ask first."""

from uuid import uuid4

import click

from ops import known_accounts, screen
from ops.books.ledger_repair import LedgerRepair
from ops.failure import FORESEEN, UNFINISHED, Failure, explained
from ops.moment import LENGTH
from ops.stack import Stack, works_on_stack
from ops.state.checks import TEST_TABLE, Checks
from ops.state.doctor_event import DoctorEvent
from ops.state.faults import findings
from ops.state.finding import Finding, ok, unknown
from ops.state.measurement import AGES, Measurement, measured
from ops.state.stack_state import StackState, StateReader
from ops.state.state_document import findings_document
from shared.clock import SystemClock
from worker.probe_rows import MEASURE_TABLE

account_option = click.option(
    "--account", help="Account whose write key to use. Default: the first active account."
)


@click.command("doctor")
@works_on_stack
@account_option
@click.option("--no-event", is_flag=True, help=f"Do not send a test event to the table {TEST_TABLE}.")
@click.option(
    "--measure",
    is_flag=True,
    help="Measure how long Treasure Data remembers an id and how soon queries see new rows.",
)
@click.option(
    "--up-to",
    type=LENGTH,
    default=5400.0,
    show_default="90min",
    help="With --measure: the longest interval to try. The measurement takes this long.",
)
@click.option(
    "--repair-ledger",
    is_flag=True,
    help="Compare a ledger that was restored from a backup with the bucket, and let the stack go on.",
)
@screen.yes_option
@screen.json_option
@click.pass_context
def command(
    ctx: click.Context,
    stack: Stack,
    *,
    account: str | None,
    no_event: bool,
    measure: bool,
    up_to: float,
    repair_ledger: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Check a stack from the outside in, and report problems with their fixes. `sluice status` reports the same ones.

    If it finds none but dead rows, it sends one test event through the stack and looks for it in the ledger. --measure writes test rows to
    Treasure Data, after asking for confirmation; --repair-ledger asks too.
    """
    checks = Checks(stack, account)
    found = findings(_state(StateReader(stack, checks=checks)), stack.option)
    if not no_event and all(one.state != "fault" or one.fault == "dead" for one in found):
        found.append(checks.against_event() or DoctorEvent(stack, checks.key).send())
    if not as_json:
        for one in sorted(found, key=lambda one: -one.rank):
            one.show()
    later = _repair(stack, checks, found, yes=yes) if repair_ledger else []
    later += _measure(stack, checks, up_to, yes=yes) if measure else []
    for one in () if as_json else later:
        one.show()
    found = [one for one in found if not (repair_ledger and one.fault == "ledger_restored")] + later
    faults = sum(one.state == "fault" for one in found)
    if as_json:
        screen.show_json(
            {"healthy": all(one.is_sound for one in found), "findings": findings_document(found)}
        )
    else:
        waiting = "" if all(one.is_sound or one.state == "fault" for one in found) else " Something waits."
        said = screen.plural(faults, "fault") if faults else "No faults"
        screen.say(f"\n{said}.{waiting}", "bold red" if faults else "yellow" if waiting else "green")
    ctx.exit(0 if all(one.is_sound for one in found) else UNFINISHED)


def _state(reader: StateReader) -> StackState:
    """Return the state; if it cannot be read, what the checks found."""
    try:
        return reader.state(None, None, balanced=False)
    except FORESEEN as error:
        checks = [*reader.check(), unknown("rows", explained(error).message)]
        return StackState(checks=checks)


def _assumed(checks: Checks) -> dict[str, int]:
    if not checks.assumed:
        raise Failure(
            "AdminFunction did not name the limits of Treasure Data that the worker assumes: fix the faults above first"
        )
    return checks.assumed


def _repair(stack: Stack, checks: Checks, found: list[Finding], *, yes: bool) -> list[Finding]:
    """Compare a restored ledger with the bucket, and repair it."""
    if all(one.fault != "ledger_restored" for one in found):
        return [
            ok("ledger", "nothing to repair: it was not restored from a backup, or has been compared since")
        ]
    assumed = _assumed(checks)
    with screen.progress("Comparing the ledger with the bucket", hidden=False) as show:
        repair = LedgerRepair(
            stack.ledger(),
            stack.objects(),
            stack.bucket(),
            memory_seconds=assumed["memory_minutes"] * 60,
            clock=SystemClock(),
            tell=lambda hour: show(description=f"Repairing the ledger: {hour}"),
        )
        unknown = screen.plural(repair.unknown(), "object")
        screen.confirm(
            f"The bucket has {unknown} that the ledger does not know. This appends their spans, has the sender ask Treasure Data "
            "for everything that may have been sent since the backup, and lets the stack go on. Continue?",
            yes=yes,
        )
        done = repair.repair()
    said = (
        f"{screen.plural(done['spans'], 'span')} taken up, {screen.plural(done['aside'], 'object')} left aside; Treasure Data is asked "
        f"for {screen.plural(done['rows'], 'row')} in about half an hour. The functions go on within a minute"
    )
    return [ok("ledger", said)]


def _measure(stack: Stack, checks: Checks, up_to: float, *, yes: bool) -> list[Finding]:
    """Measure, and return the results; after Ctrl-C, those known so far."""
    if checks.account is None:
        raise Failure("a measurement needs a database, and no account is active: apply accounts first")
    assumed = _assumed(checks)
    database = known_accounts.one(stack, checks.account).database
    ages = [age for age in AGES if age <= up_to]
    screen.confirm(
        f"This writes up to {1 + 3 * len(ages)} test rows to {database}.{MEASURE_TABLE}. It takes {screen.lasting(up_to)} plus "
        "a few minutes. Continue?",
        yes=yes,
    )
    clock = SystemClock()
    began = clock.now()

    def show(text: str) -> None:
        click.echo(f"{screen.lasting(clock.now() - began):>12}  {text}", err=True)

    measurement = Measurement(stack.administer, clock, database, uuid4().hex[:12], show)
    try:
        measurement.run(ages)
    except KeyboardInterrupt:
        click.echo("Interrupted. Results so far:", err=True)
    return measured(measurement.found, assumed)
