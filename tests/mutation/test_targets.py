"""targets.toml matches the code."""

from itertools import chain

import pytest

from tests.mutation.run import ROOT
from tests.mutation.targets import Change, Targets

TARGETS = Targets.load()


@pytest.mark.parametrize("path", sorted({*TARGETS.tests, *chain(*TARGETS.tests.values())}))
def test_paths_exist(path: str) -> None:
    """Every module and every test file is in this repository."""
    assert (ROOT / path).is_file()


@pytest.mark.parametrize("change", sorted(TARGETS.reasons))
def test_explained_lines_are_in_the_module(change: Change) -> None:
    """A line that was rewritten needs a new explanation, or none."""
    assert change.was in " ".join((ROOT / change.module).read_text().split())
