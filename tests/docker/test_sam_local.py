"""The commands in events/README.md, run as written: the unmodified built template in Docker, with the local stack."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import requests

from local import containers
from local.lambda_runtime import ARCHITECTURE
from local.stack import LocalStack
from tests.support.sam import ROOT
from tests.support.sluice import Sluice, until

pytestmark = pytest.mark.xdist_group("docker")

_SECONDS = 120
_ROW = re.compile(r"^\| `(sam local invoke [^`]+)` \| `(\{[^`]+\})`", re.MULTILINE)
COMMANDS = dict(_ROW.findall((ROOT / "events" / "README.md").read_text()))


class Project:
    """A clone in which `sam build` has run.

    Args:
        folder: an empty folder.
        artifacts: the output of `sam build`.
    """

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
            process = subprocess.Popen(
                command, cwd=self.folder, env=self.environment(), stdout=log, stderr=log
            )
        try:
            _await_port(port, process)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.send_signal(signal.SIGINT)  # on this signal it removes its containers
            process.wait(_SECONDS)


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


def _told(line: str) -> dict[str, Any]:
    """Return the output of a command as given on the page."""
    found: dict[str, Any] = json.loads(COMMANDS[line])
    return found


def test_the_page_has_a_command_for_every_function_that_events_invoke() -> None:
    """Each command uses a recorded event."""
    assert {"IngestFunction", "WorkerFunction", "DrainFunction", "SenderFunction"} == {
        line.split()[3] for line in COMMANDS
    }


@pytest.mark.parametrize("line", [line for line in COMMANDS if "Ingest" in line])
def test_the_ingest_answers_recorded_requests(project: Project, sluice: Sluice, line: str) -> None:
    """Requests recorded from a browser get the same responses in the container."""
    assert sluice.stack
    answer = project.run(line)

    assert _told(line) == {name: answer.get(name) for name in _told(line)}


def test_the_worker_and_the_redrive_settle_recorded_events(project: Project, sluice: Sluice) -> None:
    """Rows are delivered once, however often the event is sent. Dead rows are sent again by hand."""
    lines = [line for line in COMMANDS if "Worker" in line or "Sender" in line]
    said = [project.run(line) for line in lines]
    rows = sluice.rows("shop", "searches")
    again = project.run(lines[0])

    assert [_told(line) for line in lines] == said
    assert _told(lines[0]) == again
    assert 2 == len(rows)
    assert rows == sluice.rows("shop", "searches")


def test_the_drainer_processes_a_recorded_message_once(project: Project, sluice: Sluice) -> None:
    """The message is sent twice. The sender finds that only one of both counts."""
    (line,) = (line for line in COMMANDS if "Drain" in line)
    before = len(sluice.rows("shop", "carts"))
    said = [project.run(line), project.run(line)]
    sluice.run("redrive --local --kind again")
    until(lambda: len(sluice.rows("shop", "carts")) > before)
    sluice.settled()

    assert [_told(line)] * 2 == said
    assert before + 1 == len(sluice.rows("shop", "carts"))


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
