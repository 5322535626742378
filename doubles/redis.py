"""Redis in memory: hashes and strings as a redis-py client with `decode_responses=True` shows them, and pipelines."""

import fnmatch
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Self

from redis.exceptions import DataError, ResponseError

_WRONG_TYPE = "WRONGTYPE Operation against a key holding the wrong kind of value"


class MemoryRedis:
    """A redis-py-shaped client and its keys. Nothing expires."""

    def __init__(self) -> None:
        self._keys: dict[str, dict[str, str] | str] = {}

    def ping(self) -> bool:
        """Say that the server is there."""
        return True

    def hgetall(self, name: str) -> dict[str, str]:
        """Return a hash, empty where there is none."""
        return dict(self._hash(name))

    def hget(self, name: str, key: str) -> str | None:
        """Return one field."""
        return self._hash(name).get(key)

    def hmget(self, name: str, keys: str | Iterable[str], *more: str) -> list[str | None]:
        """Return fields in the order asked for, None for each that is missing."""
        fields = [keys, *more] if isinstance(keys, str) else [*keys, *more]
        found = self._hash(name)
        return [found.get(field) for field in fields]

    def hset(
        self,
        name: str,
        key: str | None = None,
        value: Any = None,
        mapping: Mapping[str, Any] | None = None,
        items: Iterable[Any] | None = None,
    ) -> int:
        """Set fields; return how many are new."""
        fields = _fields(key, value, mapping, items)
        stored = self._hash(name)
        new = sum(field not in stored for field in fields)
        self._keys[name] = stored | {str(field): _text(value) for field, value in fields.items()}
        return new

    def hdel(self, name: str, *keys: str) -> int:
        """Delete fields; return how many there were."""
        stored = dict(self._hash(name))
        gone = sum(stored.pop(key, None) is not None for key in keys)
        if stored:
            self._keys[name] = stored
        else:
            self._keys.pop(name, None)
        return gone

    def hexists(self, name: str, key: str) -> bool:
        """Tell whether a hash has a field."""
        return key in self._hash(name)

    def get(self, name: str) -> str | None:
        """Return a string."""
        value = self._keys.get(name)
        if isinstance(value, dict):
            raise ResponseError(_WRONG_TYPE)
        return value

    def set(self, name: str, value: Any) -> bool:
        """Set a string."""
        self._keys[name] = _text(value)
        return True

    def exists(self, *names: str) -> int:
        """Count which of the keys there are."""
        return sum(name in self._keys for name in names)

    def delete(self, *names: str) -> int:
        """Delete keys; return how many there were."""
        return sum(self._keys.pop(name, None) is not None for name in names)

    def scan_iter(self, match: str | None = None, **_ignored: Any) -> Iterator[str]:
        """Yield the keys that match a pattern."""
        for name in list(self._keys):
            if match is None or fnmatch.fnmatchcase(name, match):
                yield name

    def keys(self, pattern: str = "*") -> list[str]:
        """Return the keys that match a pattern."""
        return list(self.scan_iter(match=pattern))

    def flushall(self) -> bool:
        """Delete every key."""
        self._keys.clear()
        return True

    flushdb = flushall

    def close(self) -> None:
        """Do nothing: there is no connection."""

    def pipeline(self, transaction: bool = True) -> "MemoryPipeline":  # noqa: FBT001, FBT002 -- redis-py's signature
        """Return a pipeline; as in cluster mode, it must not be a transaction."""
        if transaction:
            raise ResponseError("CROSSSLOT Keys in request don't hash to the same slot")
        return MemoryPipeline(self)

    def _hash(self, name: str) -> dict[str, str]:
        value = self._keys.get(name, {})
        if isinstance(value, str):
            raise ResponseError(_WRONG_TYPE)
        return value


class MemoryPipeline:
    """Commands that are queued, then answered at once."""

    def __init__(self, redis: Any) -> None:
        self._redis = redis
        self._commands: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._commands.clear()

    def __len__(self) -> int:
        return len(self._commands)

    def __getattr__(self, command: str) -> Callable[..., "MemoryPipeline"]:
        """Return what queues a command."""
        call = getattr(self._redis, command)

        def queue(*args: Any, **options: Any) -> "MemoryPipeline":
            if command == "hset":
                _fields(*args[1:], **options)  # the client refuses it, not the server
            self._commands.append((call, args, options))
            return self

        return queue

    def execute(self, raise_on_error: bool = True) -> list[Any]:  # noqa: FBT001, FBT002 -- redis-py's signature
        """Return each command's answer; the first error is raised when all have run, or stands in the list."""
        commands, self._commands = self._commands, []
        answers: list[Any] = []
        for call, args, options in commands:
            try:
                answers.append(call(*args, **options))
            except ResponseError as error:
                answers.append(error)
        if raise_on_error:
            for answer in answers:
                if isinstance(answer, ResponseError):
                    raise answer
        return answers


def _fields(
    key: str | None = None,
    value: Any = None,
    mapping: Mapping[str, Any] | None = None,
    items: Iterable[Any] | None = None,
) -> dict[str, Any]:
    fields: dict[str, Any] = {} if key is None else {key: value}
    fields |= mapping or {}
    listed = list(items or ())
    fields |= dict(zip(listed[::2], listed[1::2], strict=True))
    if not fields:
        raise DataError("'hset' with no key value pairs")
    return fields


def _text(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | bytes | int | float):
        raise DataError(f"Invalid input of type: {type(value).__name__!r}")
    return value.decode() if isinstance(value, bytes) else str(value)
