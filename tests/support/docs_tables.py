"""Generates the tables in docs/ from the code: `make docs` writes them, and a test checks that they are up to date.

A table is between `<!-- NAME -->` and `<!-- end -->`.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, fields
from functools import partial
from pathlib import Path
from textwrap import fill
from typing import Any, get_args

import click

import ops.cli
import ops.deploy.deployer
import ops.deploy.rights
import ops.failure
from chaos import specification
from ingest.refusal import ANSWERS, EVENT_CODES, AnyCode, RequestCode
from ops.cost.estimate import Setup
from ops.cost.prices import US_EAST_1
from ops.cost.worst import Bounds, worst
from ops.deploy.certify.certification_report import PROMISES
from ops.deploy.certify.steps import ASSUMPTIONS, STEPS
from shared.settings import IngestSettings, ScalerSettings, WorkerSettings
from shared.telemetry import DELIVERY_COUNTERS, INGEST_COUNTERS, METRICS, Counter
from shared.tracking_plan import STANDARD_COLUMNS
from tests.support.modes import Mode
from tests.support.rights import listed, named
from tests.support.sam import FUNCTIONS, template
from worker.states import TRANSITIONS, State

ROOT = Path(__file__).parents[2]
_MARKED = re.compile(r"<!-- (?P<name>[a-z]+: \w+|(?!end )[a-z]+) -->\n.*?<!-- end -->\n", re.DOTALL)


def settings_table(settings: type) -> str:
    """Return a Markdown table of a settings class."""
    rows = []
    for setting in fields(settings):
        text = "" if setting.default is MISSING else _text(setting.default)
        default = "required" if setting.default is MISSING else f"`{text}`" if text else "none"
        rows.append((f"`{setting.metadata['name']}`", default, setting.metadata["doc"]))
    return _table(("variable", "default", "meaning"), rows)


def parameters_table() -> str:
    """Return a Markdown table of the template's parameters."""
    rows = []
    for name, parameter in template()["Parameters"].items():
        default = f"`{parameter['Default']}`" if parameter["Default"] != "" else "none"
        rows.append((f"`{name}`", default, _allowed(parameter), parameter["Description"]))
    return _table(("parameter", "default", "values", "meaning"), rows)


def standard_columns() -> str:
    """Return the columns that a tracking plan may omit, as lines of text."""
    return fill(f"{', '.join(f'`{name}`' for name in sorted(STANDARD_COLUMNS))}.", 130) + "\n"


def outputs_table() -> str:
    """Return a Markdown table of the template's outputs."""
    rows = ((f"`{name}`", output["Description"]) for name, output in template()["Outputs"].items())
    return _table(("output", "meaning"), rows)


def alarms_table() -> str:
    """Return a Markdown table of the template's alarms."""
    alarms = (one for one in template()["Resources"].values() if one["Type"] == "AWS::CloudWatch::Alarm")
    rows = ((f"`{_alarm_name(one)}`", _alarm_advice(one)) for one in alarms)
    return _table(("alarm `STACK-…`", "meaning and action"), rows)


def _alarm_name(alarm: dict[str, Any]) -> str:
    name = alarm["Properties"]["AlarmName"]["Fn::Sub"]
    text = str(name[0] if isinstance(name, list) else name)
    return text.removeprefix("${AWS::StackName}-").replace("${Version}", "VERSION")


def _alarm_advice(alarm: dict[str, Any]) -> str:
    """Return an alarm's description without the name and region of its stack."""
    said = alarm["Properties"]["AlarmDescription"]
    text = str(said["Fn::Sub"] if isinstance(said, dict) else said)
    text = text.replace(" --region ${AWS::Region}", "").replace("${AWS::StackName}", "STACK")
    text = text.replace("the bucket ${AsideBucket}", "the bucket (output AsideBucket)")
    return re.sub(r"(`sluice [^`]*?) --stack STACK", r"\1", text)


def codes_table(codes: Iterable[AnyCode]) -> str:
    """Return a Markdown table of error codes of the HTTP interface."""
    rows = ((f"`{code}`", str(ANSWERS[code].status), ANSWERS[code].meaning) for code in codes)
    return _table(("code", "status", "meaning"), rows)


def metrics_table() -> str:
    """Return a Markdown table of the metrics."""
    return _table(("metric", "counts"), ((f"`{name}`", meaning) for name, meaning in METRICS.items()))


def counters_table(counters: Mapping[str, Counter]) -> str:
    """Return a Markdown table of a function's counters."""
    rows = ((f"`{name}`", counter.meaning, f"`{counter.metric}`") for name, counter in counters.items())
    return _table(("counter", "counts", "metric"), rows)


def commands_table() -> str:
    """Return a Markdown table of the commands of `sluice`."""
    return _table(
        ("command", "description"), [(f"`{name}`", _first_line(command)) for name, command in _commands()]
    )


def options_table() -> str:
    """Return a Markdown table of the options of `sluice`, each with the commands that accept it."""
    commands: dict[tuple[str, str], list[str]] = {}
    for name, command in _commands():
        for option in _options(command):
            place = f"`{', '.join(option.opts)}`", option.help or ""
            commands.setdefault(place, []).append(name.partition(" ")[2].partition(" <")[0])
    rows = [(option, _named(names), meaning) for (option, meaning), names in commands.items()]
    return _table(("option", "commands", "meaning"), sorted(rows, key=lambda row: (row[1], row[0])))


def _named(commands: list[str]) -> str:
    on_stacks = sum(any(option.opts == ["--stack"] for option in _options(one)) for _, one in _commands())
    return (
        "all commands with a stack"
        if len(commands) == on_stacks
        else ", ".join(f"`{name}`" for name in commands)
    )


def rights_table() -> str:
    """Return a Markdown table of the AWS permissions that commands need."""
    rows = (
        (
            f"`{command}`",
            ", ".join(f"`{right}`" for right in sorted(set(rights) - {"cloudformation:DescribeStacks"})),
        )
        for command, rights in ops.deploy.rights.RIGHTS.items()
    )
    return _table(("command", "permissions"), rows)


def roles_table() -> str:
    """Return a Markdown table of what the functions' roles allow with default parameters, and why."""
    rows = []
    mode = Mode({})
    for function in FUNCTIONS:
        for policy in mode.properties(function.replace("Function", "Role"))["Policies"]:
            for statement in policy["PolicyDocument"]["Statement"]:
                if statement["Sid"] == "Log" or statement["Effect"] == "Deny":
                    continue
                actions = ", ".join(f"`{action}`" for action in sorted(listed(statement["Action"])))
                places = ", ".join(f"`{named(place)}`" for place in listed(statement["Resource"]))
                rows.append((f"`{function}`", actions, places, _WHY[function, statement["Sid"]]))
    return _table(("function", "actions", "on", "why"), rows)


_WHY = {
    ("IngestFunction", "PutEnvelopes"): "Accept events.",
    ("IngestFunction", "QueueEnvelopes"): "Accept events that the stream does not acknowledge.",
    ("IngestFunction", "ReadSecrets"): "Verify write keys.",
    ("IngestFunction", "CountSpending"): "Count what accounts spend of their budgets.",
    ("IngestFunction", "ReadPolicy"): "Reject disabled accounts and revoked keys; check tracking plans.",
    ("WorkerFunction", "ReadAccounts"): "Look up accounts in the managed Redis.",
    ("WorkerFunction", "ReadStream"): "Lambda reads batches; the worker looks at shards that it has not met.",
    ("WorkerFunction", "KeepLedger"): "Append spans, claim envelopes, record what becomes of chunks.",
    ("WorkerFunction", "StoreSpans"): "Store all rows; read the indexes of earlier spans.",
    ("WorkerFunction", "StoreRejected"): "Keep rejected events as their senders wrote them.",
    ("WorkerFunction", "KeepUndecodable"): "Lambda keeps batches that it gives up on.",
    (
        "WorkerFunction",
        "FindSpans",
    ): "Lambda needs it for the failure destination of the stream's mapping. Without it, S3 does not say that an object is gone.",
    ("WorkerFunction", "ReadSecrets"): "Import rows.",
    ("RedriveFunction", "ReadAccounts"): "Look up accounts in the managed Redis.",
    (
        "RedriveFunction",
        "ReadStream",
    ): "For watermarks, if WatermarkTable is set.",
    ("RedriveFunction", "CountMessages"): "For watermarks, check that the overflow queue is empty.",
    (
        "RedriveFunction",
        "LookAtNotices",
    ): "For watermarks, check that the overflow queue was not used in the last minutes.",
    ("RedriveFunction", "KeepLedger"): "Read spans, and record what becomes of chunks.",
    ("RedriveFunction", "FindWork"): "Find spans with chunks that wait.",
    ("RedriveFunction", "PutMarkers"): "Look at all shards, and put markers on idle ones.",
    (
        "RedriveFunction",
        "KeepSpans",
    ): "Send stored rows, store edited ones, delete objects that nobody needs.",
    ("RedriveFunction", "FindSpans"): "Sweep. Without it, S3 does not say that an object is gone.",
    ("RedriveFunction", "ForgetPersons"): "Keep the requests to forget persons; take their events out of rejected ones.",
    ("RedriveFunction", "DeleteVersions"): "Delete what held a person's rows, with its old versions.",
    ("RedriveFunction", "FindVersions"): "Find the old versions.",
    ("RedriveFunction", "HashPersons"): "Recognise persons to forget by keyed hashes.",
    ("RedriveFunction", "ReadSecrets"): "Import rows, and query rows in doubt.",
    (
        "DrainFunction",
        "TakeFromQueue",
    ): "Lambda receives messages and deletes handled ones; the drainer makes the others visible again.",
    ("DrainFunction", "PutAgain"): "Put the envelopes on the stream.",
    ("DrainFunction", "AppendSpans"): "Append messages that are not envelopes, as dead spans.",
    ("DrainFunction", "StoreSpans"): "Store what they hold.",
    ("ScaleFunction", "ChangeStream"): "Read and change the stream's mode and its number of shards.",
    ("ScaleFunction", "CountMessages"): "See whether the overflow queue holds too much.",
    ("ScaleFunction", "PublishPolicy"): "Let the ingest refuse what makes it grow.",
    ("ScaleFunction", "ReadMetrics"): "Measure the stream's load. CloudWatch supports no resources for this.",
    ("AdminFunction", "WriteAccounts"): "Change accounts in the managed Redis.",
    ("AdminFunction", "PublishPolicy"): "Tell the ingest of changed accounts.",
    ("AdminFunction", "ReadSecrets"): "Check that Treasure Data accepts the API key.",
}
"""Why a function has a permission, by its statement's Sid."""


def policy_text(role: str) -> str:
    """Return the policy of a role as JSON, one statement per line."""
    return _policy(ops.deploy.rights.policy(ops.deploy.rights.ROLES[role]))


def _policy(found: Mapping[str, Any]) -> str:
    statements = ",\n".join(f"    {json.dumps(statement)}" for statement in found["Statement"])
    return f'```json\n{{\n  "Version": "{found["Version"]}",\n  "Statement": [\n{statements}\n  ]\n}}\n```\n'


def _deployer_policy(part: str) -> str:
    return _policy(ops.deploy.deployer.policy(part))


def exits_table() -> str:
    """Return a Markdown table of the exit codes of `sluice`."""
    return _table(
        ("code", "meaning"), [(str(code), meaning) for code, meaning in ops.failure.EXIT_CODES.items()]
    )


def _commands(group: click.Group = ops.cli.main, path: str = "sluice") -> Iterator[tuple[str, click.Command]]:
    for name in group.list_commands(click.Context(group)):
        command = group.commands[name]
        if isinstance(command, click.Group):
            if command.invoke_without_command:
                yield f"{path} {name}", command
            yield from _commands(command, f"{path} {name}")
        else:
            arguments = [
                parameter.make_metavar()
                for parameter in command.params
                if isinstance(parameter, click.Argument)
            ]
            yield (
                " ".join((path, name, *(one if one.startswith("[") else f"<{one}>" for one in arguments))),
                command,
            )


def _options(command: click.Command) -> list[click.Option]:
    return [parameter for parameter in command.params if isinstance(parameter, click.Option)]


def _first_line(command: click.Command) -> str:
    return " ".join((command.help or "").partition("\n\n")[0].split())


def steps_table() -> str:
    """Return a Markdown table of the steps of a certification."""
    rows = (
        (f"`{one.name}`", one.proves, ", ".join(PROMISES[number] for number in one.promises) or "–")
        for one in STEPS
    )
    return _table(("step", "what it proves", "promises"), rows)


def assumptions_table() -> str:
    """Return a Markdown table of the assumptions that only a real account can confirm."""
    rows = ((name, ", ".join(f"`{step}`" for step in steps)) for name, steps in ASSUMPTIONS.items())
    return _table(("assumption", "tried by"), rows)


def transitions_table() -> str:
    """Return a Markdown table of the transitions of a chunk."""
    rows = []
    for one in TRANSITIONS:
        events = "; ".join(event.value for event in one.events)
        rows.append((", ".join(one.states), events, one.when.value, one.to.value))
    return _table(("chunk is", "what happens", "if", "chunk becomes"), rows)


def states_diagram() -> str:
    """Return the states of a chunk and what leads from one to another, as a Mermaid diagram."""
    arrows = {(state, one.to): None for one in TRANSITIONS for state in one.states if state is not one.to}
    begin = "".join(f"  [*] --> {state}\n" for state in (State.WAITING, State.AGAIN, State.REJECTED))
    lines = "".join(f"  {state} --> {to}\n" for state, to in arrows)
    return f"```mermaid\nstateDiagram-v2\n{begin}{lines}```\n"


def _specified(name: str) -> str:
    return specification.tables()[name]


def worst_table() -> str:
    """Return what each component costs at most on a day of a stack with the default parameters."""
    lines = worst(Bounds(), Setup(), US_EAST_1)
    day = sum(line.usd for line in lines)
    rows = [(line.component, f"{line.usd:,.2f}", line.of) for line in lines]
    return _table(
        ("component", "USD a day, at most", "usage"), [*rows, ("**together**", f"**{day:,.2f}**", "")]
    )


TABLES: dict[str, Callable[[], str]] = {
    "commands": commands_table,
    "options": options_table,
    "exits": exits_table,
    "rights": rights_table,
    "roles": roles_table,
    "policy: watch": lambda: policy_text("watch"),
    "policy: operate": lambda: policy_text("operate"),
    "policy: setup": lambda: _policy(ops.deploy.rights.policy(["setup"], is_deployed=False)),
    **{f"policy: {part}": partial(_deployer_policy, part) for part in ops.deploy.deployer.PARTS},
    "parameters": parameters_table,
    "worst": worst_table,
    "outputs": outputs_table,
    "alarms": alarms_table,
    "codes: request": lambda: codes_table(get_args(RequestCode)),
    "codes: event": lambda: codes_table(EVENT_CODES),
    "metrics: all": metrics_table,
    "counters: ingest": lambda: counters_table(INGEST_COUNTERS),
    "counters: worker": lambda: counters_table(DELIVERY_COUNTERS),
    "transitions": transitions_table,
    "states": states_diagram,
    **{f"spec: {name}": partial(_specified, name) for name in ("answers", "rules")},
    "columns": standard_columns,
    "certify: steps": steps_table,
    "certify: assumptions": assumptions_table,
    "settings: IngestSettings": lambda: settings_table(IngestSettings),
    "settings: ScalerSettings": lambda: settings_table(ScalerSettings),
    "settings: WorkerSettings": lambda: settings_table(WorkerSettings),
}


def rendered(page: str) -> str:
    """Return the page with each marked table regenerated from the code."""
    return _MARKED.sub(
        lambda mark: f"<!-- {mark['name']} -->\n\n{TABLES[mark['name']]()}\n<!-- end -->\n", page
    )


def pages() -> list[Path]:
    """Return the pages that contain a marked table."""
    return [path for path in sorted((ROOT / "docs").rglob("*.md")) if _MARKED.search(path.read_text())]


def _allowed(parameter: dict[str, Any]) -> str:
    if values := parameter.get("AllowedValues"):
        return ", ".join(f"`{value}`" for value in values)
    least, most = parameter.get("MinValue"), parameter.get("MaxValue")
    if least is not None:
        return f"{least} to {most}" if most is not None else f"{least} or more"
    return str(parameter.get("ConstraintDescription", ""))


def _text(value: Any) -> str:
    return ",".join(value) if isinstance(value, tuple) else str(value)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    for path in pages():
        path.write_text(rendered(path.read_text()))
