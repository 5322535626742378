"""The browser that tests drive."""

import os

import pytest

from local.record import NoBrowserError, find_browser


def path() -> str:
    """Return where Chromium is; skip the test where there is none, unless in CI."""
    try:
        return find_browser()
    except NoBrowserError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
