"""A built function in Lambda's real runtime: awslambdaric under the emulator that aws-sam-cli includes."""

import json
import os
import platform
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from http.client import HTTPConnection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import samcli

from local.part import listens

ARCHITECTURE = {"x86_64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}[platform.machine()]
"""This machine's architecture, by Lambda's name."""

_EMULATOR = Path(samcli.__file__).parent / "local" / "rapid" / f"aws-lambda-rie-{ARCHITECTURE}"
_START_SECONDS = 30

# What Lambda provides: its runtime client. Of its boto3, which AWS updates at any time, no function may use anything.
_LIBRARIES = ("awslambdaric", "runtime_client*.so", "simplejson", "snapshot_restore_py.py")


class LambdaRuntime:
    """One execution environment of one function, as a context manager.

    Args:
        code: the folder of the built function.
        handler: the handler, as in the template.
        environment: the function's variables.
        libraries: the folder of the libraries that Lambda provides, which follows the function's code on the path.
        folder: the folder for the emulator and its log.
        timeout: the function's timeout in seconds.
    """

    def __init__(
        self,
        code: Path,
        handler: str,
        *,
        environment: Mapping[str, str],
        libraries: Path,
        folder: Path,
        timeout: int = 30,
    ) -> None:
        self.log = folder / "runtime.log"
        self._code = code
        self._port, runtime_port = _free_ports()
        emulator = Path(shutil.copy(_EMULATOR, folder / "emulator"))
        emulator.chmod(0o755)
        # No site packages: the function can import only its own zip and what Lambda provides.
        interpreter = str(Path(sys.executable).resolve())  # outside the virtual environment
        python = [interpreter, "-s", "-S", "-m", "awslambdaric"]
        self._command = [str(emulator), "--runtime-interface-emulator-address", f"127.0.0.1:{self._port}"]
        self._command += ["--runtime-api-address", f"127.0.0.1:{runtime_port}", *python, handler]
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "PYTHONPATH": f"{code}:{libraries}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "LAMBDA_TASK_ROOT": str(code),
            "AWS_LAMBDA_FUNCTION_NAME": handler.partition(".")[0],
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "1024",
            "AWS_LAMBDA_FUNCTION_TIMEOUT": str(timeout),
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            **environment,
        }

    def __enter__(self) -> Self:
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 -- our own command
                self._command,
                cwd=self._code,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        if listens(self._process, self._port, _START_SECONDS):
            return self
        self._end()
        raise AssertionError(f"the emulator did not start: {self.log.read_text()}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        # The emulator ends the runtime's process itself.
        self._process.terminate()
        self._process.wait(10)

    def invoke(self, event: Any) -> Any:
        """Return the handler's result, or Lambda's own text if there is no result."""
        answer = self.invoke_raw(event)
        try:
            return json.loads(answer)
        except ValueError:
            return answer

    def invoke_raw(self, event: Any) -> str:
        """Return the response of the Invoke API, as text."""
        connection = HTTPConnection("127.0.0.1", self._port, timeout=60)
        try:
            connection.request("POST", "/2015-03-31/functions/function/invocations", json.dumps(event))
            return connection.getresponse().read().decode()
        finally:
            connection.close()


def link_runtime(folder: Path, *more: str) -> Path:
    """Fill a folder with links to the libraries that Lambda provides, and to more, given as globs; return it."""
    site = Path(samcli.__file__).parents[1]
    for pattern in (*_LIBRARIES, *more):
        (source,) = site.glob(pattern)
        (folder / source.name).symlink_to(source)
    return folder


def _free_ports() -> tuple[int, int]:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        return one.getsockname()[1], other.getsockname()[1]
