"""`sluice plan types`: writes a plan as TypeScript declarations."""

from pathlib import Path

import click

from ops import accounts_file, screen
from ops.plans.plan_text import declarations


@click.command("types")
@click.argument("plan", metavar="FILE", type=click.Path(path_type=Path))
@screen.output_option
def command(plan: Path, *, file: Path | None) -> None:
    """Write TypeScript declarations for the plan in FILE, so that the compiler checks what pages pass to `track`."""
    screen.put(declarations(accounts_file.read_plan(plan)), file, f"Written: {file}.")
