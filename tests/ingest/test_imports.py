"""Importing the ingest loads only the packages that it needs, which keeps cold starts short."""

import json
import os
import subprocess
import sys

SCRIPT = "import json, sys; import ingest.app; print(json.dumps(list(sys.modules)))"
OUTSIDE = {"redis", "requests", "urllib3", "isal", "worker", "ops", "local", "boto3", "s3transfer"}
"""Packages that are not in the function's zip."""
COSTLY = (
    "botocore.",  # Powertools looks whether botocore's empty top-level package is there
    "certifi",  # loading it takes a tenth of a cold start, and all that the ingest needs is its file
    "importlib.resources",
    "aws_lambda_powertools.event_handler",
    "aws_lambda_powertools.utilities.parser",
    "aws_xray_sdk",
)
"""How names of modules start that take longer to load than the whole handler."""


def test_only_what_is_needed_is_loaded() -> None:
    """The entry point is imported in a fresh process, without settings."""
    path = os.pathsep.join(path for path in sys.path if path)
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": path}

    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)

    modules = json.loads(done.stdout)
    assert [] == [name for name in modules if name in OUTSIDE or name.startswith(COSTLY)]
