"""Fixtures that these tests share."""

from tests.support.artifacts import artifacts, runtime_libraries

__all__ = ["artifacts", "runtime_libraries"]
