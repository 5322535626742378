"""The output of `make build`, built once per test session for this machine's processor."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from local.lambda_runtime import ARCHITECTURE, link_runtime
from tests.support.sam import ROOT


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder with the built template and one folder per function."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "sam" / "build"
    with folder.parent.with_suffix(".lock").open("w") as lock:  # the first worker builds, the others wait
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "template.yaml").exists():
            command = [sys.executable, "-m", "release.build", "--arch", ARCHITECTURE, "--folder", str(folder)]
            environment = os.environ | {"__SAM_CLI_APP_DIR": str(folder.parent)}
            subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="session")
def runtime_libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the libraries that Lambda's runtime adds to the path after the function's code."""
    return link_runtime(tmp_path_factory.mktemp("runtime"))
