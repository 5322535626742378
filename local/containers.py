"""Lets functions run in containers with the local stack, as `sam local invoke` and `sam local start-api` run them.

The SAM CLI resolves references to resources to empty strings. So the local stack writes a file with the real values, which
samconfig.toml passes to `sam local` as `--env-vars`. Containers reach this machine by an address other than 127.0.0.1, from
which connections are forwarded to the stack's services.
"""

import json
import platform
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from doubles.tcp_proxy import TcpProxy
from local import functions
from local.stack import LocalStack

VARIABLES = "sam.json"
"""The file's name, in the folder of the local stack."""

_DOCKER_DESKTOP = "192.168.65.254"
"""This machine's address in containers of Docker Desktop, which forwards it to 127.0.0.1."""
_SECRET = "sluice-local-redis-url-for-containers"  # noqa: S105 -- a name


def gateway() -> str | None:
    """Return this machine's address in Docker's default network; None if Docker is not running."""
    command = ["docker", "network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Gateway}}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)  # noqa: S603 -- our own arguments
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


@contextmanager
def reachable(stack: LocalStack, folder: Path, host: str | None) -> Iterator[Path]:
    """Let containers reach a running stack during the block, and yield the file with the functions' variables.

    Args:
        stack: the stack.
        folder: where to write the file.
        host: this machine's address in Docker's network; None if Docker is not running.
    """
    made, addresses = stack.resources, stack.addresses
    seen = host or "127.0.0.1"
    with ExitStack() as parts:
        if host and platform.system() == "Linux":
            for url in (addresses.aws, addresses.treasure_data, addresses.redis):
                parts.enter_context(TcpProxy(url, host, urlsplit(url).port or 0))
        elif host:
            seen = _DOCKER_DESKTOP
        url = addresses.redis.replace("127.0.0.1", seen)
        made.client("secretsmanager").create_secret(Name=_SECRET, SecretString=url)
        named = replace(made, redis_url_secret=_SECRET)
        overrides = functions.treasure_data_at(addresses.treasure_data)
        found: dict[str, dict[str, str]] = {}
        for name, function in functions.FUNCTIONS.items():
            values = functions.variables(function, named, overrides) | {"AWS_ENDPOINT_URL": made.endpoint}
            found[name] = {key: value.replace("127.0.0.1", seen) for key, value in values.items()}
        file = folder / VARIABLES
        file.write_text(json.dumps(found, indent=2) + "\n")
        try:
            yield file
        finally:
            file.unlink()
