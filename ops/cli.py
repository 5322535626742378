"""The `sluice` command, which operates a stack after it is deployed."""

from typing import Any, override

import click

from ops import interrupt
from ops.command_group import CommandGroup
from ops.commands import (
    accounts,
    certify,
    console,
    cost,
    dead,
    doctor,
    find,
    keys,
    local,
    plan,
    preflight,
    record,
    redrive,
    replay,
    sdk,
    status,
    tail,
    wait,
)
from ops.failure import FORESEEN, INTERRUPTED, explained
from ops.version import sluice_version


class _Sluice(CommandGroup):
    @override
    def invoke(self, ctx: click.Context) -> Any:
        try:
            with interrupt.interruptible():
                return super().invoke(ctx)
        except FORESEEN as error:
            raise explained(error) from error
        except KeyboardInterrupt:
            raise click.exceptions.Exit(INTERRUPTED) from None


def _show_version(ctx: click.Context, _: click.Parameter, is_asked: bool) -> None:  # noqa: FBT001 -- click's signature
    if is_asked and not ctx.resilient_parsing:
        click.echo(f"sluice {sluice_version()}")
        ctx.exit()


@click.group(cls=_Sluice, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Print the version and exit.",
)
def main() -> None:
    """Operate a Sluice stack, deployed (--stack NAME) or local (--local)."""


for group in (accounts, dead, keys, plan, sdk):
    main.add_command(group.group)
for module in (
    certify,
    console,
    cost,
    doctor,
    find,
    local,
    preflight,
    record,
    redrive,
    replay,
    status,
    tail,
    wait,
):
    main.add_command(module.command)


if __name__ == "__main__":
    main(prog_name="sluice")
