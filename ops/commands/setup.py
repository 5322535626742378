"""`sluice setup`: leads a stack to its first row, before and after it is deployed."""

import functools
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import click

from ops import screen
from ops.commands.preflight import check, plan_options, show
from ops.deploy import handover
from ops.deploy.preflight.survey import Deployment
from ops.deploy.stack_setup import SetupAnswers, StackSetup, ask_key, read_key
from ops.moment import LENGTH
from ops.stack import Stack, deployed
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


@click.command("setup")
@plan_options
@click.option(
    "--before",
    is_flag=True,
    help="Only check, before the stack is deployed, what would make the deploy fail.",
)
@answers_options
@screen.yes_option
@screen.json_option
def command(
    *,
    plan: Deployment,
    before: bool,
    answers: SetupAnswers,
    yes: bool,
    as_json: bool,
) -> None:
    """Lead a stack to its first row: store the Treasure Data key, apply accounts.yaml, send an event, find its row.

    It asks for what it needs, prints a write key with code to paste, and can be stopped and run again at any point. With --before
    it checks a deploy that is still to come, as `sluice preflight` does, and changes nothing.
    """
    if before:
        key = read_key(answers.key_file) if answers.key_file else ("" if yes else ask_key(yes=False))
        raise click.exceptions.Exit(check(plan, key, answers.database, as_json=as_json))
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
            found = show(setup.steps(), as_json=as_json)
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
