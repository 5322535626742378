"""Importing the ingest loads only the packages that it needs, which keeps cold starts short."""

import json
import os
import subprocess
import sys

import pytest

SCRIPT = """
import json, sys
import ingest.app
print(json.dumps([name for name in sys.modules]))
"""


@pytest.fixture(scope="module")
def modules() -> set[str]:
    """Import the entry point in a fresh process without settings, and return the loaded modules."""
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stdout))


def test_packages_outside_the_zip_are_not_loaded(modules: set[str]) -> None:
    """Redis, requests, the worker and boto3 are not in the function's zip."""
    assert set() == modules & {"redis", "requests", "isal", "worker", "ops", "local", "boto3", "s3transfer"}


def test_botocores_clients_are_not_loaded(modules: set[str]) -> None:
    """Only botocore's errors are needed: its clients and transport take longer to load than everything else."""
    costly = ("botocore.session", "botocore.client", "botocore.auth", "botocore.httpsession", "urllib3")

    assert [] == [name for name in modules if name.startswith(costly)]


def test_unused_parts_of_powertools_are_not_loaded(modules: set[str]) -> None:
    """These parts take longer to load than the whole handler."""
    costly = ("aws_lambda_powertools.event_handler", "aws_lambda_powertools.utilities.parser", "aws_xray_sdk")

    assert [] == [name for name in modules if name.startswith(costly)]
