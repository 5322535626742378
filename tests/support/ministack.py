"""An AWS emulator as a process, for `sam deploy`. It runs functions as processes of its own, without Docker."""

import os
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import boto3

from tests.support.sam import ROOT

_PROGRAM = ROOT / ".venv-emulator" / "bin" / "ministack"
_START_SECONDS = 60


class Ministack:
    """The emulator on a free port, as a context manager. Everything that it writes goes to the folder.

    Attributes:
        url: its endpoint.
        environment: variables with which AWS's tools and clients speak to it.
    """

    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self._port: int = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        self.log = folder / "ministack.log"
        self._folder = folder
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "SAM_CLI_TELEMETRY": "0",
        }

    def __enter__(self) -> Self:
        scratch = self._folder / "scratch"
        scratch.mkdir()
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self._folder),
            "TMPDIR": str(scratch),
            "S3_DATA_DIR": str(scratch / "s3"),
            "STATE_DIR": str(scratch / "state"),
            "GATEWAY_PORT": str(self._port),
            "BIND_HOST": "127.0.0.1",
            "LAMBDA_EXECUTOR": "local",
            "SFTP_ENABLED": "0",
            "IOT_MTLS_ENABLED": "0",
        }
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [str(_PROGRAM)],
                cwd=scratch,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self._port), 1).close()
            except OSError:
                time.sleep(0.05)
            else:
                return self
        raise AssertionError(f"the emulator did not start: {self.log.read_text()}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # It ends the functions' processes, which it started, by itself.
        self._process.terminate()
        self._process.wait(30)

    def client(self, service: str) -> Any:
        """Return a boto3 client of the emulator."""
        return boto3.client(
            service,
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )
