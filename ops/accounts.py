"""`sluice accounts`: maps accounts to databases. accounts.yaml is the source of truth; Redis holds a copy of it."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import click

from ops import accounts_file, screen
from ops.command_group import CommandGroup
from ops.failure import Failure
from ops.stack import Stack, works_on_stack
from shared.accounts import Account


@click.group("accounts", cls=CommandGroup)
def group() -> None:
    """Map accounts to databases. accounts.yaml is the source of truth; Redis holds a copy of it."""


def known(stack: Stack) -> tuple[dict[str, Account], str | None]:
    """Return the accounts in a stack's Redis, and when they were applied: None if Redis was never filled or lost its data."""
    answer = stack.administer(do="accounts")
    accounts = {name: Account.from_fields(fields) for name, fields in answer["accounts"].items()}
    return accounts, answer["applied_at"]


def one(stack: Stack, name: str) -> Account:
    """Return one account.

    Raises:
        Failure: Redis does not have it.
    """
    accounts, applied_at = known(stack)
    if name in accounts:
        return accounts[name]
    if applied_at is None:
        raise Failure("Redis is empty: fill it with `sluice accounts apply accounts.yaml`")
    raise Failure(
        f"there is no account {name}: add it to accounts.yaml and run `sluice accounts apply accounts.yaml`"
    )


def differences(old: Mapping[str, Account], new: Mapping[str, Account]) -> Iterator[tuple[str, str, str]]:
    """Yield what applying changes: `+`, `-` or `~`, the account, and its new, old or changed fields."""
    for name in sorted(old.keys() | new.keys()):
        before, after = old.get(name), new.get(name)
        if before is None and after is not None:
            yield "+", name, _text(after)
        elif before is not None and after is None:
            yield "-", name, _text(before)
        elif before != after and before is not None and after is not None:
            fields = zip(_shown(before).items(), _shown(after).values(), strict=True)
            changed = [f"{field}: {a or '-'} → {b or '-'}" for (field, a), b in fields if a != b]
            yield "~", name, ", ".join(changed) or "plan: its tables have changed"


def _shown(account: Account) -> dict[str, str]:
    """Return an account's fields, with its plan in brief."""
    plan = account.plan
    brief = f"{plan.mode}, {screen.plural(len(plan.tables), 'table')}" if plan else ""
    return account.to_fields() | {"plan": brief}


def _text(account: Account) -> str:
    parts = [account.database]
    if account.status != "active":
        parts.append(account.status)
    if account.revoked_key_ids:
        parts.append(f"revoked {','.join(sorted(account.revoked_key_ids))}")
    return ", ".join(parts)


@group.command()
@click.argument("file", type=click.Path(path_type=Path))
@works_on_stack
@screen.dry_run_option
@screen.yes_option
@screen.json_option
def apply(stack: Stack, file: Path, *, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Make Redis match FILE exactly, after showing the changes.

    This also restores a Redis that has lost its data, and publishes the edge policy. The worker and the ingest see changes
    within a minute.
    """
    wanted = accounts_file.read(file)
    current, applied_at = known(stack)
    changes = list(differences(current, wanted))
    if as_json:
        show = {
            "changes": [{"change": sign, "account": name, "what": what} for sign, name, what in changes],
            "restores": applied_at is None,
            "applied": not dry_run,
        }
        screen.show_json(show)
    else:
        if applied_at is None:
            screen.say("Redis is empty. The worker holds until accounts are applied.")
        for sign, name, what in changes:
            screen.say(f"{sign} {name}  {what}")
        if not changes and applied_at is not None:
            screen.say("No changes.")
    if dry_run:
        return
    if not changes and applied_at is not None:
        stack.administer(do="publish")  # an older version of Sluice may not have published the edge policy
        return
    screen.confirm("Apply these changes?", yes=yes or as_json)
    stack.administer(do="apply", accounts={name: account.to_fields() for name, account in wanted.items()})
    if not as_json:
        screen.say(f"Applied: {screen.plural(len(wanted), 'account')}.")


@group.command("list")
@works_on_stack
@screen.json_option
def list_(stack: Stack, *, as_json: bool) -> None:
    """List the accounts in Redis."""
    accounts, applied_at = known(stack)
    if as_json:
        fields = {name: account.to_fields() for name, account in accounts.items()}
        screen.show_json({"accounts": fields, "applied_at": applied_at})
        return
    if applied_at is None:
        screen.say("Redis is empty: fill it with `sluice accounts apply accounts.yaml`.")
    rows = (
        (name, account.database, account.status, ",".join(sorted(account.revoked_key_ids)))
        for name, account in accounts.items()
    )
    screen.show_table(("account", "database", "status", "revoked key ids"), rows)


@group.command()
@screen.output_option
@works_on_stack
def export(stack: Stack, *, file: Path | None) -> None:
    """Print the accounts in Redis in the form of accounts.yaml, for `accounts apply`."""
    accounts, applied_at = known(stack)
    if applied_at is None:
        raise Failure("Redis is empty: fill it with `sluice accounts apply accounts.yaml`")
    said = f"{screen.plural(len(accounts), 'account')} in {file}."
    screen.put(accounts_file.text_of(accounts), file, said)


@group.command()
@click.argument("account")
@works_on_stack
@screen.json_option
def show(stack: Stack, account: str, *, as_json: bool) -> None:
    """Show one account."""
    found = one(stack, account)
    if as_json:
        screen.show_json({"account": account, **found.to_fields()})
        return
    fields = _shown(found)
    screen.show_table(("account", *fields), [(account, *fields.values())])


@group.command()
@click.argument("account")
@works_on_stack
@screen.dry_run_option
def disable(stack: Stack, account: str, *, dry_run: bool) -> None:
    """Disable an account: within a minute its events are refused; rows already accepted are set aside."""
    update(stack, account, replace(one(stack, account), status="disabled"), dry_run=dry_run)


@group.command()
@click.argument("account")
@works_on_stack
@screen.dry_run_option
def enable(stack: Stack, account: str, *, dry_run: bool) -> None:
    """Enable an account: its rows are delivered from now on. `sluice redrive` sends those set aside before."""
    update(stack, account, replace(one(stack, account), status="active"), dry_run=dry_run)


def update(stack: Stack, name: str, account: Account, *, dry_run: bool) -> None:
    """Change one account, and print a reminder to change accounts.yaml too."""
    changes = list(differences({name: one(stack, name)}, {name: account}))
    if not changes:
        screen.say("No changes.")
        return
    screen.say(f"~ {name}  {changes[0][2]}")
    if not dry_run:
        stack.administer(do="change", account=name, fields=account.to_fields())
        screen.say(
            "The worker and the ingest see this within a minute. Change accounts.yaml too, or the next apply reverts it."
        )
