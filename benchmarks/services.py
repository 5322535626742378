"""Kinesis, S3, Secrets Manager, Treasure Data and Sluice's API in one process that responds immediately, so that only the caller is measured.

`python -m benchmarks.services` prints its port and serves until its standard input is closed.
"""

import asyncio
import gzip
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from shared import policy
from shared.policy import PolicyEntry
from shared.tracking_plan import TrackingPlan

SECRETS = {"k1": "a secret for benchmarks"}
SECRETS_TEXT = json.dumps(SECRETS)
PLAN_BUCKET = "planned"
"""The only bucket with an edge policy."""

_ANSWERS = {
    "PutRecord": {"ShardId": "shardId-000000000000", "SequenceNumber": "4" * 56},
    "GetSecretValue": {"Name": "keys", "SecretString": SECRETS_TEXT},
}

_ABSENT = (
    b"HTTP/1.1 404 Not Found\r\ncontent-type: application/xml\r\ncontent-length: 38\r\n\r\n"
    b"<Error><Code>NoSuchKey</Code> </Error>"
)


def edge_policy(required: Iterable[str], optional: Iterable[str] = ()) -> bytes:
    """Return an edge policy with a tracking plan for the account `shop`: 30 tables, each with these columns."""
    columns: dict[str, Any] = {name: {"type": "string", "required": True} for name in required}
    columns |= {name: {"type": "string"} for name in optional}
    tables = {
        name: {"columns": columns} for name in ("pageviews", *(f"table_{number}" for number in range(29)))
    }
    plan = TrackingPlan.parse({"mode": "quarantine", "tables": tables})
    return policy.encode({"shop": PolicyEntry(plan=plan)}, 1)


_POLICY = edge_policy(("page", "position", "campaign"), [f"column_{number}" for number in range(17)])
_PLANNED = b'HTTP/1.1 200 OK\r\netag: "1"\r\ncontent-length: %d\r\n\r\n%b' % (len(_POLICY), _POLICY)


@contextmanager
def running() -> Iterator[str]:
    """Run the process for the duration of the block, and yield its address."""
    command, pipe = [sys.executable, "-m", "benchmarks.services"], subprocess.PIPE
    # in a group of its own, where no Ctrl-C reaches it: it ends when its input does
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, process_group=0) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.stdin.close()
            process.wait(10)


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            lines = head.decode("latin-1").split("\r\n")
            headers = {
                name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])
            }
            if headers.get("expect"):
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            if lines[0].startswith("GET "):
                writer.write(_PLANNED if lines[0].startswith(f"GET /{PLAN_BUCKET}/") else _ABSENT)
                await writer.drain()
                continue
            operation = headers.get("x-amz-target", "").rpartition(".")[2]
            if lines[0].startswith("POST /v1/events"):
                found = {"accepted": gzip.decompress(body).count(b'"event_id":'), "rejected": []}
            else:
                found = _ANSWERS.get(operation) or _imported(lines[0], body)
            answer = json.dumps(found).encode()
            writer.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
                % (len(answer), answer)
            )
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


def _imported(request: str, body: bytes) -> dict[str, object]:
    """Return Treasure Data's answer to `PUT /v3/table/import_with_id/DATABASE/TABLE/ID/msgpack.gz`."""
    database, table, unique_id = request.split("/")[4:7]
    digest = hashlib.md5(body, usedforsecurity=False).hexdigest()
    return {
        "elapsed_time": 0,
        "database": database,
        "table": table,
        "md5_hex": digest,
        "unique_id": unique_id,
    }


async def _main() -> None:
    server = await asyncio.start_server(_serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        server.abort_clients()


if __name__ == "__main__":
    asyncio.run(_main())
