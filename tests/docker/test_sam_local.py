"""The commands in events/README.md, run as written: the unmodified built template in Docker, with the local stack."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import requests

from local import containers
from local.lambda_runtime import ARCHITECTURE
from local.part import listens
from local.stack import LocalStack
from tests.support.sam import ROOT
from tests.support.sluice import Sluice, until

pytestmark = pytest.mark.xdist_group("docker")

_SECONDS = 120
_ROW = re.compile(r"^\| `(sam local invoke [^`]+)` \| `(\{[^`]+\})`", re.MULTILINE)
COMMANDS = dict(_ROW.findall((ROOT / "events" / "README.md").read_text()))


class Project:
    """A clone in an empty folder, with the output of `sam build`."""

    def __init__(self, folder: Path, artifacts: Path) -> None:
        for name in ("events", "samconfig.toml", "template.yaml"):
            (folder / name).symlink_to(ROOT / name)
        (folder / ".local").mkdir()
        (folder / ".aws-sam").mkdir()
        (folder / ".aws-sam" / "build").symlink_to(artifacts)
        self.folder = folder

    def environment(self) -> dict[str, str]:
        """Return an environment without AWS credentials. The image has already been pulled."""
        return {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(self.folder),
            "SAM_CLI_TELEMETRY": "0",
            "SAM_SKIP_PULL_IMAGE": "true",
        }

    def command(self, line: str) -> list[str]:
        """Return a command line of the page, with the option that it requires for this machine's processor."""
        added = [] if ARCHITECTURE == "arm64" else ["--parameter-overrides", f"Architecture={ARCHITECTURE}"]
        return [*shlex.split(line), *added]

    def run(self, line: str) -> Any:
        """Run a command line and return what it prints."""
        done = subprocess.run(
            self.command(line),
            cwd=self.folder,
            env=self.environment(),
            check=False,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    @contextmanager
    def api(self) -> Iterator[str]:
        """Serve the HTTP API on a free port instead of 3000, and yield its URL."""
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port: int = probe.getsockname()[1]
        command = self.command(f"sam local start-api --port {port}")
        with (self.folder / "start-api.log").open("wb") as log:
            variables = self.environment()
            process = subprocess.Popen(command, cwd=self.folder, env=variables, stdout=log, stderr=log)
        try:
            assert listens(process, port, _SECONDS)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.send_signal(signal.SIGINT)  # on this signal it removes its containers
            process.wait(_SECONDS)


@pytest.fixture(scope="module")
def project(artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The clone."""
    return Project(tmp_path_factory.mktemp("project"), artifacts)


@pytest.fixture(scope="module")
def sluice(
    project: Project, docker_gateway: str, lambda_image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Sluice]:
    """A local stack as `make up` runs it. `.local/sam.json` exists while it runs."""
    assert lambda_image
    home = tmp_path_factory.mktemp("sluice")
    with (
        LocalStack(home / "stack", sender_seconds=3600) as stack,
        containers.reachable(stack, project.folder / ".local", docker_gateway),
    ):
        yield Sluice(stack, home)


def test_each_command_prints_what_the_page_says(project: Project, sluice: Sluice) -> None:
    """There is one for every function that events invoke. However often an event is sent, its rows are delivered once."""
    tables = (("shop", "searches"), ("shop", "carts"))
    before: list[int] = []
    for _ in range(2):
        for line, told in COMMANDS.items():
            answer = project.run(line)
            assert json.loads(told).items() <= answer.items(), line
        until(lambda: all(sluice.rows(*table) for table in tables))
        sluice.run("redrive --local --kind again")
        sluice.settled()
        before.append(sum(len(sluice.rows(*table)) for table in tables))

    functions = {line.split()[3] for line in COMMANDS}
    assert {"IngestFunction", "WorkerFunction", "DrainFunction", "SenderFunction"} == functions
    assert before[0] == before[1]


def test_sam_local_serves_the_template_s_api(project: Project, sluice: Sluice) -> None:
    """A pixel and a POST request reach the ingest through the template's own route and become rows."""
    key = sluice.key("shop")
    query = {"k": key, "t": "served", "event_id": "a"}
    event = {"table": "served", "event_id": "b"}
    with project.api() as url:
        pixel = requests.get(f"{url}/pixel.gif?{urlencode(query)}", timeout=_SECONDS)
        post = requests.post(f"{url}/v1/events?k={key}", json={"events": [event]}, timeout=_SECONDS)

    assert (200, b"GIF89a") == (pixel.status_code, pixel.content[:6])
    assert {"accepted": 1, "rejected": []} == post.json()
    until(lambda: sluice.rows("shop", "served") == ["a", "b"])
