"""One local stack for all tests of the commands."""

from collections.abc import Iterator

import pytest

from local.stack import Stack
from tests.support.sluice import Sluice


@pytest.fixture(scope="session")
def sluice(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sluice]:
    """The command over a stack that runs; its redrive is called by nobody else."""
    home = tmp_path_factory.mktemp("sluice")
    settings = {"WorkerFunction": {"PARK_AFTER_SECONDS": "1"}}
    with Stack(home / "stack", redrive_seconds=3600, settings=settings) as stack:
        yield Sluice(stack, home)
