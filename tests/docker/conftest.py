"""Fixtures for the tests in Docker, of packaging, wiring and permissions. The image is a Debian with Python 3.13 and what Lambda adds, not AWS's own."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from local.lambda_runtime import ARCHITECTURE
from tests.support.artifacts import artifacts, runtime_libraries
from tests.support.tools import lacking

__all__ = ["artifacts", "runtime_libraries"]

IMAGE = f"public.ecr.aws/lambda/python:3.13-{ARCHITECTURE}"
_BOOTSTRAP = '#!/bin/sh\nexec python3 -m awslambdaric "$_HANDLER"\n'
_CHANGES = (
    'ENTRYPOINT ["/var/runtime/bootstrap"]',
    "WORKDIR /var/task",
    "ENV LAMBDA_TASK_ROOT=/var/task",
    "ENV PYTHONPATH=/var/runtime:/var/task",
)


def docker(*arguments: str) -> str:
    """Run docker and return what it prints."""
    done = subprocess.run(["docker", *arguments], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="session")
def docker_gateway() -> str:
    """Return the address at which containers reach this machine. Without Docker, skip the test, or fail it in CI."""
    if shutil.which("docker") is None:
        lacking("docker is not installed")
    if subprocess.run(["docker", "info"], check=False, capture_output=True).returncode:
        lacking("no Docker daemon can be reached")
    (network,) = json.loads(docker("network", "inspect", "bridge"))
    return str(network["IPAM"]["Config"][0]["Gateway"])


@pytest.fixture(scope="session")
def lambda_image(
    docker_gateway: str, runtime_libraries: Path, tmp_path_factory: pytest.TempPathFactory
) -> str:
    """Return the image's name. It is built once per machine from Debian's packages."""
    assert docker_gateway
    if docker("images", "--quiet", IMAGE):
        return IMAGE
    if shutil.which("debootstrap") is None or os.geteuid():
        lacking("building the image needs root and debootstrap")
    root = tmp_path_factory.mktemp("image") / "root"
    command = ["debootstrap", "--variant=minbase", "--include=python3", "trixie", str(root)]
    subprocess.run(command, check=True, capture_output=True)
    runtime = root / "var" / "runtime"
    shutil.copytree(runtime_libraries, runtime, ignore=shutil.ignore_patterns("__pycache__"))
    bootstrap = runtime / "bootstrap"
    bootstrap.write_text(_BOOTSTRAP)
    bootstrap.chmod(0o755)
    changes = [word for change in _CHANGES for word in ("--change", change)]
    with subprocess.Popen(["tar", "-C", str(root), "-c", "."], stdout=subprocess.PIPE) as tar:
        command = ["docker", "import", *changes, "-", IMAGE]
        made = subprocess.run(command, stdin=tar.stdout, check=False, capture_output=True)
    assert made.returncode == 0, made.stderr
    shutil.rmtree(root)
    return IMAGE
