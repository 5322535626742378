"""The tree of errors."""

import builtins
import pkgutil
from importlib import import_module
from inspect import getmembers, isclass

import pytest

import ingest
import shared
import worker
from shared.errors import SluiceError

ANSWERS = {"Refused", "Rejected"}
"""Answers that are raised, as shared/errors.py says."""


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
