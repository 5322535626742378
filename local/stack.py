"""The whole pipeline on this machine: its parts as processes, started and ended together."""

import json
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from redis import Redis

from doubles.treasure_data import API_KEY
from local import functions, resources
from local.accounts import ACCOUNTS, SIGNING_SECRETS
from local.functions import Function
from local.part import Part, PartError
from local.resources import Resources
from shared.accounts import Account
from worker.register import apply

__all__ = ["Addresses", "PartError", "Stack"]

_READY_SECONDS = 30.0
_STOP_SECONDS = 8.0
_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ", "SSL_CERT_FILE", "COVERAGE_PROCESS_START")


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the parts of a running stack are."""

    gateway: str
    treasure_data: str
    aws: str
    redis: str
    functions: Mapping[str, str]
    """By logical id, where Lambda's Invoke API is; the ingest is behind the gateway alone."""


class Stack:
    """Everything that stands between a request and a row. A context manager: started inside, ended behind.

    Args:
        folder: where logs and Treasure Data's rows go; emptied at the start.
        shards: of the stream.
        redrive_seconds: how often what is set aside is sent again.
        window_seconds: for which the worker's batches may fill; a deployed worker waits longer, here somebody watches.
        record: where the gateway writes down each request, as one JSON object a line.
        accounts: what Redis is filled with.
        settings: variables of the functions' environment to set otherwise, by the function's logical id.
    """

    def __init__(
        self,
        folder: Path,
        *,
        shards: int = 2,
        redrive_seconds: float = 30,
        window_seconds: float = 1,
        record: Path | None = None,
        accounts: Mapping[str, Account] = ACCOUNTS,
        settings: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        self.folder = folder.resolve()
        self.parts: list[Part] = []
        self._shards = shards
        self._redrive_seconds = redrive_seconds
        self._window_seconds = window_seconds
        self._record = record
        self._accounts = accounts
        self._settings = settings or {}
        self._made: Resources | None = None
        self._addresses: Addresses | None = None

    @property
    def resources(self) -> Resources:
        """What was made in AWS."""
        if self._made is None:
            raise RuntimeError("the stack was not started")
        return self._made

    @property
    def addresses(self) -> Addresses:
        """Where the parts are."""
        if self._addresses is None:
            raise RuntimeError("the stack was not started")
        return self._addresses

    def start(self) -> None:
        """Start all parts and return when requests are taken and delivered.

        Raises:
            PartError: a part did not start; none is left running.
        """
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End all parts that were started, the last first, and return when they have ended."""
        running, self.parts = self.parts, []
        for part in reversed(running):
            part.stop()
        deadline = time.monotonic() + _STOP_SECONDS
        for part in reversed(running):
            part.wait(max(0.0, deadline - time.monotonic()))

    def check(self) -> None:
        """Return when every part runs.

        Raises:
            PartError: one ended.
        """
        for part in self.parts:
            part.check()

    def part(self, name: str) -> Part:
        """Return the part of that name."""
        return next(part for part in self.parts if part.name == name)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _start(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        # The first three stand on nothing, so they start side by side; the functions stand on all of them.
        aws = self._run("aws", ["local.aws"])
        valkey = self._run("valkey", ["local.valkey", str(self.folder)])
        td = self._run("treasure-data", ["local.standin"])
        redis_url = valkey.ready(_READY_SECONDS)["redis_url"]
        with Redis.from_url(redis_url, decode_responses=True) as redis:
            apply(redis, self._accounts, time.time())
        td_url = td.ready(_READY_SECONDS)["url"]
        endpoint = aws.ready(_READY_SECONDS)["endpoint"]
        self._made = resources.make(
            endpoint,
            shards=self._shards,
            signing_secrets=SIGNING_SECRETS,
            td_api_key=API_KEY,
            redis_url=redis_url,
        )
        recorder = ["--record", str(self._record)] if self._record else []
        ingest = self._run_function(functions.INGEST, td_url, *recorder)
        others = [
            self._run_function(functions.WORKER, td_url, "--window", str(self._window_seconds)),
            self._run_function(functions.REDRIVE, td_url, "--every", str(self._redrive_seconds)),
            self._run_function(functions.DRAIN, td_url),
            self._run_function(functions.ADMIN, td_url),
        ]
        gateway = ingest.ready(_READY_SECONDS)["url"]
        names = (functions.WORKER.name, functions.REDRIVE.name, functions.DRAIN.name, functions.ADMIN.name)
        invoked = {
            name: part.ready(_READY_SECONDS)["invoke"] for name, part in zip(names, others, strict=True)
        }
        self._addresses = Addresses(gateway, td_url, endpoint, redis_url, invoked)

    def _run(self, name: str, arguments: list[str], environment: Mapping[str, str] | None = None) -> Part:
        inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        part = Part(name, arguments, inherited | dict(environment or {}), self.folder)
        self.parts.append(part)
        return part

    def _run_function(self, function: Function, td_url: str, *arguments: str) -> Part:
        changes = self._settings.get(function.name, {})
        environment = functions.sandbox(function, self.resources.endpoint)
        environment |= functions.variables(function, self.resources, td_url, changes)
        made = json.dumps(asdict(self.resources))
        return self._run(function.service, ["local.sandbox", function.name, made, *arguments], environment)

    def describe(self) -> dict[str, Any]:
        """Return the addresses, the resources and the processes' ids, as JSON's types."""
        return {
            **asdict(self.addresses),
            "resources": asdict(self.resources),
            "pids": {part.name: part.pid for part in self.parts},
            "folder": str(self.folder),
        }

    def save(self, path: Path, **more: str) -> None:
        """Write `describe`'s answer, and more addresses, to a file, whole or not at all."""
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps(self.describe() | more, indent=2) + "\n")
        fresh.replace(path)
