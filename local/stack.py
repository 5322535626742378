"""Runs the whole pipeline on this machine: each part is a process, and all start and stop together."""

import json
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import KW_ONLY, asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from botocore.exceptions import BotoCoreError
from redis import Redis

from doubles.treasure_data import API_KEY
from local import functions, resources
from local.accounts import ACCOUNTS, SIGNING_SECRETS
from local.functions import FUNCTIONS, Function
from local.part import Part, PartError
from local.resources import Resources
from shared import policy
from shared.accounts import Account, AccountKeys
from worker.account_store import apply

__all__ = ["Addresses", "LocalStack", "PartError"]

_READY_SECONDS = 30.0
_STOP_SECONDS = 8.0
_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ", "SSL_CERT_FILE", "COVERAGE_PROCESS_START")
_KEEPING = ("aws", "treasure-data")
_SERVICES = [function.service for function in FUNCTIONS.values()]
PORTS = tuple(dict.fromkeys(("ingest", "page", "treasure-data", "aws", "valkey", *_SERVICES)))
"""The parts that listen on a port, in the order of their ports."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """The addresses of a running stack."""

    gateway: str
    treasure_data: str
    aws: str
    redis: str
    functions: Mapping[str, str]
    """The endpoint of Lambda's Invoke API for each function except the ingest, by logical id."""


@dataclass(eq=False)
class LocalStack:
    """The whole pipeline. A context manager that starts and stops it.

    Attributes:
        folder: the folder for logs and data, emptied at the start.
        shards: number of shards of the stream.
        sender_seconds: how often to send what waits.
        window_seconds: how long the worker's batches may fill. Shorter than in a deployed stack, because somebody is watching.
        record: file to which the gateway appends each request, as one JSON object per line.
        accounts: the accounts in Redis.
        parameters: values of template parameters that differ from the local stack's.
        base_port: the first of the ports of `PORTS`; 0 for any free ports.
        parts: its processes, in the order of their start.
    """

    folder: Path
    _: KW_ONLY
    shards: int = 2
    sender_seconds: float = 30
    window_seconds: float = 1
    record: Path | None = None
    accounts: Mapping[str, Account] = field(default_factory=lambda: ACCOUNTS)
    parameters: Mapping[str, str] = field(default_factory=dict)
    base_port: int = 0
    parts: list[Part] = field(init=False, default_factory=list)
    _resources: Resources | None = field(init=False, default=None)
    _addresses: Addresses | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.folder = self.folder.resolve()

    @property
    def resources(self) -> Resources:
        """The AWS resources."""
        if self._resources is None:
            raise RuntimeError("the stack was not started")
        return self._resources

    @property
    def addresses(self) -> Addresses:
        """The addresses of the parts."""
        if self._addresses is None:
            raise RuntimeError("the stack was not started")
        return self._addresses

    def start(self) -> None:
        """Start all parts, and return when events can be sent and are delivered.

        If a part exits during the start, because another process took its port or the machine ran out of memory, all parts start
        once more.

        Raises:
            PartError: a part did not start; none is left running.
        """
        for is_last in (False, True):
            try:
                self._start()
            except PartError:
                self.stop()
                if is_last:
                    raise
            except BaseException:
                self.stop()
                raise
            else:
                return

    def stop(self) -> None:
        """Stop all parts, in reverse order, and return when they have exited."""
        running, self.parts = self.parts, []
        for part in reversed(running):
            part.stop()
        deadline = time.monotonic() + _STOP_SECONDS
        for part in reversed(running):
            part.wait(max(0.0, deadline - time.monotonic()))

    def check(self) -> None:
        """Return if every part is running.

        Raises:
            PartError: one exited.
        """
        for part in self.parts:
            part.check()

    def revive(self) -> list[str]:
        """Restart parts that have exited, and return a line for each.

        Raises:
            PartError: AWS or Treasure Data exited. They keep their data in memory.
        """
        lines = []
        for part in self.parts:
            if self.keeps_data(part):
                part.check()
            elif ended := part.revive():
                lines.append(f"{part.name} exited {ended} and was restarted")
        return lines

    @staticmethod
    def keeps_data(part: Part) -> bool:
        """Return whether a part has data in memory, so that it cannot be restarted."""
        return part.name in _KEEPING

    def part(self, name: str) -> Part:
        """Return the part with that name."""
        return next(part for part in self.parts if part.name == name)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _start(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        # These three depend on nothing, so they start in parallel; the functions depend on all of them.
        aws = self._run("aws", ["local.aws"])
        valkey = self._run("valkey", ["local.valkey", str(self.folder)])
        td = self._run("treasure-data", ["local.td_server"])
        redis_url = valkey.ready(_READY_SECONDS)["redis_url"]
        td_url = td.ready(_READY_SECONDS)["url"]
        endpoint = aws.ready(_READY_SECONDS)["endpoint"]
        try:
            self._resources = resources.create(
                endpoint,
                shards=self.shards,
                signing_secrets=SIGNING_SECRETS,
                td_api_key=API_KEY,
                redis_url=redis_url,
            )
        except BotoCoreError as error:
            aws.check()
            raise PartError(f"{aws.name} does not answer: {error}") from error
        with Redis.from_url(redis_url, decode_responses=True) as redis:
            keys = AccountKeys(self._resources.ledger_table)
            apply(redis, keys, self.accounts, time.time())
        entries = {name: account.to_entry() for name, account in self.accounts.items()}
        self._resources.client("s3").put_object(
            Bucket=self._resources.data_bucket,
            Key=policy.KEY,
            Body=policy.encode(entries, int(time.time() * 1000)),
        )
        overrides = functions.treasure_data_at(td_url) | dict(self.parameters)
        recorder = ["--record", str(self.record)] if self.record else []
        arguments = {
            functions.INGEST: recorder,
            functions.WORKER: ["--window", str(self.window_seconds)],
            functions.SENDER: ["--every", str(self.sender_seconds)],
        }
        started = {
            name: self._run_function(function, overrides, *arguments.get(function, ()))
            for name, function in FUNCTIONS.items()
            if function is not functions.SCALE
        }
        ready = {name: part.ready(_READY_SECONDS) for name, part in started.items()}
        gateway = ready.pop(functions.INGEST.name)["url"]
        invoked = {name: facts["invoke"] for name, facts in ready.items()}
        self._addresses = Addresses(gateway, td_url, endpoint, redis_url, invoked)

    def _run(self, name: str, arguments: list[str], environment: Mapping[str, str] | None = None) -> Part:
        inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        port = self.base_port + PORTS.index(name) if self.base_port else 0
        part = Part(name, arguments, inherited | dict(environment or {}), self.folder, port=port)
        self.parts.append(part)
        return part

    def _run_function(self, function: Function, overrides: Mapping[str, str], *arguments: str) -> Part:
        environment = functions.lambda_variables(function, self.resources.endpoint)
        environment |= functions.variables(function, self.resources, overrides)
        described = json.dumps(asdict(self.resources))
        return self._run(
            function.service,
            ["local.function_host", function.name, described, str(self.folder), *arguments],
            environment,
        )

    def describe(self) -> dict[str, Any]:
        """Return addresses, resources and process ids, as JSON values."""
        return {
            **asdict(self.addresses),
            "resources": asdict(self.resources),
            "pids": {part.name: part.pid for part in self.parts},
            "folder": str(self.folder),
        }

    def save(self, path: Path, **more: str) -> None:
        """Write the description, and more addresses, to a file atomically."""
        temporary = path.with_suffix(".new")
        temporary.write_text(json.dumps(self.describe() | more, indent=2) + "\n")
        temporary.replace(path)
