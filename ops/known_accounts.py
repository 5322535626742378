"""The accounts that a stack's Redis holds."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

from ops import screen
from ops.failure import FORESEEN, Failure
from ops.stack import Stack
from shared import names
from shared.accounts import Account

_MOST_NAMES = 5


def misnamed(account: str, table: str | None = None) -> str:
    """Return why an account, or its table, cannot have its name; empty if both can."""
    if not names.is_account(account):
        return f"{account!r} is not a valid account name: use 3 to 64 characters of a-z, 0-9 and _"
    if table is not None and not names.is_table(table):
        return f"{table!r} is not a valid table name: use 3 to 128 characters of a-z, 0-9 and _"
    return ""


@dataclass(frozen=True, slots=True)
class KnownAccounts:
    """The accounts in a stack's Redis.

    Attributes:
        accounts: those that are valid, by name.
        damaged: why others are not, by name.
        applied_at: when they were applied; None if Redis was never filled or lost its data.
    """

    accounts: dict[str, Account]
    damaged: dict[str, str]
    applied_at: str | None


def known(stack: Stack) -> KnownAccounts:
    """Return the accounts in a stack's Redis."""
    return parsed(stack.administer(do="accounts"))


def parsed(answer: Mapping[str, Any]) -> KnownAccounts:
    """Return what AdminFunction's answer says of the accounts."""
    accounts = {name: Account.from_fields(fields) for name, fields in answer["accounts"].items()}
    return KnownAccounts(accounts, answer.get("damaged", {}), answer["applied_at"])


def one(stack: Stack, name: str) -> Account:
    """Return one account.

    Raises:
        Failure: Redis does not have it, or it is damaged.
    """
    return found_in(stack, known(stack), name)


def found_in(stack: Stack, found: KnownAccounts, name: str) -> Account:
    """Return one of the accounts that `known` has returned; otherwise as `one`."""
    if name in found.accounts:
        return found.accounts[name]
    if name in found.damaged:
        raise Failure(is_damaged(stack, name, found.damaged[name]))
    if found.applied_at is None:
        raise Failure(is_empty(stack))
    raise Failure(f"there is no account {name}: add it to accounts.yaml and run {_apply(stack)}")


def check(stack: Stack, name: str | None) -> None:
    """Check that an account exists, if one is named and Redis says which exist. Rows of a removed one may still be found: look first.

    Raises:
        Failure: it does not exist.
    """
    if not name:
        return
    try:
        found = known(stack)
    except (Failure, *FORESEEN):
        return  # without Redis, or the right to ask it, nobody can tell
    existing = sorted(found.accounts.keys() | found.damaged.keys())
    if found.applied_at is None or not existing or name in existing:
        return
    similar = ", ".join(get_close_matches(name, existing, _MOST_NAMES))
    alike = f"Similar names: {similar}. " if similar else ""
    raise Failure(f"there is no account {name}. {alike}`sluice accounts list {stack.option}` lists all")


def note(stack: Stack, name: str) -> Failure | None:
    """Do as `check`, but print what it raises as a note, and return it: what comes may have rows of a removed account."""
    try:
        check(stack, name)
    except Failure as failure:
        screen.note(f"Note: {failure.message}.")
        return failure
    return None


def is_empty(stack: Stack) -> str:
    """Return what to say about a Redis that was never filled, or has lost its data."""
    return f"Redis is empty: fill it with {_apply(stack)}"


def is_damaged(stack: Stack, name: str, why: str) -> str:
    """Return what to say about a damaged account."""
    return f"the account {name} is damaged ({why}): {_apply(stack)} repairs it if the file has it"


def note_damaged(stack: Stack, found: KnownAccounts) -> None:
    """Print a note for each damaged account."""
    for name, why in found.damaged.items():
        screen.note(f"Note: {is_damaged(stack, name, why)}.")


def _apply(stack: Stack) -> str:
    return f"`sluice accounts apply accounts.yaml {stack.option}`"


def differences(
    old: Mapping[str, Account], new: Mapping[str, Account], damaged: Collection[str] = ()
) -> Iterator[tuple[str, str, str]]:
    """Yield what applying changes: `+`, `-` or `~`, the account, and its new, old or changed fields. Some of the old are `damaged`."""
    for name in sorted({*old, *new, *damaged}):
        before, after = old.get(name), new.get(name)
        if after is None:
            yield "-", name, _text(before) if before else "damaged"
        elif name in damaged:
            yield "~", name, f"damaged → {_text(after)}"
        elif before is None:
            yield "+", name, _text(after)
        elif before != after:
            fields = zip(shown_fields(before).items(), shown_fields(after).values(), strict=True)
            changed = [f"{field}: {a or '-'} → {b or '-'}" for (field, a), b in fields if a != b]
            yield "~", name, ", ".join(changed) or "plan: its tables have changed"


def shown_fields(account: Account) -> dict[str, str]:
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
    fields = shown_fields(account)
    parts += [f"{name}: {fields[name]}" for name in ("limits", "plan") if fields[name]]
    return ", ".join(parts)


def update(stack: Stack, name: str, old: Account, *, dry_run: bool, **fields: Any) -> None:
    """Change fields of one account, and print a reminder to change accounts.yaml too."""
    account = replace(old, **fields)
    changes = list(differences({name: old}, {name: account}))
    if not changes:
        screen.say("No changes.")
        return
    screen.say(f"~ {name}  {changes[0][2]}")
    if dry_run:
        screen.say(screen.DRY_RUN)
    else:
        stack.administer(do="change", account=name, fields=account.to_fields(), seen=old.to_fields())
        screen.say(
            "The worker and the ingest see this within a minute. Change accounts.yaml too, or the next apply reverts it."
        )
