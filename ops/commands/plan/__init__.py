"""`sluice plan`: makes tracking plans from the events that arrive, and compares plans with events."""

from ops.command_group import CommandGroup
from ops.commands.plan import diff, infer

group = CommandGroup(
    "plan",
    help="Make tracking plans from the events that arrive, and compare plans with events.",
    commands=[diff.command, infer.command],
)
