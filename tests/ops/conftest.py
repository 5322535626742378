"""One local stack for nearly all tests of the commands."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from local.stack import LocalStack
from tests.support.sluice import Sluice


@contextmanager
def running(home: Path) -> Iterator[Sluice]:
    """Run a stack, whose redrive is called by nobody else, and the command over it."""
    with LocalStack(home / "stack", redrive_seconds=3600, parameters={"ParkAfterSeconds": "1"}) as stack:
        yield Sluice(stack, home)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sluice]:
    """The stack of all tests, in which watermarks can be proved."""
    with running(tmp_path_factory.mktemp("sluice")) as sluice:
        sluice.mark_shards()
        yield sluice


@pytest.fixture
def sluice(shared: Sluice) -> Sluice:
    """The command over the stack of all tests, with the accounts and secrets that it was made with."""
    shared.restore()
    return shared


@pytest.fixture
def lone(tmp_path: Path) -> Iterator[Sluice]:
    """The command over a stack in which no other test has left anything."""
    with running(tmp_path) as sluice:
        yield sluice
