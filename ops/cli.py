"""The `sluice` command, which operates a stack after it is deployed."""

from collections.abc import Mapping
from typing import Any, override

import click

from ops import screen
from ops.command_group import LONGEST_SENTENCE, CommandGroup
from ops.commands import (
    accounts,
    certify,
    console,
    cost,
    dead,
    deploy,
    doctor,
    export,
    find,
    forget,
    keys,
    local,
    mcp,
    plan,
    preflight,
    record,
    redrive,
    remove,
    replay,
    sdk,
    setup,
    status,
    tail,
    wait,
)
from ops.failure import FORESEEN, INTERRUPTED, Failure, explained
from ops.help_page import DEPLOYING, RIGHTS, RIGHTS_TO_DEPLOY, TROUBLESHOOTING, with_page
from ops.version import sluice_version

SECTIONS: Mapping[str, tuple[click.Command, ...]] = {
    "Every day": (status.command, doctor.command, find.command, accounts.group, keys.group),
    "Watch": (tail.command, wait.command, console.command, mcp.command),
    "Repair": (redrive.command, dead.group, replay.command),
    "Persons": (forget.command, export.command),
    "Tracking plans and pages": (plan.group, sdk.group),
    "Deploy": (
        deploy.command,
        setup.command,
        preflight.command,
        certify.command,
        remove.command,
        cost.command,
    ),
    "Develop": (local.command, record.command),
}
"""The commands by purpose, in the order of the help."""


_PAGES = {"deploy": DEPLOYING, "setup": DEPLOYING, "doctor": TROUBLESHOOTING, "status": TROUBLESHOOTING}
"""The pages that help with failures of commands."""
_RIGHTS = dict.fromkeys(("deploy", "preflight", "remove"), RIGHTS_TO_DEPLOY) | {
    "certify": "docs/certifying.md"
}
"""The pages that list the permissions of commands that need those to deploy."""


def _helped(ctx: click.Context, failure: Failure) -> Failure:
    page = _PAGES.get(ctx.invoked_subcommand or "")
    return failure if page is None else Failure(with_page(failure.message, page))


class _Sluice(CommandGroup):
    @override
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the command line, and print the help or the version if it asks for them."""
        with screen.explained_output():
            return super().parse_args(ctx, args)

    @override
    def invoke(self, ctx: click.Context) -> Any:
        with screen.explained_output():
            return self._invoke(ctx)

    def _invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except FORESEEN as error:
            raise _helped(ctx, explained(error, _RIGHTS.get(ctx.invoked_subcommand or "", RIGHTS))) from error
        except Failure as failure:
            raise _helped(ctx, failure) from failure
        except KeyboardInterrupt as interrupted:
            # as its cause, it keeps half-built objects until the process ends: their destructors fail, and tell nobody anything
            raise click.exceptions.Exit(INTERRUPTED) from interrupted

    @override
    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the help."""
        return [command.name for section in SECTIONS.values() for command in section if command.name]

    @override
    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands by purpose, with their first sentences in full."""
        wide = max(map(len, self.commands))
        for title, section in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl(
                    [(f"{one.name:{wide}}", one.get_short_help_str(LONGEST_SENTENCE)) for one in section]
                )


@click.group(cls=_Sluice, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(sluice_version(), message="sluice %(version)s", help="Print the version and exit.")
def main() -> None:
    """Operate a Sluice stack, deployed (--stack NAME) or local (--local)."""


for section in SECTIONS.values():
    for command in section:
        main.add_command(command)
