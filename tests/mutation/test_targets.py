"""targets.toml matches the code."""

from itertools import chain

from tests.mutation.run import ROOT
from tests.mutation.targets import MAY_SURVIVE, TESTS


def test_paths_exist() -> None:
    """Every module and every test file is in this repository."""
    assert [] == [path for path in {*TESTS, *chain(*TESTS.values())} if not (ROOT / path).is_file()]


def test_explained_lines_are_in_the_module() -> None:
    """A line that was rewritten needs a new explanation, or none."""
    texts = {module: " ".join((ROOT / module).read_text().split()) for module in TESTS}

    assert [] == [change for change in MAY_SURVIVE if change.was not in texts[change.module]]
