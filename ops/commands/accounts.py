"""`sluice accounts`: maps accounts to databases. accounts.yaml is the source of truth; Redis holds a copy of it."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

import click

from ops import accounts_file, screen
from ops.command_group import CommandGroup
from ops.failure import UNFINISHED, Failure
from ops.known_accounts import (
    differences,
    is_damaged,
    is_empty,
    known,
    note_damaged,
    one,
    parsed,
    shown_fields,
    update,
)
from ops.stack import Stack, works_on_stack
from shared.accounts import Account

_DONE = {"+": "added", "~": "changed", "-": "removed"}


group = CommandGroup(
    "accounts",
    help="Map accounts to databases. accounts.yaml is the source of truth; Redis holds a copy of it.",
)


@group.command("apply")
@click.argument("file", type=click.Path(path_type=Path))
@works_on_stack
@click.option("--prune", is_flag=True, help="Also remove the accounts that FILE does not have.")
@screen.dry_run_option
@screen.yes_option
@screen.json_option
def apply(stack: Stack, file: Path, *, prune: bool, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Write the accounts of FILE to Redis, after showing the changes. With --prune, Redis then matches FILE exactly.

    This also restores a Redis that has lost its data, repairs damaged accounts, and publishes the edge policy. The worker and the ingest
    see changes within a minute.
    """
    wanted = accounts_file.read(file)
    seen = stack.administer(do="accounts")
    found = parsed(seen)
    current, restores = found.accounts, found.applied_at is None
    result = wanted if prune else current | wanted
    others = sorted((current.keys() | found.damaged.keys()) - wanted.keys())
    left = {} if prune else {name: why for name, why in found.damaged.items() if name not in wanted}
    changes = list(differences(current, result, found.damaged.keys() - left.keys()))
    missing = _missing(stack, current, result)
    shown = list(_lines(changes, others, missing, restores=restores, prunes=prune))
    shown += [f"Warning: {is_damaged(stack, name, why)}." for name, why in left.items()]
    must_ask = bool(changes) or restores
    if not as_json or (must_ask and not yes and not dry_run):
        for line in shown:
            click.echo(line, err=as_json)
    if not dry_run and must_ask:
        screen.confirm("Apply these changes?", yes=yes)
        fields = {name: account.to_fields() for name, account in result.items()}
        stack.administer(do="apply", accounts=fields, removes_damaged=prune, seen=seen.get("digest"))
    elif not dry_run:
        stack.administer(do="publish")  # an older version of Sluice may not have published the edge policy
    if as_json:
        screen.show_json(
            {
                "changes": [{"change": sign, "account": name, "what": what} for sign, name, what in changes],
                "not_in_file": others,
                "damaged": left,
                "missing_databases": missing,
                "restores": restores,
                "applied": not dry_run,
                "dry_run": dry_run,
            }
        )
    elif dry_run:
        screen.say(screen.DRY_RUN)
    elif must_ask:
        counts = Counter(sign for sign, _, _ in changes)
        done = ", ".join(f"{counts[sign]:,} {word}" for sign, word in _DONE.items() if counts[sign])
        screen.say(
            f"Applied: {done or screen.plural(len(result), 'account')}. The worker and the ingest see this within a minute."
        )
        for database, names in _left(current, result).items():
            screen.say(
                f"Rows of {', '.join(names)} that were delivered stay in {database}. If they belong elsewhere: `sluice replay {stack.option} "
                f"--force --database {database} --from TIME --to TIME` (docs/operations.md#an-account-was-mapped-to-the-wrong-database)."
            )


def _left(current: Mapping[str, Account], result: Mapping[str, Account]) -> dict[str, list[str]]:
    """Return the accounts that get another database, by the one that they had."""
    left: dict[str, list[str]] = {}
    for name in sorted(current.keys() & result.keys()):
        if current[name].database != result[name].database:
            left.setdefault(current[name].database, []).append(name)
    return left


def _missing(stack: Stack, current: Mapping[str, Account], result: Mapping[str, Account]) -> list[str] | None:
    """Return the databases that changes name and that do not exist; None if that is unknown."""
    before = {account.database for account in current.values()}
    named = sorted({account.database for account in result.values()} - before)
    found: list[str] | None = stack.administer(do="missing", databases=named)["missing"] if named else []
    return found


def _lines(
    changes: list[tuple[str, str, str]],
    others: list[str],
    missing: list[str] | None,
    *,
    restores: bool,
    prunes: bool,
) -> Iterator[str]:
    """Yield what applying does, a line for each change, and what the operator should know before it."""
    if restores:
        yield "Redis is empty. Rows wait until accounts are applied."
    for sign, name, what in changes:
        yield f"{sign} {name}  {what}"
    if not changes and not restores:
        yield "No changes."
    if missing is None:
        yield "Warning: Treasure Data does not answer, so whether the databases exist was not checked."
    for database in missing or ():
        yield f"Warning: there is no database {database}. The first event of its accounts creates it: check the spelling."
    if others and prunes:
        yield (
            f"Warning: {screen.plural(len(others), 'account')} removed: their events are refused within a minute, and events that were "
            "accepted before become dead rows."
        )
    elif others:
        stay = "stays" if len(others) == 1 else "stay"
        yield f"{', '.join(others)} {stay}, although not in the file: --prune removes."


@group.command("disable")
@click.argument("account")
@works_on_stack
@screen.dry_run_option
@screen.yes_option
def disable(stack: Stack, account: str, *, dry_run: bool, yes: bool) -> None:
    """Disable an account: within a minute its events are refused; accepted rows that were not sent yet become dead, and stay in S3."""
    current = one(stack, account)
    if current.status == "active" and not dry_run:
        screen.confirm(
            f"Refuse events of {account}, and have its rows that were not sent yet become dead?", yes=yes
        )
    update(stack, account, current, dry_run=dry_run, status="disabled")


@group.command("enable")
@click.argument("account")
@works_on_stack
@screen.dry_run_option
def enable(stack: Stack, account: str, *, dry_run: bool) -> None:
    """Enable an account: its rows are delivered from now on. `sluice redrive --kind dead` sends earlier ones."""
    update(stack, account, one(stack, account), dry_run=dry_run, status="active")


@group.command("export")
@screen.output_option
@works_on_stack
def export(stack: Stack, *, file: Path | None) -> None:
    """Print the accounts in Redis in the form of accounts.yaml, for `accounts apply`."""
    found = known(stack)
    if found.applied_at is None:
        raise Failure(is_empty(stack))
    note_damaged(stack, found)
    said = f"{screen.plural(len(found.accounts), 'account')} in {file}."
    screen.put(accounts_file.text_of(found.accounts), file, said)
    if found.damaged:
        raise click.exceptions.Exit(UNFINISHED)


@group.command("list")
@works_on_stack
@screen.json_option
def list_(stack: Stack, *, as_json: bool) -> None:
    """List the accounts in Redis."""
    found = known(stack)
    if as_json:
        fields = {name: account.to_fields() for name, account in found.accounts.items()}
        screen.show_json({"accounts": fields, "damaged": found.damaged, "applied_at": found.applied_at})
        return
    if found.applied_at is None:
        screen.say(f"{is_empty(stack)}.")
    rows = {
        name: (account.database, account.status, ",".join(sorted(account.revoked_key_ids)))
        for name, account in found.accounts.items()
    } | dict.fromkeys(found.damaged, ("", "damaged", ""))
    shown = [(name, *row) for name, row in sorted(rows.items())]
    screen.show_table(("account", "database", "status", "revoked key ids"), shown)
    note_damaged(stack, found)


@group.command("show")
@click.argument("account")
@works_on_stack
@screen.json_option
def show(stack: Stack, account: str, *, as_json: bool) -> None:
    """Show one account, and what it spends of its budget."""
    found = one(stack, account)
    limits, use = found.limits, stack.spending().of(account, time.time())
    if as_json:
        budget = {"bytes_per_hour": limits.bytes_per_hour, "events_per_hour": limits.events_per_hour}
        screen.show_json({"account": account, **found.to_fields(), "budget": budget | asdict(use)})
        return
    fields = shown_fields(found)
    screen.show_table(("account", *fields), [(account, *fields.values())])
    screen.say(
        f"\nBudget: {limits.bytes_per_hour:,} bytes and {limits.events_per_hour:,} events an hour, of which it spent "
        f"{use.spent:.0%} in the last minute. Refused in the last day, at least: "
        f"{screen.plural(use.refused_requests, 'request')} with {screen.plural(use.refused_events, 'event')}."
    )
