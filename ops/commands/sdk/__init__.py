"""`sluice sdk`: publishes the browser SDK's scripts to the stack's bucket."""

from ops.command_group import CommandGroup
from ops.commands.sdk import publish

group = CommandGroup("sdk", help="Publish the browser SDK.", commands=[publish.command])
