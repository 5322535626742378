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
from ops.commands import keys
from ops.commands.preflight import check, plan_options, show
from ops.cost.monthly import cost_line, monthly_cost
from ops.deploy.preflight.planning import surveyed
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
        default="30min",
        show_default=True,
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
def command(*, plan: Deployment, before: bool, answers: SetupAnswers, yes: bool, as_json: bool) -> None:
    """Lead a stack to its first row: store the Treasure Data key, apply accounts.yaml, send an event, find its row.

    It asks for what it needs, prints a write key with code to paste, and can be stopped and run again at any point. With --before
    it checks a deploy that is still to come, as `sluice preflight` does, and changes nothing.
    """
    if before:
        key = read_key(answers.key_file) if answers.key_file else ""
        if not key and not yes:
            surveyed(plan, "", "").client("sts").get_caller_identity()  # who cannot go on is asked nothing
            key = ask_key(yes=False)
        raise click.exceptions.Exit(check(plan, key, answers.database, as_json=as_json))
    stack = deployed(plan.stack, plan.region or None)
    set_up(stack, answers, as_json=as_json)


def set_up(stack: Stack, answers: SetupAnswers, *, as_json: bool) -> None:
    """Set a stack up, and hand it over.

    Raises:
        Failure: a step failed.
    """
    setup = StackSetup(stack, answers, SystemClock())
    try:
        with redirect_stdout(sys.stderr if as_json else sys.stdout):
            found = show(setup.steps(), as_json=as_json)
    except KeyboardInterrupt:
        screen.note(f"Stopped. To continue: `sluice setup {stack.option}`")
        raise
    if as_json:
        screen.show_json({"steps": [asdict(one) for one in found]} | _document(setup))
        return
    _hand_over(setup)


def _document(setup: StackSetup) -> dict[str, Any]:
    """Return what a team gets once its stack works, as a JSON object."""
    stack, region = setup.stack, str(setup.stack.session.region_name)
    return {
        "stack": stack.name,
        "region": region,
        "url": stack.outputs["ApiUrl"],
        "account": setup.account,
        "key": setup.key,
        "usd_per_month": monthly_cost(stack.parameters, region),
        "remove": f"sluice remove {stack.option}",
    }


def _hand_over(setup: StackSetup) -> None:
    """Print the account's write key with code to paste, the cost, and the next commands."""
    stack, region = setup.stack, str(setup.stack.session.region_name)
    screen.say("\nThe write key, and code to paste:\n")
    serial = setup.key.split(".")[1].partition("-")[2]
    words = [setup.account, *(["--serial", serial] if serial else [])]
    keys.issue.main(words, standalone_mode=False, obj=stack)
    screen.say(f"\nCost: {cost_line(stack.parameters, region)}\n")
    screen.show_table(
        ("next", "command"),
        [
            ("how it is", f"sluice status {stack.option}"),
            ("events as they arrive", f"sluice tail {stack.option}"),
            ("test every promise here", f"sluice certify {stack.option}"),
            ("remove everything", f"sluice remove {stack.option}"),
        ],
    )
