"""The `sluice` command: operates a stack after it is deployed."""

from typing import Any

import click
from botocore.exceptions import BotoCoreError, ClientError

from ops import accounts, cost, doctor, keys, local, preflight, record, redrive, replay, sdk, status
from ops.failure import INTERRUPTED, explained
from shared.errors import UnavailableError

_FORESEEN = (BotoCoreError, ClientError, UnavailableError)


class _Sluice(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except _FORESEEN as error:
            raise explained(error) from error
        except KeyboardInterrupt:
            raise click.exceptions.Exit(INTERRUPTED) from None


@click.group(cls=_Sluice, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def main() -> None:
    """Operate a Sluice stack, deployed (--stack NAME) or local (--local)."""


main.add_command(accounts.group)
main.add_command(keys.group)
main.add_command(sdk.group)
for module in (status, doctor, preflight, replay, redrive, record, cost, local):
    main.add_command(module.command)


if __name__ == "__main__":
    main(prog_name="sluice")
