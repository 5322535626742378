"""Runs Node.js in the browser SDK's folder."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

SDK = Path(__file__).parents[2] / "sdk"

needed = pytest.mark.skipif(
    shutil.which("node") is None and not os.environ.get("CI"), reason="Node.js is not installed"
)
in_turn = pytest.mark.xdist_group("sdk")
"""For tests that share node_modules and the build."""


def run(*command: str, folder: Path = SDK, environment: Mapping[str, str] | None = None) -> str:
    """Run a command and return what it prints. If it fails, fail the test with its output."""
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(f"{' '.join(command)}\n{done.stdout[-20_000:]}\n{done.stderr[-5_000:]}", pytrace=False)
    return done.stdout
