"""Fixtures that these tests share."""

from tests.support.artifacts import artifacts

__all__ = ["artifacts"]
