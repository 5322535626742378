"""Commands as tools: a tool takes the arguments of its command, runs it in this process, and answers with what it prints as JSON."""

import json
import shlex
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, field
from io import StringIO
from operator import itemgetter
from threading import Lock
from typing import Any

import click

from ops import personal_data
from ops.command_group import LONGEST_SENTENCE
from ops.mcp.fitting import as_text, fitted
from ops.moment import length

MOST_BYTES = 7500
"""The most that an answer takes in a message, so that the message stays below 8 kB."""
_MOST_SECONDS = 50  # many clients give up after a minute
_alone = Lock()  # standard output belongs to one command at a time


@dataclass(frozen=True, slots=True)
class CommandTool:
    """A command as a tool.

    Attributes:
        command: the command's words.
        options: the options that callers may use.
        hint: what callers should know beyond the first sentence of the command's help.
        pause: another one, that limits how long the command takes, with a default.
        always: options that every call uses.
    """

    command: str
    options: str
    hint: str
    pause: Mapping[str, str] = field(default_factory=dict)
    always: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Its name."""
        return self.command.replace(" ", "_")

    def description(self, root: click.Command) -> str:
        """Return what the tool does. `root` is the group of all commands."""
        return f"{self._found(root).get_short_help_str(LONGEST_SENTENCE)} {self.hint}"

    def schema(self, root: click.Command) -> dict[str, Any]:
        """Return the JSON Schema of the tool's arguments."""
        used = self._used(root)
        defaults = {name: {"default": value} for name, value in self.pause.items()}
        return {
            "type": "object",
            "properties": {name: _described(one) | defaults.get(name, {}) for name, one in used.items()},
            "required": [name for name, one in used.items() if one.required and name not in defaults],
            "additionalProperties": False,
        }

    def answer(self, root: click.Command, stack: Sequence[str], given: Mapping[str, Any]) -> str:
        """Run the command, and return a JSON object: `result` is what it prints; `notes` and `left_out` are there if necessary.

        `root` is the group of all commands, `stack` the options that name the stack, and `given` the caller's arguments.

        Raises:
            click.ClickException: the arguments are wrong, or the command failed. The message says what to do.
        """
        has_stack = any(stack[0] in one.opts for one in self._found(root).params)
        rest = [*(stack if has_stack else ()), *self.always, *self._words(root, given)]
        printed, said = _run(root, [*self.command.split(), "--json", *rest])
        is_whole = printed.startswith(("{\n", "[\n", "[]"))  # else it is a value a line
        result: Any = json.loads(printed if is_whole else f"[{','.join(printed.splitlines())}]")
        if self.command == "tail":  # which goes shard by shard
            result.sort(key=itemgetter("at"))
        if self.command in (
            "status",
            "doctor",
        ):  # the worst comes first, and nothing that is right takes its place
            result["findings"] = [one["line"] for one in result["findings"] if one["state"] != "ok"]
        if self.command == "plan diff":
            for drift in result["drifts"]:
                pages = drift["pages"].items()
                drift["pages"] = {personal_data.stand_in("td_url", page): events for page, events in pages}
        notes = [line for line in said.splitlines() if line != personal_data.EXPLANATION]
        whole = personal_data.without_emails({"result": result} | ({"notes": notes} if notes else {}))
        if (shown := fitted(whole, MOST_BYTES)) != whole:
            advice = (
                "What did not fit into 8 kB is left out, and marked with …. Narrow the call with other arguments, or run this "
                f"in a terminal: sluice {self.command} {shlex.join(rest)}"
            )
            shown = fitted({"left_out": advice} | whole, MOST_BYTES)
        return as_text(shown)

    def _found(self, root: click.Command) -> click.Command:
        for word in self.command.split():
            root = getattr(root, "commands", {})[word]
        return root

    def _used(self, root: click.Command) -> dict[str, click.Parameter]:
        """Return the command's arguments, and those of its options that callers may use, by name."""
        shown = {*self.options.split(), *self.pause}
        named = {one.opts[-1].lstrip("-").replace("-", "_"): one for one in self._found(root).params}
        return {name: one for name, one in named.items() if isinstance(one, click.Argument) or name in shown}

    def _words(self, root: click.Command, given: Mapping[str, Any]) -> list[str]:
        """Return arguments as words of a command line. No value can be taken for an option; the command checks the values."""
        used, options, others = self._used(root), list[str](), list[str]()
        for name, value in {
            **self.pause,
            **{name: one for name, one in given.items() if one is not None},
        }.items():
            if name not in used:
                raise click.UsageError(f"there is no argument {name}: use {', '.join(used)}")
            if name in self.pause:
                with suppress(ValueError):
                    if length(str(value)) > _MOST_SECONDS:
                        raise click.UsageError(f"{name} is at most {_MOST_SECONDS}s: call again to go on")
            option = used[name].opts[-1]
            if isinstance(used[name], click.Argument):
                others += map(str, value if isinstance(value, list) else [value])
            elif isinstance(value, bool) and getattr(used[name], "is_flag", False):
                options += [option] * value
            else:
                options.append(f"{option}={value}")
        return [*options, "--", *others] if others else options


def _described(parameter: click.Parameter) -> dict[str, Any]:
    if isinstance(parameter, click.Option):
        return {"type": "boolean" if parameter.is_flag else "string", "description": parameter.help}
    text = {"type": "string", "description": parameter.make_metavar().strip("[].")}
    return text if parameter.nargs == 1 else {"type": "array", "items": text}


def _run(root: click.Command, words: list[str]) -> tuple[str, str]:
    """Run a command, and return what it printed on standard output and on standard error."""
    out, err = StringIO(), StringIO()
    with _alone, redirect_stdout(out), redirect_stderr(err):
        root.main(words, prog_name="sluice", standalone_mode=False)
    return out.getvalue(), err.getvalue()


TOOLS = (
    CommandTool("status", "since until all complete", "Begin here: it says what is wrong and what to do."),
    CommandTool("doctor", "account", "It sends no test event here.", always=("--no-event",)),
    CommandTool("tail", "account table rejected since", "It returns after `for`.", {"for": "10s"}),
    CommandTool("find", "account table since", "Columns must all match.", {"for": "30s"}),
    CommandTool("dead list", "account table reason since rejected", "`words` is what Treasure Data said."),
    CommandTool("plan diff", "since", "Pages are stand-ins here."),
    CommandTool("wait", "account table until", "It takes seven minutes to prove this.", {"timeout": "10s"}),
    CommandTool("cost", "events worst accounts events_per_request batch_ids", "Pass either events or worst."),
)
"""The commands that change nothing."""
