"""Jobs in threads that never keep a command from ending."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from functools import partial


def in_background(job: Callable[[], None]) -> None:
    """Run a job in a daemon thread."""
    threading.Thread(target=job, daemon=True).start()


def begun[T](job: Callable[[], T]) -> Future[T]:
    """Run a job in a daemon thread, and return what will have its result, or raise its error."""
    coming: Future[T] = Future()

    def run() -> None:
        try:
            coming.set_result(job())
        except Exception as error:  # noqa: BLE001 -- raised where the result is used
            coming.set_exception(error)

    in_background(run)
    return coming


def within[T](seconds: float, job: Callable[[], T]) -> T | None:
    """Run a job and return its result, or raise its error; return None after that many seconds, while the job goes on."""
    coming = begun(job)
    done, _ = wait([coming], timeout=max(0.0, seconds))
    return coming.result() if done else None


def in_order[T, R](work: Callable[[T], R], items: Iterable[T], at_once: int = 16) -> Iterator[R]:
    """Run work in threads a little ahead of who uses the results, and yield them in the order of the items, or raise an item's error.

    Who stops early waits for nothing, and begins nothing more.
    """
    coming: deque[Future[R]] = deque()
    for item in items:
        coming.append(begun(partial(work, item)))
        while coming and (coming[0].done() or len(coming) >= at_once):
            yield coming.popleft().result()
    while coming:
        yield coming.popleft().result()
