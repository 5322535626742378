"""Talks to `sluice mcp` with the official client of the Model Context Protocol, over standard input and output."""

import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import anyio
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.types import CallToolResult

from tests.support.sam import ROOT

type Call = tuple[str, Mapping[str, Any]]
"""A tool's name and its arguments."""


def talk[Answer](
    use: Callable[[Client], Awaitable[Answer]],
    home: Path,
    *words: str,
    mode: str = "auto",
    python: Path | str = sys.executable,
    cwd: Path = ROOT,
) -> Answer:
    """Start a server, shake hands as protocols before 2026 do (`legacy`), or as the newest that both sides speak (`auto`), use it and end it."""
    parameters = StdioServerParameters(
        command=str(python),
        args=["-m", "ops", "mcp", *(words or ["--local"])],
        cwd=cwd,
        env={"SLUICE_HOME": str(home), "SLUICE_STACK": ""},
    )

    async def run() -> Answer:
        async with Client(stdio_client(parameters), mode=mode) as client:
            return await use(client)

    return anyio.run(run)


def ask(home: Path, *calls: Call) -> list[CallToolResult]:
    """Return the answers of a server to calls, one after the other."""

    async def use(client: Client) -> list[CallToolResult]:
        return [await client.call_tool(name, dict(given)) for name, given in calls]

    return talk(use, home)


def text_of(answer: CallToolResult) -> str:
    """Return the text of an answer."""
    (content,) = answer.content
    assert content.type == "text"
    return content.text


def bytes_of(answer: Any) -> int:
    """Return the bytes of an answer in its message."""
    return len(answer.model_dump_json(by_alias=True).encode())
