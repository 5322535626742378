"""Fixtures: one local stack that nearly all tests of the commands share."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from local.stack import LocalStack
from tests.support.sluice import Sluice


@contextmanager
def running(home: Path) -> Iterator[Sluice]:
    """Run a local stack whose scheduled redrive is too rare to interfere, and yield the command for it."""
    with LocalStack(home / "stack", sender_seconds=3600) as stack:
        yield Sluice(stack, home)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sluice]:
    """The stack that the tests share, with a marker on each shard so that watermarks can be proved."""
    with running(tmp_path_factory.mktemp("sluice")) as sluice:
        sluice.mark_shards()
        yield sluice


@pytest.fixture
def sluice(shared: Sluice) -> Sluice:
    """The command for the shared stack, with its original accounts and secrets restored."""
    shared.restore()
    return shared


@pytest.fixture
def lone(tmp_path: Path) -> Iterator[Sluice]:
    """The command for a stack of its own, in which no other test left anything."""
    with running(tmp_path) as sluice:
        yield sluice
