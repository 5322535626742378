"""Runs work in threads a little ahead of who uses the results, which come in the order of the work."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from functools import partial

from ops.background import begun

_AT_ONCE = 16


def in_order[T, R](work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Yield the result of the work for each item, or raise its error. Who stops early waits for nothing, and begins nothing more."""
    coming: deque[Future[R]] = deque()
    for item in items:
        coming.append(begun(partial(work, item)))
        while coming and (coming[0].done() or len(coming) >= _AT_ONCE):
            yield coming.popleft().result()
    while coming:
        yield coming.popleft().result()
