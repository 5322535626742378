"""The hierarchy of errors."""

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
"""Exceptions that carry an answer rather than an error, as shared/errors.py says."""


@pytest.mark.parametrize("package", [shared, ingest, worker], ids=lambda package: str(package.__name__))
def test_every_error_derives_from_sluice_error(package: object) -> None:
    """Only the two answers, and exceptions that extend another library's, are exempt."""
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
