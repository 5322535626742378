"""Runs work in threads a little ahead of who uses the results, which come in the order of the work."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

_AT_ONCE = 16


def in_order[T, R](work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Yield the result of the work for each item. Whoever stops early leaves the rest undone."""
    coming: deque[Future[R]] = deque()
    threads = ThreadPoolExecutor(_AT_ONCE)
    try:
        for item in items:
            coming.append(threads.submit(work, item))
            while coming and (coming[0].done() or len(coming) > 2 * _AT_ONCE):
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()
    finally:
        threads.shutdown(cancel_futures=True)
