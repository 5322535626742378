"""Runs work in threads a little ahead of who uses the results, which come in the order of the work."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Event

from ops.background import in_background

_AT_ONCE = 16


def in_order[T, R](work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Yield the result of the work for each item, or raise its error. Who stops early waits for nothing, and leaves the rest undone."""
    jobs: SimpleQueue[tuple[Future[R], T] | None] = SimpleQueue()
    coming: deque[Future[R]] = deque()
    stopped, threads = Event(), 0

    def run() -> None:
        while (job := jobs.get()) is not None:
            future, item = job
            if not stopped.is_set():
                try:
                    future.set_result(work(item))
                except Exception as error:  # noqa: BLE001 -- raised where the result is used
                    future.set_exception(error)

    try:
        for item in items:
            coming.append(Future())
            jobs.put((coming[-1], item))
            if threads < min(_AT_ONCE, len(coming)):
                threads += 1
                in_background(run)
            while coming and (coming[0].done() or len(coming) > 2 * _AT_ONCE):
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()
    finally:
        stopped.set()
        for _ in range(threads):
            jobs.put(None)
