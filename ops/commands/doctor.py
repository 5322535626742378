"""`sluice doctor`: the state of a stack as a list of checks, a test event, and a repair that asks first."""

import click

from ops import known_accounts, screen
from ops.books.ledger_repair import LedgerRepair
from ops.failure import FORESEEN, UNFINISHED, Failure, explained
from ops.stack import Stack, works_on_stack
from ops.state.checks import TEST_TABLE, Checks
from ops.state.doctor_event import send_test_event
from ops.state.faults import findings
from ops.state.finding import Finding, fault, ok, unknown
from ops.state.stack_state import StackState, StateReader
from ops.state.state_document import findings_document
from shared.clock import SystemClock

account_option = click.option(
    "--account", help="Account whose write key to use. Default: the first active account."
)


@click.command("doctor")
@works_on_stack
@account_option
@click.option("--no-event", is_flag=True, help=f"Do not send a test event to the table {TEST_TABLE}.")
@click.option(
    "--repair-ledger",
    is_flag=True,
    help="Compare a ledger that was restored from a backup with the bucket, and let the stack go on.",
)
@screen.yes_option
@screen.json_option
def command(
    stack: Stack, *, account: str | None, no_event: bool, repair_ledger: bool, yes: bool, as_json: bool
) -> None:
    """Check a stack from the outside in, and report problems with their fixes. `sluice status` reports the same ones.

    If it finds none but dead rows, it sends one test event through the stack and looks for it in the ledger. --repair-ledger asks before it
    changes anything.
    """
    known_accounts.check(stack, account)
    checks = Checks(stack, account)
    found = findings(_state(StateReader(stack, checks=checks)), stack.option)
    if not no_event and all(one.state not in ("fault", "holding") or one.fault == "dead" for one in found):
        found.append(checks.against_event() or send_test_event(stack, checks.key))
    if not as_json:
        for one in sorted(found, key=lambda one: -one.rank):
            one.show()
    later = _repair(stack, checks, found, yes=yes) if repair_ledger else []
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
    raise click.exceptions.Exit(0 if all(one.is_sound for one in found) else UNFINISHED)


def _state(reader: StateReader) -> StackState:
    """Return the state; if it cannot be read, what the checks found."""
    try:
        return reader.state()
    except FORESEEN as error:
        checks = [*reader.check(), unknown("rows", explained(error).message)]
        return StackState(checks=checks)


def _repair(stack: Stack, checks: Checks, found: list[Finding], *, yes: bool) -> list[Finding]:
    """Compare a restored ledger with the bucket, and repair it."""
    if all(one.fault != "ledger_restored" for one in found):
        return [
            ok("ledger", "nothing to repair: it was not restored from a backup, or has been compared since")
        ]
    if not checks.assumed:
        raise Failure(
            "AdminFunction did not name the limits of Treasure Data that the worker assumes: fix the faults above first"
        )
    with screen.progress("Comparing the ledger with the bucket", hidden=False) as show:
        repair = LedgerRepair(
            stack.ledger(),
            stack.objects(),
            stack.bucket(),
            memory_seconds=checks.assumed["memory_minutes"] * 60,
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
    if repair.unreadable:
        names = "; ".join(f"{name}: {why}" for name, why in repair.unreadable.items())
        return [
            fault(
                "ledger",
                f"{screen.plural(done['spans'], 'span')} taken up; the rest waits, and the functions hold, because of what cannot be "
                f"read: {names}",
                "Restore it, or move it out of spans/ to go on without it, and repeat the command. docs/operations.md#restore says what "
                "becomes of its rows.",
                fault="ledger_restored",
            )
        ]
    said = (
        f"{screen.plural(done['spans'], 'span')} taken up, {screen.plural(done['aside'], 'object')} left aside; Treasure Data is asked "
        f"for {screen.plural(done['rows'], 'row')} in about half an hour. The functions go on within a minute"
    )
    return [ok("ledger", said)]
