"""Reads targets.toml: the modules to mutate, their tests, and the mutants that may survive."""

import tomllib
from pathlib import Path
from typing import Any, NamedTuple

_DOCUMENT: dict[str, Any] = tomllib.loads(Path(__file__).with_name("targets.toml").read_text())


class Change(NamedTuple):
    """How a mutant differs from a module (its path): the lines that differ, joined, as the module has them, and as the mutant has them."""

    module: str
    was: str
    now: str


TESTS: dict[str, list[str]] = _DOCUMENT["modules"]
"""The test files of each module; all paths are relative to the root."""

MAY_SURVIVE = frozenset(
    Change(one["module"], *change) for one in _DOCUMENT["survivors"] for change in one["changes"]
)
"""What no test needs to notice; the file says why."""
