"""Reads and writes accounts.yaml, the source of truth for accounts.

shop:
  database: shop_events
news:
  database: media
  status: disabled          # default: active
  revoked_key_ids: [k1-2]
  limits: {tables: 500}     # tables, events_per_second, bytes_per_second
  plan: plans/news.yaml     # a tracking plan, or the file that holds it
"""

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import yaml

from ops.failure import Failure
from shared import names
from shared.accounts import Account
from shared.policy import AccountLimits
from shared.tracking_plan import TrackingPlan

_FIELDS = {"database", "status", "revoked_key_ids", "limits", "plan"}


def read(path: Path) -> dict[str, Account]:
    """Return the accounts in a file, by name.

    Raises:
        Failure: the file cannot be read, or is invalid; the message names the first error.
    """
    content = _content(path)
    if not isinstance(content, Mapping):
        raise Failure(
            f"{path} has no accounts: write one as `shop: {{database: shop_events}}` (docs/commands.md#accountsyaml)"
        )
    return {_name(path, name): _account(path, name, fields) for name, fields in content.items()}


def read_plan(path: Path) -> TrackingPlan:
    """Return the tracking plan in a file.

    Raises:
        Failure: the file cannot be read, or is invalid; the message names the first error.
    """
    try:
        return TrackingPlan.parse(_content(path))
    except ValueError as error:
        raise Failure(f"{path}: {error}") from error


def _content(path: Path) -> Any:
    if str(path).lstrip().startswith("{"):
        raise Failure("pass the name of a file, not its content")
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506 -- a safe loader
    except OSError as error:
        raise Failure(f"{path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: not UTF-8, or no date
        raise Failure(f"{path} is not YAML (docs/commands.md#accountsyaml): {error}") from error


def text_of(accounts: Mapping[str, Account]) -> str:
    """Return accounts as YAML that `read` accepts."""
    content: dict[str, dict[str, Any]] = {}
    for name, account in sorted(accounts.items()):
        fields = {
            "database": account.database,
            "status": account.status if account.status != "active" else "",
            "revoked_key_ids": sorted(account.revoked_key_ids),
            "limits": account.limits.to_fields(),
            "plan": account.plan.to_value() if account.plan else {},
        }
        content[name] = {field: value for field, value in fields.items() if value}
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def _name(path: Path, name: object) -> str:
    if isinstance(name, str) and names.is_account(name):
        return name
    raise Failure(f"{path}: {name!r} is not a valid account name: use 3 to 64 characters of a-z, 0-9 and _")


def _account(path: Path, name: str, fields: object) -> Account:
    unknown = sorted({str(field) for field in fields} - _FIELDS) if isinstance(fields, Mapping) else []
    if unknown:
        raise Failure(
            f"{path}: {name} has an unknown field {unknown[0]}: the fields are {', '.join(sorted(_FIELDS))}"
        )
    if not isinstance(fields, Mapping) or not isinstance(fields.get("database"), str):
        raise Failure(f"{path}: {name} needs a database: `{name}: {{database: …}}`")
    revoked = fields.get("revoked_key_ids") or []
    if not isinstance(revoked, list) or not all(
        isinstance(one, str) and names.is_key_id(one) for one in revoked
    ):
        raise Failure(f"{path}: {name}: revoked_key_ids must be a list of key ids, such as [k1, k1-2]")
    try:
        limits = AccountLimits.parse(fields.get("limits") or {})
        plan = _plan(path, fields.get("plan"))
        return Account(fields["database"], fields.get("status", "active"), frozenset(revoked), limits, plan)
    except ValueError as error:
        raise Failure(f"{path}: {name}: {error}") from error


def _plan(path: Path, value: object) -> TrackingPlan | None:
    """Return the plan in accounts.yaml, or in the file that it names, relative to the folder of accounts.yaml."""
    if not value:
        return None
    if not isinstance(value, str):
        return TrackingPlan.parse(value)
    if value.lstrip().startswith("{"):
        raise ValueError(
            "plan must be a mapping or the name of a file, but this is JSON in quotes: remove the quotes"
        )
    return read_plan(path.parent / value)


class _Loader(yaml.SafeLoader):
    """Rejects duplicate keys, of which YAML would silently use the last."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Hashable, Any]:
    seen = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, Hashable):
            continue  # construct_mapping raises the error
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"duplicate key {key!r}", key_node.start_mark)
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)
