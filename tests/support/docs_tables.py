"""Generates docs/policies, and the tables of docs/ between `<!-- NAME -->` and `<!-- end -->`, from the code: `make docs` writes them, tests compare."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from textwrap import fill
from typing import Any, get_args

import click

import ops.cli
import ops.failure
from benchmarks.alternatives import ALTERNATIVES
from ingest.refusal import ANSWERS, EVENT_CODES, AnyCode, RequestCode
from ops.cost.estimate import Setup, Workload, total
from ops.cost.prices import US_EAST_1
from ops.cost.worst import worst
from ops.deploy.certify.steps import STEPS
from shared.telemetry import COUNTERS, METRICS
from shared.tracking_plan import STANDARD_COLUMNS
from tests.support import command_rights
from tests.support.modes import Mode
from tests.support.rights import listed, named
from tests.support.sam import FUNCTIONS, ROOT, template
from worker.states import TRANSITIONS, State

_MARKED = re.compile(r"<!-- (?P<name>[a-z]+: \w+|(?!end )[a-z]+) -->\n.*?<!-- end -->\n", re.DOTALL)


def parameters_list() -> str:
    """Return the template's parameters by group, each with its default and, unless it is the same as above, when to set it."""
    metadata = template()["Metadata"]
    groups = []
    for group in metadata["AWS::CloudFormation::Interface"]["ParameterGroups"]:
        lines = [_parameter(name, metadata["Needed"][name]) for name in group["Parameters"]]
        groups.append(f"**{group['Label']['default']}**\n\n{_list(lines)}")
    return "\n".join(groups)


def _parameter(name: str, needed: str) -> str:
    parameter = template()["Parameters"][name]
    default = f"`{parameter['Default']}`" if parameter["Default"] != "" else "none"
    others = [one for one in parameter.get("AllowedValues", ()) if one != parameter["Default"]]
    values = ", ".join(f"`{one}`" for one in others) if parameter["Type"] == "String" else ""
    shown = f"{default}; {values}" if values else default
    said = "" if needed == "The same." else f" *{needed}*"
    return f"`{name}` ({shown}): {parameter['Description']}{said}"


def _alarm_name(alarm: dict[str, Any]) -> str:
    name = alarm["Properties"]["AlarmName"]["Fn::Sub"]
    text = str(name[0] if isinstance(name, list) else name)
    return text.removeprefix("${AWS::StackName}-").replace("${Version}", "VERSION")


def _alarm_meaning(alarm: dict[str, Any]) -> str:
    """Return what an alarm means: the beginning of its description, which goes on with what to do."""
    said = alarm["Properties"]["AlarmDescription"]
    text = str(said["Fn::Sub"] if isinstance(said, dict) else said)
    return text.partition(". ")[0].partition(": ")[0].removesuffix(".") + "."


def codes_list(codes: Iterable[AnyCode]) -> str:
    """Return a list of error codes of the HTTP interface, each with its status."""
    return _list(f"`{code}` ({ANSWERS[code].status}): {ANSWERS[code].meaning}" for code in codes)


def roles() -> str:
    """Return as JSON what the functions' roles, and CodeDeploy's, allow if everything optional is used, and why."""
    found: dict[str, list[dict[str, Any]]] = {}
    made = Mode({"SubnetIds": "subnet-0a", "WatermarkTable": "marks"}).resources()
    of_all = {
        "Log": "Write logs, with metrics in them.",
        "JoinNetwork": "If SubnetIds is set, Lambda joins them.",
    }
    for function in (*FUNCTIONS, "DeploymentRole"):
        role = made[function.replace("Function", "Role")]
        for policy in role["Properties"]["Policies"]:
            for statement in policy["PolicyDocument"]["Statement"]:
                if statement["Effect"] == "Deny":
                    continue
                allowed = {
                    "why": (of_all | role["Metadata"]["Why"])[statement["Sid"]],
                    "actions": sorted(listed(statement["Action"])),
                    "on": [named(place) for place in listed(statement["Resource"])],
                }
                found.setdefault(function, []).append(allowed)
    return json.dumps(found, indent=2) + "\n"


def _policy(found: Mapping[str, Any]) -> str:
    statements = ",\n".join(f"    {json.dumps(statement)}" for statement in found["Statement"])
    return f'{{\n  "Version": "{found["Version"]}",\n  "Statement": [\n{statements}\n  ]\n}}\n'


def policies() -> dict[str, str]:
    """Return the generated files of docs/policies: IAM policies for roles of people, and what the functions' roles allow."""
    rights = command_rights
    found = {"setup": rights.policy(["setup"], is_deployed=False)}
    found |= {role: rights.policy(commands) for role, commands in rights.ROLES.items()}
    return {f"{name}.json": _policy(policy) for name, policy in found.items()} | {"functions.json": roles()}


def _commands(group: click.Group = ops.cli.main, path: str = "sluice") -> Iterator[tuple[str, click.Command]]:
    for name in group.list_commands(click.Context(group)):
        command, words = group.commands[name], [path, name]
        if isinstance(command, click.Group):
            if command.invoke_without_command:
                yield " ".join(words), command
            yield from _commands(command, " ".join(words))
            continue
        shown = [one.make_metavar() for one in command.params if isinstance(one, click.Argument)]
        words += [one if one.startswith("[") else f"<{one}>" for one in shown]
        yield " ".join(words), command


def _first_sentence(command: click.Command) -> str:
    text = " ".join((command.help or "").partition("\n\n")[0].split())
    return text.partition(". ")[0].partition(": ")[0].removesuffix(".")


def steps_list() -> str:
    """Return a list of the steps of a certification, each with the numbers of the promises that it tests."""
    lines = []
    for one in STEPS:
        promises = f" ({', '.join(map(str, one.promises))})" if one.promises else ""
        lines.append(f"`{one.name}`{promises}: {one.proves}")
    return _list(lines)


def transitions_table() -> str:
    """Return a Markdown table of the transitions of a chunk."""
    rows = []
    for one in TRANSITIONS:
        events = "; ".join(event.value for event in one.events)
        rows.append((", ".join(one.states), events, one.when.value, one.to.value))
    return _table(("chunk is", "what happens", "if", "chunk becomes"), rows)


def states_diagram() -> str:
    """Return the states of a chunk and what leads from one to another, as a Mermaid diagram."""
    first = (State.WAITING, State.AGAIN, State.DEAD, State.REJECTED, State.FORGOTTEN)
    arrows = {(state, one.to): None for one in TRANSITIONS for state in one.states if state is not one.to}
    begin = "".join(f"  [*] --> {state}\n" for state in first)
    lines = "".join(f"  {state} --> {to}\n" for state, to in arrows)
    return f"```mermaid\nstateDiagram-v2\n{begin}{lines}```\n"


def worst_table() -> str:
    """Return what each component costs at most on a day of a stack with the default parameters."""
    lines = worst(Setup(), US_EAST_1)
    day = sum(line.usd for line in lines)
    rows = [(line.component, f"{line.usd:,.2f}") for line in lines]
    return _table(("component", "USD a day, at most"), [*rows, ("**together**", f"**{day:,.2f}**")])


def volumes_table() -> str:
    """Return what a stack costs a month, by events and how they are sent."""
    leanest = replace(Setup(), network="external", window=60)
    rows = []
    for events in (0, *(100_000 * 10**power for power in range(7))):
        loads = (
            (Workload(max(events, 1), 1), Setup()),
            (Workload(max(events, 1), 10, batch_ids=True), Setup()),
            (Workload(max(events, 1), 10, batch_ids=True), leanest),
        )
        rows.append((f"{events:,}", *(f"${total(load, setup, US_EAST_1):,.2f}" for load, setup in loads)))
    return _table(("events a month", "pixels", "ten events a request", "ten, and leanest"), rows)


TABLES: dict[str, Callable[[], str]] = {
    "commands": lambda: _list(f"`{name}`: {_first_sentence(one)}" for name, one in _commands()),
    "exits": lambda: _list(f"{code}: {meaning}" for code, meaning in ops.failure.EXIT_CODES.items()),
    "parameters": parameters_list,
    "worst": worst_table,
    "costs: volumes": volumes_table,
    "costs: alternatives": lambda: _table(
        ("alternative", "USD", "covers", "source"),
        [(one.name, f"{one.usd:.2f}", one.covers, one.source) for one in ALTERNATIVES],
    ),
    "alarms": lambda: _list(
        f"`{_alarm_name(one)}`: {_alarm_meaning(one)}"
        for one in template()["Resources"].values()
        if one["Type"] == "AWS::CloudWatch::Alarm"
    ),
    "codes: request": lambda: codes_list(get_args(RequestCode)),
    "codes: event": lambda: codes_list(EVENT_CODES),
    "metrics: all": lambda: _list(f"`{name}`: {meaning}" for name, meaning in METRICS.items()),
    # the functions' counters that are not a metric themselves, each with its metric
    "counters": lambda: _list(
        f"`{name}` (`{one.metric}`): {one.meaning}" for name, one in COUNTERS.items() if name != one.metric
    ),
    "transitions": transitions_table,
    "states": states_diagram,
    # the columns that a tracking plan may omit
    "columns": lambda: fill(f"{', '.join(f'`{name}`' for name in sorted(STANDARD_COLUMNS))}.", 130) + "\n",
    "certify: steps": steps_list,
}


def rendered(page: str) -> str:
    """Return the page with each marked table regenerated from the code."""
    return _MARKED.sub(lambda one: f"<!-- {one['name']} -->\n\n{TABLES[one['name']]()}\n<!-- end -->\n", page)


def pages() -> list[Path]:
    """Return the pages that contain a marked table."""
    return [path for path in sorted((ROOT / "docs").rglob("*.md")) if _MARKED.search(path.read_text())]


def _list(lines: Iterable[str]) -> str:
    return "".join(f"- {line}\n" for line in lines)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    for path in pages():
        path.write_text(rendered(path.read_text()))
    for name, text in policies().items():
        (ROOT / "docs/policies" / name).write_text(text)
