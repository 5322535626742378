"""What holds for all tests: how busy the machine is fails none. It imports nothing of Sluice, or every test would fail without that module."""

import gc
import os
import signal
from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, settings

from tests.support import commit

settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

# a shell that runs the tests in the background has Ctrl-C ignored, by all that they start, too
signal.signal(signal.SIGINT, signal.default_int_handler)

gc.disable()  # modules stay, and looking through them again and again takes half of the time of collecting the tests


def _fail(*_: object) -> None:
    raise TimeoutError("the test does not end")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Generator[None, object, object]:
    """Let a test that hangs fail, so that the others run, minutes after faulthandler_timeout has shown its threads."""
    if "PYTEST_XDIST_WORKER" not in os.environ:  # who runs tests otherwise may have set a time of their own
        return (yield)
    signal.signal(signal.SIGALRM, _fail)
    signal.setitimer(signal.ITIMER_REAL, 600, 60)
    try:
        return (yield)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def pytest_report_header() -> str:
    """Say which schedules of faults are this commit's own."""
    return f"fresh schedules of tests/chaos: from seed {commit.seed()}"


def pytest_collection_finish() -> None:
    """Turn the garbage collector on, for what the tests make."""
    gc.collect()
    gc.freeze()
    gc.enable()
