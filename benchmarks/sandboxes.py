"""Handlers in Lambda's real runtime, each in a sandbox of its own: the built ingest, and those that it is compared with."""

import json
import os
import shutil
import site
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks import contenders, services
from local.lambda_runtime import ARCHITECTURE, LambdaRuntime, link_runtime
from ops.package import package
from shared import write_key

KEY = write_key.sign("shop", "k1", services.SECRETS["k1"])
_CONTENDERS = Path(contenders.__file__).parent


class Contender(NamedTuple):
    """One handler.

    Attributes:
        label: for people.
        module: whose `handler` is measured.
        packages: globs of what its zip would hold beside its own code; the ingest's is built.
    """

    label: str
    module: str
    packages: tuple[str, ...] = ()


SLUICE = Contender("Sluice", "ingest.app")
BOTO3_ONLY = Contender("boto3 and a Kinesis client", "boto3_only")
BARE = Contender("bare handler: boto3 put_record", "bare")
RESOLVER = Contender(
    "Powertools HTTP resolver",
    "resolver",
    ("aws_lambda_powertools", "jmespath", "typing_extensions.py", "msgpack"),
)
_TD_CLIENT = ("tdclient", "td_client-*.dist-info", "msgpack", "certifi")
DIRECT = Contender("td-client per event", "direct", _TD_CLIENT)
DIRECT_BY_HAND = Contender("td-client, packed by hand", "direct_by_hand", _TD_CLIENT)


class Sandboxes:
    """Starts contenders' sandboxes beside stand-ins of AWS and Treasure Data that answer at once.

    Args:
        folder: for builds and logs.
        url: of the stand-ins.
    """

    def __init__(self, folder: Path, url: str) -> None:
        self._folder = folder
        self._url = url
        self._libraries = folder / "runtime"
        self._libraries.mkdir()
        link_runtime(self._libraries)
        self._started = 0
        uv = shutil.which("uv") or ".cache/uv/bin/uv"
        package("ingest", ARCHITECTURE, folder / SLUICE.module, uv)

    @contextmanager
    def running(self, contender: Contender, data_bytes: int = 0) -> Iterator[LambdaRuntime]:
        """Run one sandbox while the block lasts.

        Args:
            contender: what runs there.
            data_bytes: how many bytes the bare handler puts.
        """
        code = self._folder / contender.module
        if not code.exists():
            code.mkdir()
            for pattern in contender.packages:
                (source,) = Path(site.getsitepackages()[0]).glob(pattern)
                (code / source.name).symlink_to(source)
        self._started += 1
        folder = self._folder / f"sandbox-{self._started}"
        folder.mkdir()
        environment = {
            **self._environment(),
            "PYTHONPATH": os.pathsep.join([str(code), str(_CONTENDERS), str(self._libraries)]),
            "MEASURED": contender.module,
            "DATA_BYTES": str(data_bytes),
        }
        with LambdaRuntime(
            code, "measured.handler", environment=environment, libraries=self._libraries, folder=folder
        ) as sandbox:
            yield sandbox

    def _environment(self) -> Mapping[str, str]:
        return {
            "AWS_ENDPOINT_URL": self._url,
            "TD_API_SERVER": self._url,
            "STREAM_NAME": "events",
            "OVERFLOW_QUEUE_URL": f"{self._url}/queue",
            "WRITE_KEY_SECRET": "keys",
            "STAGE": "benchmark",
            "POWERTOOLS_SERVICE_NAME": "ingest",
            "POWERTOOLS_METRICS_NAMESPACE": "Sluice",
        }


@contextmanager
def sandboxes() -> Iterator[Sandboxes]:
    """Build the ingest and let stand-ins answer while the block lasts."""
    with tempfile.TemporaryDirectory() as folder, services.running() as url:
        yield Sandboxes(Path(folder), url)


class Spent(NamedTuple):
    """CPU seconds of one request, and the most memory that the sandbox's process has had, in MiB."""

    cpu: float
    peak_mib: float


def spent(sandbox: LambdaRuntime, event: object, repeats: int) -> Spent:
    """Let a sandbox's handler answer a request so many times.

    Raises:
        RuntimeError: it failed.
    """
    answer = sandbox.invoke({"event": event, "repeats": repeats})
    if not isinstance(answer, dict) or "cpu" not in answer:
        raise RuntimeError(json.dumps(answer)[:2000])
    return Spent(answer["cpu"], answer["peak_kib"] / 1024)
