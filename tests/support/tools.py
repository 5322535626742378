"""Node.js and packages of npm, which this machine may lack: tests that need them are skipped then, but fail in CI."""

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import pytest

SDK = Path(__file__).parents[2] / "sdk"
PACKAGES = Path(os.environ.get("SLUICE_CLIENTS") or Path(__file__).parents[1] / "clients") / "node_modules"
"""What `npm ci` has installed in tests/clients. `make clients` names a folder with the newest versions."""

needs_node = pytest.mark.skipif(
    shutil.which("node") is None and not os.environ.get("CI"), reason="Node.js is not installed"
)
in_turn = pytest.mark.xdist_group("sdk")
"""For tests that share the SDK's node_modules and its build."""


def lacking(reason: str) -> NoReturn:
    """Skip the test, or fail it in CI."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def package(name: str) -> Path:
    """Return the path of a package's file."""
    found = PACKAGES / name
    return found if found.exists() else lacking("run `npm ci` in tests/clients first")


def data(name: str) -> Any:
    """Return the value in a JSON file of a package, or in a module whose only statement exports an array."""
    text = package(name).read_text()
    return json.loads(text[text.index("[") :] if name.endswith(".js") else text)


def run(*command: str, folder: Path = SDK, environment: Mapping[str, str] | None = None) -> str:
    """Run a command and return what it prints. If it fails, fail the test with its output."""
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(f"{' '.join(command)}\n{done.stdout[-20_000:]}\n{done.stderr[-5_000:]}", pytrace=False)
    return done.stdout
