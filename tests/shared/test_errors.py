"""The tree of errors."""

import builtins
import pkgutil
from collections.abc import Iterator
from importlib import import_module
from inspect import getmembers, isclass

import pytest

import ingest
import shared
import worker
from shared import errors
from shared.errors import SluiceError

ANSWERS = {"Refused", "Rejected"}
"""Answers that are raised, as shared/errors.py says."""


def drawn(error: type[Exception], depth: int = 0) -> Iterator[str]:
    """Yield the lines of the outline for an error and its subclasses."""
    bullet = f"{'  ' * depth}· " if depth else ""
    note = " (a ValueError, too)" if ValueError in error.__bases__ else ""
    yield f"{bullet}{error.__name__}{note}"
    for below in error.__subclasses__():
        if below.__module__ == errors.__name__:
            yield from drawn(below, depth + 1)


def test_the_outline_shows_the_tree() -> None:
    """The module's docstring lists the classes as they are derived."""
    outline = [line for line in str(errors.__doc__).splitlines() if line.strip().endswith(("Error", "too)"))]

    assert list(drawn(SluiceError)) == outline


@pytest.mark.parametrize("package", [shared, ingest, worker], ids=lambda package: str(package.__name__))
def test_functions_raise_errors_of_the_tree(package: object) -> None:
    """Every exception class of the functions derives from SluiceError, so that callers can catch it."""
    path: list[str] = package.__path__  # type: ignore[attr-defined]  # a package has one
    name: str = package.__name__  # type: ignore[attr-defined]  # the same
    modules = [import_module(f"{name}.{module.name}") for module in pkgutil.iter_modules(path)]
    strangers = {
        error.__name__
        for module in modules
        for _, error in getmembers(module, isclass)
        if issubclass(error, Exception) and error.__module__ == module.__name__
        if not issubclass(error, SluiceError)
        and all(vars(builtins).get(base.__name__) is base for base in error.__bases__)
    }

    assert set() == strangers - ANSWERS
