"""`sluice doctor`: checks a stack from the outside in and reports problems."""

from uuid import uuid4

import click

from ops import known_accounts, screen
from ops.diagnosis.check_result import CheckResult
from ops.diagnosis.doctor_checks import TEST_TABLE, Doctor, measured
from ops.diagnosis.measurement import AGES, Measurement
from ops.failure import UNFINISHED, Failure
from ops.moment import LENGTH
from ops.stack import Stack, works_on_stack
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
    yes: bool,
    as_json: bool,
) -> None:
    """Check a stack from the outside in, and report problems with their fixes.

    If it finds none, it sends one test event through the stack and looks for it in the ledger. --measure writes test rows to
    Treasure Data, after asking for confirmation.
    """
    doctor = Doctor(stack, account)
    found: list[CheckResult] = []

    def report(finding: CheckResult) -> None:
        found.append(finding)
        if not as_json:
            finding.show()

    for finding in doctor.findings():
        report(finding)
    if not no_event and all(finding.state != "fault" for finding in found):
        report(doctor.send_test_event())
    if measure:
        for finding in _measure(stack, doctor, up_to, yes=yes):
            report(finding)
    faults = sum(finding.state == "fault" for finding in found)
    if as_json:
        findings = [{"what": one.what, "state": one.state, "said": one.said} for one in found]
        screen.show_json({"healthy": not faults, "findings": findings})
    else:
        screen.say(
            f"\n{screen.plural(faults, 'fault')}." if faults else "\nNo faults.",
            "bold red" if faults else "green",
        )
    ctx.exit(UNFINISHED if faults else 0)


def _measure(stack: Stack, doctor: Doctor, up_to: float, *, yes: bool) -> list[CheckResult]:
    """Measure, and return the results; after Ctrl-C, those known so far."""
    if doctor.account is None:
        raise Failure("a measurement needs a database, and no account is active: apply accounts first")
    if not doctor.assumed:
        raise Failure(
            "a measurement is compared with the limits that the worker assumes, and AdminFunction did not name them: "
            "fix the faults above first"
        )
    database = known_accounts.one(stack, doctor.account).database
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
    return measured(measurement.found, doctor.assumed)
