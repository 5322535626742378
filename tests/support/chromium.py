"""Finds the browser for tests."""

import os

import pytest

from local.record import NoBrowserError, find_browser


def path() -> str:
    """Return Chromium's path. If it is not installed, skip the test, or fail it in CI."""
    try:
        return find_browser()
    except NoBrowserError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
