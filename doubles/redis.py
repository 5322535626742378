"""Redis in memory: the hash commands that the product sends, as a redis-py client with `decode_responses=True`."""

import fnmatch
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from redis.exceptions import DataError, ResponseError


class MemoryRedis:
    """A redis-py-shaped client and its keys, all of them `hashes`. Nothing expires."""

    def __init__(self) -> None:
        self.hashes: dict[str, dict[str, str]] = {}

    def hget(self, name: str, key: str) -> str | None:
        """Return one field."""
        return self._hash(name).get(key)

    def hmget(self, name: str, keys: Iterable[str]) -> list[str | None]:
        """Return fields in the order of `keys`, with None for each that is missing."""
        found = self._hash(name)
        return [found.get(key) for key in keys]

    def hset(self, name: str, *, mapping: Mapping[str, Any]) -> int:
        """Set fields; return how many are new."""
        if not mapping:
            raise DataError("'hset' with no key value pairs")
        stored = self._hash(name)
        self.hashes[name] = stored | {key: str(value) for key, value in mapping.items()}
        return len(self.hashes[name]) - len(stored)

    def delete(self, name: str) -> int:
        """Delete a key; return whether it existed."""
        return int(self.hashes.pop(name, None) is not None)

    def scan_iter(self, *, match: str, count: int | None = None) -> Iterator[str]:  # noqa: ARG002 -- only a hint
        """Yield the keys that match a pattern."""
        yield from fnmatch.filter(list(self.hashes), match)

    def flushall(self) -> bool:
        """Delete every key."""
        self.hashes.clear()
        return True

    def pipeline(self, *, transaction: bool = True) -> "MemoryPipeline":
        """Return a pipeline. As in cluster mode, it must not be a transaction."""
        if transaction:
            raise ResponseError("CROSSSLOT Keys in request don't hash to the same slot")
        return MemoryPipeline(self)

    def _hash(self, name: str) -> dict[str, str]:
        return self.hashes.get(name, {})


class MemoryPipeline:
    """Commands that are queued and executed together."""

    def __init__(self, redis: MemoryRedis) -> None:
        self._redis = redis
        self._commands: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def __getattr__(self, command: str) -> Callable[..., None]:
        """Return a function that queues a command."""
        if command.startswith("_"):
            raise AttributeError(command)
        return lambda *arguments, **options: self._commands.append((command, arguments, options))

    def execute(self, raise_on_error: bool = True) -> list[Any]:  # noqa: FBT001, FBT002 -- redis-py's signature
        """Return each command's response. Raise the first error response, or return errors among the responses."""
        commands, self._commands = self._commands, []
        responses: list[Any] = []
        for command, arguments, options in commands:
            try:
                responses.append(getattr(self._redis, command)(*arguments, **options))
            except ResponseError as error:
                if raise_on_error:
                    raise
                responses.append(error)
        return responses
