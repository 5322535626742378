"""`sam local invoke` of the built functions, in Docker, over the local stack."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from samcli.yamlhelper import yaml_dump, yaml_parse

from local import functions
from local.stack import Stack
from tests.support.artifacts import ARCHITECTURE
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
        for name, function in functions.FUNCTIONS.items():
            variables = functions.variables(function, made, addresses.treasure_data, {})
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
        command = [str(Path(sys.executable).with_name("sam")), "local", "invoke", function]
        command += ["--template", str(self._template), "--event", str(event), "--skip-pull-image"]
        command += ["--parameter-overrides", f"Architecture={ARCHITECTURE}"]
        environment = os.environ | {
            "AWS_ACCESS_KEY_ID": "local",
            "AWS_SECRET_ACCESS_KEY": "local",
            "AWS_DEFAULT_REGION": "us-east-1",
            "SAM_CLI_TELEMETRY": "0",
            "__SAM_CLI_APP_DIR": str(self._home),
        }
        done = subprocess.run(
            command, env=environment, check=False, capture_output=True, text=True, timeout=_SECONDS
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def sluice(docker_gateway: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sluice]:
    """A local stack that containers reach, too."""
    home = tmp_path_factory.mktemp("sluice")
    with ExitStack() as parts:
        stack = parts.enter_context(Stack(home / "stack", redrive_seconds=3600))
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
