"""`sluice setup`: leads a stack to its first row, before and after it is deployed."""

import functools
import sys
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import click

from ops import screen
from ops.deploy import handover
from ops.deploy.preflight.findings import findings
from ops.deploy.preflight.planning import planned, surveyed
from ops.deploy.stack_setup import SetupAnswers, StackSetup, ask_key, read_key
from ops.failure import UNFINISHED
from ops.help_page import DEPLOY, IS_RELEASE
from ops.moment import LENGTH
from ops.stack import Stack, deployed
from ops.state.finding import Finding
from shared.clock import SystemClock


def answers_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that answer a setup's questions, and pass them as `answers`."""

    @click.option(
        "--td-key-file",
        "key_file",
        type=click.Path(path_type=Path, allow_dash=True),
        help="File with the Treasure Data API key; - is standard input. Default: the stack's key, or a question.",
    )
    @click.option(
        "--accounts",
        type=click.Path(path_type=Path, dir_okay=False),
        default=Path("accounts.yaml"),
        show_default=True,
        help="The accounts. If the file does not exist, it is written.",
    )
    @click.option("--account", default="", help="Account of the first row. Default: the first active one.")
    @click.option("--database", default="", help="Treasure Data database of that account.")
    @click.option(
        "--timeout",
        "patience",
        type=LENGTH,
        default=1800.0,
        show_default="30min",
        help="How long to wait until a query sees the first row.",
    )
    @functools.wraps(command)
    def wrapped(
        *args: Any,
        key_file: Path | None,
        accounts: Path,
        account: str,
        database: str,
        patience: float,
        **options: Any,
    ) -> Any:
        answers = SetupAnswers(key_file, accounts, account, database, options["yes"], patience)
        return command(*args, answers=answers, **options)

    return cast("Callable[..., Any]", wrapped)


stack_option = click.option(
    "--stack",
    "name",
    envvar="SLUICE_STACK",
    default="",
    metavar="NAME",
    help="Name of the stack. Default: the section's.",
)
"""The option that names a stack which need not exist yet."""


def plan_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that name a section of samconfig.toml."""
    environment = click.option(
        "--config-env",
        default="default",
        show_default=True,
        help="Section of samconfig.toml, as for sam. Without the file, the stage.",
    )
    file = click.option(
        "--config-file",
        type=click.Path(path_type=Path, dir_okay=False),
        default=Path("samconfig.toml"),
        show_default=True,
        help="The samconfig.toml to read.",
    )
    region = click.option(
        "--region", default="", help="AWS region. Default: the section's, or your profile's."
    )
    return environment(file(region(command)))


_NEXT = DEPLOY if IS_RELEASE else f"{DEPLOY} (in a clone, `.venv/bin/sam deploy`), then `sluice setup`"
"""What follows a check before a deploy. `sluice deploy` goes on with the setup itself."""


@click.command("setup")
@plan_options
@stack_option
@click.option(
    "--before",
    is_flag=True,
    help="Only check, before the stack is deployed, what would make the deploy fail.",
)
@answers_options
@screen.yes_option
@screen.json_option
@click.pass_context
def command(
    ctx: click.Context,
    *,
    config_env: str,
    config_file: Path,
    region: str,
    name: str,
    before: bool,
    answers: SetupAnswers,
    yes: bool,
    as_json: bool,
) -> None:
    """Lead a stack to its first row: store the Treasure Data key, apply accounts.yaml, send an event, find its row.

    It asks for what it needs, prints a write key with code to paste, and can be stopped and run again at any point. With --before
    it checks a deploy that is still to come, as `sluice preflight` does, and changes nothing.
    """
    plan = planned(config_file, config_env, region, name, "")
    if before:
        key = read_key(answers.key_file) if answers.key_file else ("" if yes else ask_key(yes=False))
        survey = surveyed(plan, key, answers.database)
        found = _shown(findings(survey), as_json=as_json)
        faults = sum(one.state == "fault" for one in found)
        line = handover.cost_line(survey.values, survey.plan.region)
        if as_json:
            usd = handover.monthly_cost(survey.values, survey.plan.region)
            screen.show_json(
                {"ready": not faults, "findings": [asdict(one) for one in found], "usd_per_month": usd}
            )
        elif faults:
            screen.say(f"\n{screen.plural(faults, 'fault')}. Repeat this command once they are repaired.")
        else:
            screen.say(f"\n{plan.stack} can be deployed. {line}\nNext: {_NEXT}.")
        ctx.exit(UNFINISHED if faults else 0)
    stack = deployed(plan.stack, plan.region or None)
    set_up(stack, answers, as_json=as_json)


def set_up(stack: Stack, answers: SetupAnswers, *, as_json: bool) -> None:
    """Set a stack up, and hand it over.

    Raises:
        Failure: a step failed.
    """
    clock = SystemClock()

    def tell(text: str) -> None:
        click.echo(text, err=True)

    setup = StackSetup(stack, answers, clock, tell)
    try:
        with redirect_stdout(sys.stderr if as_json else sys.stdout):
            found = _shown(setup.steps(), as_json=as_json)
    except KeyboardInterrupt:
        tell(f"Stopped. To continue: `sluice setup {stack.option}`")
        raise
    if as_json:
        steps = [asdict(one) for one in found]
        screen.show_json({"steps": steps} | handover.document(stack, setup.account, setup.key))
        return
    handover.show(stack, setup.account, setup.key)
    if not answers.yes and sys.stdin.isatty():
        handover.offer_certification(stack)


def _shown(results: Iterable[Finding], *, as_json: bool) -> list[Finding]:
    """Return results, and show each as soon as it is there."""
    found = []
    for one in results:
        found.append(one)
        if not as_json:
            one.show()
    return found
