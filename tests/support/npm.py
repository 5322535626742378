"""The packages that `npm ci` has installed in tests/clients."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(os.environ.get("SLUICE_CLIENTS") or Path(__file__).parents[1] / "clients")
"""The folder with the packages. `make clients` sets one with the newest versions."""


def path(name: str) -> Path:
    """Return the path of a package's file. If it is not installed, skip the test, except in CI."""
    found = FOLDER / "node_modules" / name
    if not found.exists() and not os.environ.get("CI"):
        pytest.skip("run `npm ci` in tests/clients first")
    return found


def data(name: str) -> Any:
    """Return the value in a JSON file, or in a module whose only statement exports an array."""
    text = path(name).read_text()
    return json.loads(text[text.index("[") :] if name.endswith(".js") else text)
