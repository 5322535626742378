"""`sluice dead`: lists dead rows, shows them, and drops those that nobody needs."""

from ops.command_group import CommandGroup
from ops.commands.dead import drop, show
from ops.commands.dead import list as list_

group = CommandGroup(
    "dead",
    help="List dead rows, show them, or drop them. `sluice redrive --kind dead` sends them.",
    commands=[drop.command, list_.command, show.command],
)
