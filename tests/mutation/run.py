"""Runs tests against mutants. Each mutant gets a forked process, which imports the mutant in place of its module.

No file is written: the import system passes the mutant's source to its own process only, so mutants can run in parallel.
Third-party packages are imported before forking, so a mutant costs little more than the time of its tests.
"""

import contextlib
import gc
import importlib
import importlib.util
import os
import resource
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.abc import MetaPathFinder, SourceLoader
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, is_hypothesis_test, settings

ROOT = Path(__file__).parents[2]

_PYTEST = ("-qx", "--disable-plugin-autoload", "-p", "pytest_socket", "-p", "no:cacheprovider")
_PRELOADED = ("-W", "ignore::pytest.PytestAssertRewriteWarning")  # plugins are imported before pytest starts
_MAX_BYTES = 4 << 30  # stops mutants that fill the memory

settings.register_profile(
    "mutation",
    derandomize=True,  # every run has the same result
    database=None,
    deadline=None,  # every core is busy
    phases=(Phase.explicit, Phase.generate),
    report_multiple_bugs=False,
    suppress_health_check=(HealthCheck.too_slow,),
)


class TestsError(Exception):
    """The tests cannot judge mutants of this module; the message says why."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """A module, by its path from the root, with one small fault: from a line on, it `was` one text, joined, and is `now` another."""

    module: str
    line: int
    was: str
    now: str
    source: str


class _CheapFirst:
    """Pytest plugin that runs property tests last: most mutants fail a cheaper test."""

    @staticmethod
    def pytest_configure() -> None:
        settings.load_profile("mutation")  # tests/conftest.py has loaded another one

    @staticmethod
    def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
        items.sort(key=lambda item: is_hypothesis_test(getattr(item, "obj", None)))


class _Importer(MetaPathFinder, SourceLoader):
    """Imports a mutant in place of its module."""

    def __init__(self, mutant: Mutant) -> None:
        self._name = mutant.module.removesuffix(".py").replace("/", ".")
        self._path = str(ROOT / mutant.module)
        self._source = mutant.source.encode()

    def find_spec(self, fullname: str, _path: object, _target: object = None) -> ModuleSpec | None:
        if fullname != self._name:
            return None
        return importlib.util.spec_from_file_location(fullname, self._path, loader=self)

    def get_filename(self, _fullname: str) -> str:
        return self._path

    def get_data(self, _path: Any) -> bytes:
        return self._source


def prepare(module: str, tests: Sequence[str]) -> float:
    """Import the third-party modules that a module's test files need, and return how many seconds the tests take.

    Raises:
        TestsError: the tests fail without a mutation, or pass without the module.
    """
    settings.load_profile("mutation")
    reader, writer = os.pipe()
    began = time.monotonic()
    pid = _fork(Mutant(module, 0, "", "", (ROOT / module).read_text()), tests, limit=600, pipe=writer)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        names = pipe.read().split()
    if os.waitpid(pid, 0)[1]:
        command = " ".join(("pytest", *_PYTEST, *tests))
        raise TestsError(f"{module}: its tests fail without a mutation. To see why, run: {command}")
    seconds = time.monotonic() - began
    for name in names:
        with contextlib.suppress(Exception):  # each mutant's process imports it itself
            importlib.import_module(name)
    gc.collect()
    gc.freeze()
    empty = Mutant(module, 0, "", "", "raise ImportError")
    if [(empty, False)] == list(judge([empty], tests, limit=600)):
        raise TestsError(f"{module}: its tests pass without it. Do they import it?")
    return seconds


def judge(
    mutants: Iterable[Mutant], tests: Sequence[str], *, limit: float, processes: int = 1
) -> Iterator[tuple[Mutant, bool]]:
    """Yield each mutant, in the order in which they finish, and whether it was noticed: a test fails, or runs into the limit of seconds."""
    running: dict[int, Mutant] = {}
    for mutant in (*mutants, None):
        while running and (mutant is None or len(running) >= processes):
            pid, status = os.wait()
            yield running.pop(pid), bool(status)
        if mutant:
            running[_fork(mutant, tests, limit)] = mutant


def _fork(mutant: Mutant, tests: Sequence[str], limit: float, pipe: int | None = None) -> int:
    """Start a process that runs the tests and exits with their status; return its id."""
    pid = os.fork()
    if pid:
        return pid
    status: int = pytest.ExitCode.INTERNAL_ERROR
    try:
        signal.setitimer(signal.ITIMER_REAL, limit)
        with contextlib.suppress(OSError, ValueError):  # not every system has this limit
            resource.setrlimit(resource.RLIMIT_AS, (_MAX_BYTES, _MAX_BYTES))
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in range(3):
            os.dup2(nothing, stream)
        sys.meta_path.insert(0, _Importer(mutant))
        status = pytest.main([*_PYTEST, "--tb=no", *_PRELOADED, *tests], plugins=[_CheapFirst])
        if pipe is not None:
            others = [name for name in sys.modules if not (ROOT / name.partition(".")[0]).is_dir()]
            os.write(pipe, "\n".join(others).encode())
    finally:
        os._exit(status)
