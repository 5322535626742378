"""What `npm ci` has put into tests/clients, from its lock file."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(os.environ.get("SLUICE_CLIENTS") or Path(__file__).parents[1] / "clients")
"""Where the packages are; `make clients` names one with the newest versions."""


def path(name: str) -> Path:
    """Return a file of an installed package; skip the test where nothing is installed, unless in CI."""
    found = FOLDER / "node_modules" / name
    if not found.exists() and not os.environ.get("CI"):
        pytest.skip("run `npm ci` in tests/clients first")
    return found


def data(name: str) -> Any:
    """Return the value of a file in JSON, or of a module whose only statement exports one."""
    text = path(name).read_text()
    return json.loads(text[text.index("[") :] if name.endswith(".js") else text)
