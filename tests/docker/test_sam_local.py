"""`sam local invoke` and `sam local start-api` of the built functions, in Docker, over the local stack."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
import requests
from samcli.yamlhelper import yaml_dump, yaml_parse

from local import functions
from local.lambda_runtime import ARCHITECTURE
from local.stack import LocalStack
from tests.support.sam import ROOT
from tests.support.sluice import Sluice, until
from tests.support.tcp_proxy import TcpProxy

pytestmark = pytest.mark.xdist_group("docker")

_SECONDS = 120


class InDocker:
    """The built functions, in containers that reach the local stack at the gateway.

    Args:
        sluice: the stack.
        artifacts: the built template and functions.
        gateway: this machine, as containers see it.
        folder: where the template for this stack goes.
    """

    def __init__(self, sluice: Sluice, artifacts: Path, gateway: str, folder: Path) -> None:
        made, addresses = sluice.stack.resources, sluice.stack.addresses
        built = yaml_parse((artifacts / "template.yaml").read_text())
        overrides = functions.treasure_data_at(addresses.treasure_data)
        for name, function in functions.FUNCTIONS.items():
            variables = functions.variables(function, made, overrides)
            variables |= {"AWS_ENDPOINT_URL": made.endpoint}
            properties = built["Resources"][name]["Properties"]
            properties["CodeUri"] = str(artifacts / name)
            properties["Environment"] = {
                "Variables": {key: value.replace("127.0.0.1", gateway) for key, value in variables.items()}
            }
        self._template = folder / "template.yaml"
        self._template.write_text(yaml_dump(built))
        self._home = folder

    def invoke(self, function: str, event: Path) -> Any:
        """Invoke a function with an event and return its answer."""
        command = self._command("invoke", function, "--event", str(event))
        done = subprocess.run(
            command, env=self._environment(), check=False, capture_output=True, text=True, timeout=_SECONDS
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    @contextmanager
    def api(self) -> Iterator[str]:
        """Serve the HTTP API, its functions in containers that stay, and yield its URL."""
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port: int = probe.getsockname()[1]
        command = self._command("start-api", "--port", str(port), "--warm-containers", "LAZY")
        with (self._home / "start-api.log").open("wb") as log:
            process = subprocess.Popen(command, env=self._environment(), stdout=log, stderr=log)
        try:
            _await_port(port, process)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.send_signal(signal.SIGINT)  # at which it removes its containers
            process.wait(_SECONDS)

    def _command(self, verb: str, *arguments: str) -> list[str]:
        sam = str(Path(sys.executable).with_name("sam"))
        options = ["--template", str(self._template), "--skip-pull-image"]
        return [
            sam,
            "local",
            verb,
            *arguments,
            *options,
            "--parameter-overrides",
            f"Architecture={ARCHITECTURE}",
        ]

    def _environment(self) -> dict[str, str]:
        return os.environ | {
            "AWS_ACCESS_KEY_ID": "local",
            "AWS_SECRET_ACCESS_KEY": "local",
            "AWS_DEFAULT_REGION": "us-east-1",
            "SAM_CLI_TELEMETRY": "0",
            "__SAM_CLI_APP_DIR": str(self._home),
        }


def _await_port(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError("sam local start-api does not listen")


@pytest.fixture(scope="module")
def sluice(docker_gateway: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sluice]:
    """A local stack that containers reach, too."""
    home = tmp_path_factory.mktemp("sluice")
    with ExitStack() as parts:
        stack = parts.enter_context(LocalStack(home / "stack", redrive_seconds=3600))
        addresses, made = stack.addresses, stack.resources
        for url in (addresses.aws, addresses.treasure_data, addresses.redis):
            parts.enter_context(TcpProxy(url, docker_gateway, urlsplit(url).port or 0))
        redis_url = addresses.redis.replace("127.0.0.1", docker_gateway)
        made.client("secretsmanager").put_secret_value(SecretId=made.redis_url_secret, SecretString=redis_url)
        yield Sluice(stack, home)


@pytest.fixture(scope="module")
def in_docker(
    sluice: Sluice,
    artifacts: Path,
    docker_gateway: str,
    lambda_image: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> InDocker:
    """The functions in containers."""
    assert lambda_image
    return InDocker(sluice, artifacts, docker_gateway, tmp_path_factory.mktemp("template"))


@pytest.mark.parametrize("name", ["pixel", "events-gzip", "beacon", "mistake-forged-key"])
def test_the_ingest_takes_recorded_requests(in_docker: InDocker, name: str) -> None:
    """What a browser once sent is answered in the container as it was then."""
    answer = in_docker.invoke("IngestFunction", ROOT / "events" / "http" / f"{name}.json")

    assert (401 if name.startswith("mistake") else 200) == answer["statusCode"], answer


def test_the_api_is_served_from_the_template(in_docker: InDocker, sluice: Sluice) -> None:
    """A pixel and a post reach the ingest by the template's own route, and become rows."""
    key = sluice.key("shop")
    query = {"k": key, "t": "served", "event_id": "a"}
    event = {"table": "served", "event_id": "b"}
    with in_docker.api() as url:
        pixel = requests.get(f"{url}/pixel.gif?{urlencode(query)}", timeout=_SECONDS)
        # The key goes by the query: `sam local` leaves headers' names as they come, AWS makes them lower case.
        post = requests.post(f"{url}/v1/events?k={key}", json={"events": [event]}, timeout=_SECONDS)

    assert (200, b"GIF89a") == (pixel.status_code, pixel.content[:6])
    assert {"accepted": 1, "rejected": []} == post.json()
    until(lambda: sluice.rows("shop", "served") == ["a", "b"])


def test_the_worker_takes_an_event_that_was_recorded(
    in_docker: InDocker, sluice: Sluice, tmp_path: Path
) -> None:
    """Records of the stream, written by `sluice record`, are delivered in the container; twice, they are so once."""
    sluice.send("shop", "docked", "a", "b")
    until(lambda: sluice.rows("shop", "docked") == ["a", "b"])
    assert 2 == sluice.lose("shop", "docked")
    event = _recorded(sluice, tmp_path)
    event.write_text(json.dumps(json.loads(event.read_text()) | {"forced": {"tag": "docker"}}))

    for _ in range(2):
        assert {"batchItemFailures": []} == in_docker.invoke("WorkerFunction", event)
        assert ["a", "b"] == sluice.rows("shop", "docked")


def _recorded(sluice: Sluice, folder: Path) -> Path:
    """Record each shard and return the event that holds rows of the table `docked`."""
    for shard in [one["shard"] for one in sluice.json("status --local")["shards"]]:
        file = folder / f"{shard}.json"
        if sluice.run(f"record --local --shard {shard} --count 100 -o {file}").exit_code == 0:
            return file
    raise AssertionError("nothing is on the stream")
