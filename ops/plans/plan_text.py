"""An inferred tracking plan as text: YAML with statistics as comments."""

import json

import yaml

from ops.plans.plan_profile import Profile, TableProfile, is_personal
from shared.tracking_plan import PlannedColumn


def inferred(profile: Profile) -> str:
    """Return a plan in YAML that fits everything that arrived, with frequencies and examples as comments.

    There are no examples of possible personal data.
    """
    plan, lines = profile.plan(), ["mode: observe", "tables:"]
    for name, table in plan.tables.items():
        found = profile.tables[name]
        lines += [
            f"  {_in_yaml(name)}:  # {found.events:,} {'event' if found.events == 1 else 'events'}",
            "    columns:",
        ]
        for column, rule in table.columns.items():
            lines.append(f"      {_in_yaml(column)}: {_flow(rule)}  # {_comment(found, column)}")
        if not table.columns:
            lines[-1] += " {}"
    return "\n".join(lines) + "\n"


def _flow(rule: PlannedColumn) -> str:
    members = {
        name: value
        for name, value in (("type", rule.type), ("required", rule.required), ("values", list(rule.values)))
        if value
    }
    return _in_yaml(rule.type if members.keys() == {"type"} else members)


def _in_yaml(value: object) -> str:
    """Return a value on one line, quoted if YAML needs it, as for a table called `off` or `123`."""
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10_000)
    return text.removesuffix("\n").removesuffix("\n...").strip()


def _comment(table: TableProfile, name: str) -> str:
    column = table.columns[name]
    share = 100 * column.present / table.events
    parts = ["always" if column.present == table.events else f"{share:.3g} %"]
    if len(column.types) > 1:
        parts.append(", ".join(f"{kind} {count:,}" for kind, count in column.types.most_common()))
    if column.values:
        examples = [json.dumps(value, ensure_ascii=False) for value, _ in column.values.most_common(3)]
        parts += [f"such as {', '.join(examples)}"] if all(text.isprintable() for text in examples) else []
    if is_personal(name):
        parts.append("may be personal data: add personal: hash or drop")
    return "; ".join(parts)
