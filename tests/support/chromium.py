"""Finds the browser for tests."""

from local.record import NoBrowserError, find_browser
from tests.support.tools import lacking


def path() -> str:
    """Return Chromium's path. If it is not installed, skip the test, or fail it in CI."""
    try:
        return find_browser()
    except NoBrowserError as error:
        lacking(str(error))
