"""Reads targets.toml: the modules to mutate, their tests, and the mutants that may survive."""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

_PATH = Path(__file__).with_name("targets.toml")


class Change(NamedTuple):
    """How a mutant differs from a module (its path): the lines that differ, joined, as the module has them, and as the mutant has them."""

    module: str
    was: str
    now: str


@dataclass(frozen=True, slots=True)
class Targets:
    """The modules to mutate.

    Attributes:
        tests: the test files of each module; all paths are relative to the root.
        reasons: why each of these mutants may survive.
    """

    tests: dict[str, list[str]]
    reasons: dict[Change, str]

    @classmethod
    def load(cls) -> Self:
        """Read the file."""
        document: dict[str, Any] = tomllib.loads(_PATH.read_text())
        return cls(
            document["modules"],
            {
                Change(survivor["module"], *change): survivor["why"]
                for survivor in document["survivors"]
                for change in survivor["changes"]
            },
        )
