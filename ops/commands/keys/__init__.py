"""`sluice keys`: write keys, and the secrets that sign them."""

from ops.command_group import CommandGroup
from ops.commands.keys import issue, revoke, rotate, verify

group = CommandGroup(
    "keys",
    help="Issue, verify and revoke write keys, and rotate the secrets that sign them.",
    commands=[issue.command, revoke.command, rotate.command, verify.command],
)
