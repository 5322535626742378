"""Jobs in threads that never keep a command from ending."""

import queue
import threading
from collections.abc import Callable


def in_background(job: Callable[[], None]) -> None:
    """Run a job in a daemon thread."""
    threading.Thread(target=job, daemon=True).start()


def within[T](seconds: float, job: Callable[[], T]) -> T | None:
    """Run a job and return its result, or raise its error; return None after that many seconds, while the job goes on."""
    results: queue.SimpleQueue[tuple[T | None, Exception | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            results.put((job(), None))
        except Exception as error:  # noqa: BLE001 -- raised again below
            results.put((None, error))

    in_background(run)
    try:
        result, error = results.get(timeout=max(0.0, seconds))
    except queue.Empty:
        return None
    if error is not None:
        raise error
    return result
