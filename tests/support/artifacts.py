"""What `make build` makes, built once per test session for this machine's processor."""

import fcntl
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.sam import ROOT

__all__ = ["ARCHITECTURE", "artifacts", "link_runtime", "runtime_libraries"]

ARCHITECTURE = {"x86_64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}[platform.machine()]

# What Lambda puts behind a function's own code: its runtime client, boto3, and what these need.
_RUNTIME = (
    *("awslambdaric", "runtime_client*.so", "simplejson", "snapshot_restore_py.py"),
    *("boto3", "botocore", "s3transfer", "dateutil", "six.py", "jmespath", "urllib3"),
)


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder with the built template and one folder per function."""
    folder = _shared(tmp_path_factory) / "sam" / "build"
    with folder.parent.with_suffix(".lock").open("w") as lock:  # the first worker builds, the others wait
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "template.yaml").exists():
            command = [sys.executable, "-m", "ops.build", "--arch", ARCHITECTURE, "--folder", str(folder)]
            environment = os.environ | {"__SAM_CLI_APP_DIR": str(folder.parent)}
            subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="session")
def runtime_libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that stands for Lambda's own: what its runtime adds to the path behind the function's code."""
    return link_runtime(tmp_path_factory.mktemp("runtime"))


def link_runtime(folder: Path) -> Path:
    """Fill the folder with what Lambda's runtime brings, and return it."""
    site = Path(pytest.__file__).parents[1]
    for pattern in _RUNTIME:
        (source,) = site.glob(pattern)
        (folder / source.name).symlink_to(source)
    return folder


def _shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
