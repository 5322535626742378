"""Runs the built ingest, and the handlers to compare it with, in Lambda's runtime, each in its own process."""

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
from local import functions
from local.lambda_runtime import ARCHITECTURE, LambdaRuntime, link_runtime
from local.resources import Resources
from release.function_zip import package
from shared import write_key

KEY = write_key.sign("shop", "k1", services.SECRETS["k1"])
_CONTENDERS = Path(contenders.__file__).parent


class Contender(NamedTuple):
    """A handler to measure.

    Attributes:
        label: its name in tables and charts.
        module: the module with the function `handler`.
        packages: globs of the packages in its zip; unused for the ingest, whose zip is built.
        bucket: the bucket in which it looks for an edge policy.
    """

    label: str
    module: str
    packages: tuple[str, ...] = ()
    bucket: str = "empty"


SLUICE = Contender("Sluice", "ingest.app")
PLANNED = Contender("Sluice with a tracking plan", "ingest.app", bucket=services.PLAN_BUCKET)
BOTO3_ONLY = Contender("boto3 and a Kinesis client", "boto3_only")
BARE = Contender("bare handler: boto3 put_record", "bare")
RESOLVER = Contender(
    "Powertools HTTP resolver",
    "resolver",
    ("aws_lambda_powertools", "jmespath", "typing_extensions.py", "msgpack"),
)
_SDK = ("boto3", "botocore", "s3transfer", "dateutil", "six.py", "jmespath", "urllib3")
"""What Lambda's runtime has of AWS's SDK, for handlers that do not bring their own."""
_TD_CLIENT = ("tdclient", "td_client-*.dist-info", "msgpack", "certifi")
DIRECT = Contender("td-client per event", "direct", _TD_CLIENT)
DIRECT_BY_HAND = Contender("td-client, packed by hand", "direct_by_hand", _TD_CLIENT)


class Runtimes:
    """Starts handlers that call a double of AWS and Treasure Data, which responds immediately.

    Args:
        folder: the folder for builds and logs.
        url: the double's address.
    """

    def __init__(self, folder: Path, url: str) -> None:
        self._folder = folder
        self._url = url
        self._libraries = folder / "runtime"
        self._libraries.mkdir()
        link_runtime(self._libraries, *_SDK)
        self._started = 0
        uv = shutil.which("uv") or ".cache/uv/bin/uv"
        package("ingest", ARCHITECTURE, folder / SLUICE.module, uv)

    @contextmanager
    def running(self, contender: Contender, data_bytes: int = 0) -> Iterator[LambdaRuntime]:
        """Run a handler for the duration of the block.

        Args:
            contender: the handler.
            data_bytes: the number of bytes that the bare handler puts.
        """
        code = self._folder / contender.module
        if not code.exists():
            code.mkdir()
            for pattern in contender.packages:
                (source,) = Path(site.getsitepackages()[0]).glob(pattern)
                (code / source.name).symlink_to(source)
        self._started += 1
        folder = self._folder / f"runtime-{self._started}"
        folder.mkdir()
        environment = {
            **self._environment(contender),
            "PYTHONPATH": os.pathsep.join([str(code), str(_CONTENDERS), str(self._libraries)]),
            "MEASURED": contender.module,
            "DATA_BYTES": str(data_bytes),
        }
        with LambdaRuntime(
            code, "measured.handler", environment=environment, libraries=self._libraries, folder=folder
        ) as runtime:
            yield runtime

    def _environment(self, contender: Contender) -> Mapping[str, str]:
        resources = Resources(self._url, f"{self._url}/queue", data_bucket=contender.bucket)
        variables = functions.variables(functions.INGEST, resources, {"Stage": "benchmark"})
        return {**variables, "AWS_ENDPOINT_URL": self._url, "TD_API_SERVER": self._url}


@contextmanager
def runtimes() -> Iterator[Runtimes]:
    """Build the ingest, and run the double for the duration of the block."""
    with tempfile.TemporaryDirectory() as folder, services.running() as url:
        yield Runtimes(Path(folder), url)


class Spent(NamedTuple):
    """CPU seconds of one request, and the peak memory of the process in MiB."""

    cpu: float
    peak_mib: float


def spent(runtime: LambdaRuntime, event: object, repeats: int) -> Spent:
    """Send a request to a handler repeatedly, and return the cost of one.

    Raises:
        RuntimeError: the handler failed.
    """
    answer = runtime.invoke({"event": event, "repeats": repeats})
    if not isinstance(answer, dict) or "cpu" not in answer:
        raise RuntimeError(json.dumps(answer)[:2000])
    return Spent(answer["cpu"], answer["peak_kib"] / 1024)
