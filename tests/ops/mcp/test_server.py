"""`sluice mcp`: the commands that change nothing, as tools for the official client of the Model Context Protocol."""

import json
from pathlib import Path
from typing import Any

import anyio
import click
import pytest
from mcp import Client
from mcp.types import CallToolResult, Tool

from ops import screen
from ops.mcp.command_tool import TOOLS
from ops.state.finding import Finding
from ops.state.state_document import findings_document
from tests.support.command_rights import RIGHTS
from tests.support.mcp_client import Call, ask, bytes_of, talk, text_of
from tests.support.sluice import Sluice, until

pytestmark = pytest.mark.xdist_group("mcp")

MOST = 8_000
EVERY_TOOL: list[Call] = [
    ("status", {"complete": True}),
    ("doctor", {}),
    ("tail", {"for": "1s"}),
    ("find", {"terms": ["event_id=asked"], "table": "asked_for", "account": None, "for": None}),
    ("dead_list", {}),
    ("plan_diff", {"account": "news"}),
    ("wait", {"account": "shop", "table": "asked_for", "until": "3h", "timeout": "1s"}),
    ("cost", {"events": "10M"}),
]


def result(answer: CallToolResult) -> Any:
    """Return the result in an answer that is not an error."""
    assert not answer.is_error, text_of(answer)
    return json.loads(text_of(answer))["result"]


def error(answer: CallToolResult) -> str:
    """Return the message of an error."""
    assert answer.is_error, text_of(answer)
    assert bytes_of(answer) < MOST
    return text_of(answer).removeprefix("Error: ")


@pytest.mark.parametrize("mode", ["legacy", "auto"])
def test_a_client_shakes_hands_lists_the_tools_and_calls_one(tmp_path: Path, mode: str) -> None:
    """No stack is needed for that. Each tool has a description, takes no other arguments, and says that it only reads."""

    async def use(client: Client) -> tuple[str, str | None, list[Tool], int]:
        listed = await client.list_tools()
        assert result(await client.call_tool("cost", {"events": "10M"}))["usd"] > 1
        return client.server_info.name, client.instructions, listed.tools, bytes_of(listed)

    name, instructions, tools, size = talk(use, tmp_path, mode=mode)

    assert ("sluice", True) == (name, "strangers" in str(instructions))
    assert [call for call, _ in EVERY_TOOL] == [tool.name for tool in tools]
    assert size < MOST
    for tool in tools:
        assert tool.description
        assert tool.annotations.read_only_hint
        assert tool.input_schema["additionalProperties"] is False
        assert {"raw", "yes", "stack", "local", "region"}.isdisjoint(tool.input_schema["properties"])
    (find,) = (tool.input_schema for tool in tools if tool.name == "find")
    assert ["terms"] == find["required"]
    described = {"type": "string", "description": "Stop searching after this long.", "default": "30s"}
    assert described == find["properties"]["for"]


def test_each_tool_answers_with_what_its_command_prints(sluice: Sluice) -> None:
    """Every answer fits in 8 kB."""
    sluice.send("shop", "asked_for", "asked")
    until(lambda: sluice.rows("shop", "asked_for") == ["asked"])
    answers = dict(zip((name for name, _ in EVERY_TOOL), ask(sluice.home, *EVERY_TOOL), strict=True))
    results = {name: result(answer) for name, answer in answers.items()}

    assert all(bytes_of(answer) < MOST for answer in answers.values())
    assert sluice.json("status --local --complete").keys() == results["status"].keys()
    assert sluice.json("doctor --local --no-event")["healthy"] == results["doctor"]["healthy"]
    assert '"state":"delivered"' in text_of(answers["find"])
    assert sluice.json("dead list --local") == results["dead_list"]
    assert sluice.json("plan diff news --local")["events"] == results["plan_diff"]["events"]
    assert ("shop", "asked_for") == (results["wait"]["account"], results["wait"]["table"])
    assert sluice.json("cost --events 10M") == results["cost"]


def test_personal_data_is_replaced_as_in_tail(sluice: Sluice) -> None:
    """Equal values have the stand-ins that the command shows. Email addresses are replaced in every part of an answer."""
    jo = "jo@shop.example"
    row = {"email": jo, "td_url": "https://shop.example/jo", "tags": [{"to": jo}]}
    sluice.post("news", [{"table": "article_views", "event_id": "d", "td_url": "https://shop.example/of/jo"}])
    sluice.post("shop", [{"table": "personal", "event_id": "p@shop.example", **row}])
    until(lambda: "shop.example/of/jo" in sluice.run("plan diff news --local --json").stdout)
    tailed, found, drifts = ask(
        sluice.home,
        ("tail", {"since": "1min", "table": "personal", "for": "4s"}),
        ("find", {"terms": ["event_id=p@shop.example"], "table": "personal"}),
        ("plan_diff", {"account": "news"}),
    )
    shown = json.loads(sluice.run("tail --local --since 1min --for 4s --table personal").stdout)
    pages = [page for one in result(drifts)["drifts"] for page in one["pages"]]

    assert shown["row"] == result(tailed)[0]["row"]
    assert f'"email":"{shown["row"]["email"]}"' in text_of(found)
    assert any(page.startswith("https://page.ex") for page in pages)
    for answer in map(text_of, (tailed, found, drifts)):
        assert not any(part in answer for part in ("jo@", "shop.example", "--raw"))


def test_a_long_answer_is_cut_and_says_so(sluice: Sluice) -> None:
    """It counts what is left out, and names a command that shows everything."""
    long = {"table": "long", "text": "雪" * 200}
    sluice.post("shop", [long | {"event_id": f"l{number}"} for number in range(60)])
    (answer,) = ask(sluice.home, ("tail", {"since": "1min", "table": "long", "for": "4s"}))
    whole = json.loads(text_of(answer))

    assert 6_000 < bytes_of(answer) < MOST
    assert f"… {61 - len(whole['result'])} of 60 left out" == whole["result"][-1]
    assert whole["left_out"].endswith("sluice tail --local --for=4s --since=1min --table=long")
    assert ["60 events, 0 rejected, 0 refused requests in 4 s."] == whole["notes"]


def test_what_is_wrong_is_never_cut() -> None:
    """However much is right, and however long the rest is: what waits comes after what is dead."""
    dead = [Finding("dead rows", f"{n} rows are dead (http_4{n:02})", "Fix.", "fault") for n in range(9)]
    waits = Finding("rows", "1 row for the database field_app waits", state="waiting")
    right = [Finding("a check", "x" * 300)] * 40
    document = {"findings": findings_document([*dead, waits, *right]), "rows": [{"reason": "y" * 99}] * 99}

    @click.command("status")
    @click.option("--json", "_", is_flag=True)
    @click.option("--local", is_flag=True)
    def status(**_: Any) -> None:
        screen.show_json(document)

    answer = TOOLS[0].answer(click.Group(commands={"status": status}), ["--local"], {})

    assert len(answer.encode()) < MOST
    assert [one.verdict for one in (*dead, waits)] == json.loads(answer)["result"]["findings"]


MISTAKES: list[tuple[str, dict[str, Any], str]] = [
    ("redrive", {}, "there is no tool redrive: use status, doctor, tail, find, "),
    ("status", {"watch": True}, "there is no argument watch: use since, until, all, complete"),
    ("status", {"all": "yes"}, "Option '--all' does not take a value"),
    ("tail", {"for": "1h"}, "for is at most 50s: call again to go on"),
    ("tail", {"for": "a bit"}, "Invalid value for '--for': 'a bit' is not a duration"),
    ("tail", {"for": False}, "Invalid value for '--for': 'False' is not a duration"),
    ("find", {"terms": ["--raw"]}, "not found since "),
    ("find", {"terms": ["a" * 20_000]}, "not found since "),
    ("wait", {"account": "shop"}, "Missing option '--table'"),
    ("wait", {"account": "--json", "table": "t", "until": "1h"}, "'--json' is not a valid account name"),
    ("wait", {"account": "Jo@shop.example" * 999, "table": "t", "until": "1h"}, "'email-"),
    ("cost", {}, "use either --events or --worst"),
]


def test_an_error_is_an_answer_that_says_what_to_do(sluice: Sluice) -> None:
    """It fits in 8 kB, too, and no value is taken for an option."""
    answers = ask(sluice.home, *((name, given) for name, given, _ in MISTAKES))

    for (name, given, said), answer in zip(MISTAKES, answers, strict=True):
        assert error(answer).startswith(said), (name, given)


def test_a_stack_that_cannot_be_reached_is_an_answer_too(tmp_path: Path) -> None:
    """The server goes on, and looks for the stack again in each call."""
    (missing,) = ask(tmp_path, ("status", {}))
    (tmp_path / "stack.json").write_text("{")
    broken, other = ask(tmp_path, ("status", {}), ("cost", {"events": "10M"}))

    assert "the local stack is not running: start it with `sluice local` or `make up`" == error(missing)
    assert error(broken).startswith("Sluice failed (JSONDecodeError: ")
    assert result(other)["usd"] > 1


def test_calls_at_the_same_time_do_not_mix(sluice: Sluice) -> None:
    """Each gets what its own command printed, on standard output and on standard error."""
    sluice.send("shop", "same_time", "s")
    given = {"since": "1min", "table": "same_time"}

    async def use(client: Client) -> dict[str, CallToolResult]:
        found = {}

        async def call(seconds: str) -> None:
            found[seconds] = await client.call_tool("tail", given | {"for": seconds})

        async with anyio.create_task_group() as group:
            for seconds in ("3s", "5s", "4s"):
                group.start_soon(call, seconds)
        return found

    for seconds, answer in talk(use, sluice.home).items():
        assert ["s"] == [one["event_id"] for one in result(answer)]
        notes = json.loads(text_of(answer))["notes"]
        assert [f"1 event, 0 rejected, 0 refused requests in {seconds.replace('s', ' s')}."] == notes


def test_no_tool_may_write() -> None:
    """The permissions of their commands allow only reads, and to ask AdminFunction."""
    used = {right for tool in TOOLS for right in RIGHTS[tool.command]}

    assert not [right for right in used if any(word in right for word in ("Put", "Delete", "Update"))]
    assert ["lambda:InvokeFunction AdminFunction"] == [right for right in used if "Invoke" in right]
