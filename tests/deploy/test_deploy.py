"""`sam deploy` of the real template, unmodified, against an emulator of AWS; then a pixel becomes a row.

What the emulator (ministack) cannot do, so that these tests cannot show it:

- Its mapping of the stream knows no ReportBatchItemFailures, retries, age, batch window or destination: records that
  the worker holds are not delivered again. So everything that the worker needs is in place before the first event.
- Its functions run in processes of this machine, without Lambda's memory limit, time-out, read-only file system or
  architecture; tests/runtime shows the same artifacts in Lambda's own runtime.
- Roles are taken but not enforced, and neither are throttling and access logs of the HTTP API.
- Encryption is taken but not done.
"""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
import redis

from local import valkey
from local.treasure_data import API_KEY, Request, Response, Server, TreasureData
from shared import accounts, write_key
from tests.support.artifacts import ARCHITECTURE
from tests.support.ministack import Ministack
from tests.support.sam import ROOT

pytestmark = pytest.mark.xdist_group("deploy")

STACK = "sluice-dev"
ARRIVAL_SECONDS = 60


class Destination:
    """Treasure Data's stand-in behind a port, with a flag that is raised when an import has been taken."""

    def __init__(self) -> None:
        self.core = TreasureData()
        self.imported = threading.Event()
        self.server = Server(self._handle)

    def _handle(self, request: Request) -> Response:
        response = self.core.handle(request)
        if "import_with_id" in request.segments and self.core.imports():
            self.imported.set()
        return response


def sam(emulator: Ministack, *arguments: str) -> str:
    """Run sam against the emulator and return what it said."""
    command = [str(Path(sys.executable).with_name("sam")), *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env=emulator.environment, check=False, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    return done.stdout


def deploy(emulator: Ministack, template: Path, **parameters: str) -> None:
    """Deploy as samconfig.toml says, with more parameters."""
    chosen = {"Stage": "dev", "StreamMode": "PROVISIONED", "Architecture": ARCHITECTURE, **parameters}
    overrides = [f"{name}={value}" for name, value in chosen.items()]
    sam(
        emulator,
        "deploy",
        "--template-file",
        str(template),
        "--config-file",
        str(ROOT / "samconfig.toml"),
        "--parameter-overrides",
        *overrides,
    )


def outputs(emulator: Ministack) -> dict[str, str]:
    """Return the stack's outputs by name."""
    (stack,) = emulator.client("cloudformation").describe_stacks(StackName=STACK)["Stacks"]
    return {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}


@pytest.fixture
def emulator(tmp_path: Path) -> Iterator[Ministack]:
    """An AWS without anything in it."""
    with Ministack(tmp_path) as running:
        yield running


@pytest.fixture
def destination() -> Iterator[Destination]:
    """A Treasure Data without databases."""
    running = Destination()
    with running.server:
        yield running
    running.core.close()


@pytest.fixture
def redis_url(tmp_path: Path) -> Iterator[str]:
    """The URL of a Redis without accounts."""
    process, port = valkey.start(tmp_path)
    yield f"redis://127.0.0.1:{port}/0"
    process.terminate()
    process.wait(10)


def apply_account(redis_url: str) -> None:
    """Map the account `shop` to the database `shop`."""
    with redis.Redis.from_url(redis_url) as client:
        client.hset(accounts.redis_key("shop"), mapping=accounts.Account("shop").to_fields())
        client.hset(accounts.SENTINEL, mapping={"at": "0", "count": "1"})


def pixel(emulator: Ministack, api_url: str, **parameters: str) -> tuple[int, str | None, bytes]:
    """Request the pixel from the deployed API."""
    connection = HTTPConnection("127.0.0.1", urlsplit(emulator.url).port or 0, timeout=60)
    try:
        host = {"Host": urlsplit(api_url).netloc}
        connection.request("GET", f"/pixel.gif?{urlencode(parameters)}", headers=host)
        answer = connection.getresponse()
        return answer.status, answer.getheader("content-type"), answer.read()
    finally:
        connection.close()


def test_a_pixel_becomes_a_row_of_a_deployed_stack(
    artifacts: Path, emulator: Ministack, destination: Destination, redis_url: str
) -> None:
    """One deploy brings everything up; with the two secrets filled, a pixel is a row; one delete takes all down."""
    url = destination.server.url
    deploy(
        emulator, artifacts / "template.yaml", TdImportEndpoint=url, TdApiEndpoint=url, BatchWindowSeconds="0"
    )
    stack = outputs(emulator)
    secrets: Any = emulator.client("secretsmanager")
    secrets.put_secret_value(SecretId=stack["TdApiKeySecret"], SecretString=API_KEY)
    secrets.put_secret_value(SecretId=stack["RedisUrlSecret"], SecretString=redis_url)
    apply_account(redis_url)
    signing = json.loads(secrets.get_secret_value(SecretId=stack["WriteKeySecret"])["SecretString"])
    key = write_key.sign("shop", "k1", signing["k1"])

    status, content_type, body = pixel(emulator, stack["ApiUrl"], k=key, t="pageviews", page="/welcome")
    assert (200, "image/gif", b"GIF89a") == (status, content_type, body[:6]), emulator.log.read_text()
    assert destination.imported.wait(ARRIVAL_SECONDS), emulator.log.read_text()
    assert ["/welcome"] == [row["page"] for row in destination.core.rows("shop", "pageviews")]

    sam(emulator, "delete", "--stack-name", STACK, "--no-prompts", "--region", "us-east-1")
    assert [] == emulator.client("kinesis").list_streams()["StreamNames"]
    assert [] == emulator.client("lambda").list_functions()["Functions"]
