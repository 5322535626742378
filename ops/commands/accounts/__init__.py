"""`sluice accounts`: maps accounts to databases. accounts.yaml is the source of truth; Redis holds a copy of it."""

from ops.command_group import CommandGroup
from ops.commands.accounts import apply, disable, enable, export, show
from ops.commands.accounts import list as list_

group = CommandGroup(
    "accounts",
    help="Map accounts to databases. accounts.yaml is the source of truth; Redis holds a copy of it.",
    commands=[apply.command, disable.command, enable.command, export.command, list_.command, show.command],
)
