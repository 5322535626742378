"""An AWS emulator for `sam deploy`. It runs functions as its own processes, without Docker, enforces all policies, and uses TLS, because ours demand it."""

import json
import os
import socket
import subprocess
from pathlib import Path
from typing import Any, Self

import boto3

from local.part import listens
from tests.support import certificate
from tests.support.handlers import by_operation
from tests.support.sam import ROOT

_SERVER = ROOT / ".venv-emulator" / "bin" / "hypercorn"
_START_SECONDS = 60


class Ministack:
    """The emulator on a free port. AWS's tools use it with the variables in `environment` as the account's owner, and with those in `users` as others."""

    def __init__(self, folder: Path, cache_port: int = 6379) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))  # nobody else may take the port
        self._port: int = self._listening.getsockname()[1]
        self.url = f"https://127.0.0.1:{self._port}"
        self.certificate, self._key = certificate.make(folder)
        self.log = folder / "ministack.log"
        self._folder = folder
        self._cache_port = cache_port
        self._session: Any = boto3.Session("test", "test", region_name="us-east-1")
        self._clients: dict[str, Any] = {}
        self.users: dict[str, dict[str, str]] = {}
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CA_BUNDLE": str(self.certificate),
            "SAM_CLI_TELEMETRY": "0",
            "SAM_CLI_POLL_DELAY": "0.2",
        }

    def __enter__(self) -> Self:
        scratch = self._folder / "scratch"
        scratch.mkdir()
        handlers = self._folder / "handlers.json"
        handlers.write_text(json.dumps(by_operation()))
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "HANDLERS": str(handlers),
            "HOME": str(self._folder),
            "TMPDIR": str(scratch),
            "S3_DATA_DIR": str(scratch / "s3"),
            "STATE_DIR": str(scratch / "state"),
            "GATEWAY_PORT": str(self._port),
            "BIND_HOST": "127.0.0.1",
            "LAMBDA_EXECUTOR": "local",
            "AUTH": "true",
            "CACHE_PORT": str(self._cache_port),
            "USE_SSL": "1",
            "MINISTACK_SSL_CERT": str(self.certificate),
            "MINISTACK_SSL_KEY": str(self._key),
            "SFTP_ENABLED": "0",
            "IOT_MTLS_ENABLED": "0",
        }
        # The emulator's own command would also serve on port 443.
        command = [str(_SERVER), "tests.support.emulator_app:app", "--workers", "0", "--keep-alive", "75"]
        command += ["--bind", f"fd://{self._listening.fileno()}"]
        command += ["--certfile", str(self.certificate), "--keyfile", str(self._key)]
        with self._listening as kept, self.log.open("wb") as log:
            streams: Any = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
            streams["pass_fds"] = [kept.fileno()]
            self._process = subprocess.Popen(command, cwd=scratch, env=environment, **streams)
        if listens(self._process, self._port, _START_SECONDS):
            return self
        self._end()
        raise AssertionError(f"the emulator did not start: {self.log.read_text()}")

    def __exit__(self, *_: object) -> None:
        for client in self._clients.values():
            client.close()  # the emulator would wait for their connections
        self._end()

    def _end(self) -> None:
        # On SIGTERM it would wait half a minute for connections of the functions' processes, which end with it.
        self._process.kill()
        self._process.wait()

    def client(self, service: str) -> Any:
        """Return a boto3 client of the emulator."""
        if service not in self._clients:
            place = {"endpoint_url": self.url, "verify": str(self.certificate)}
            self._clients[service] = self._session.client(service, **place)
        return self._clients[service]
