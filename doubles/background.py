"""Stand-ins for the ingest's background thread. Both return a function that has nothing to wait for."""

from collections.abc import Callable


def at_once(job: Callable[[], None]) -> Callable[[float], None]:
    """Run a job immediately."""
    job()
    return lambda _seconds: None


def never(_job: Callable[[], None]) -> Callable[[float], None]:
    """Do not run a job."""
    return lambda _seconds: None
