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
    """Redis, requests, the worker and AWS's SDK are not in the function's zip."""
    outside = {"redis", "requests", "urllib3", "isal", "worker", "ops", "local", "boto3", "s3transfer"}

    assert set() == modules & outside
    # Powertools looks whether botocore's empty top-level package is there.
    assert [] == [name for name in modules if name.startswith("botocore.")]


def test_the_bundle_of_certificates_is_found_without_loading_its_package(modules: set[str]) -> None:
    """Loading certifi takes a tenth of a cold start, and all that the ingest needs is its file."""
    assert set() == modules & {"certifi", "importlib.resources"}


def test_unused_parts_of_powertools_are_not_loaded(modules: set[str]) -> None:
    """These parts take longer to load than the whole handler."""
    costly = ("aws_lambda_powertools.event_handler", "aws_lambda_powertools.utilities.parser", "aws_xray_sdk")

    assert [] == [name for name in modules if name.startswith(costly)]
