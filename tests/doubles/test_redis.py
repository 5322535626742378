"""The in-memory Redis answers as a real Valkey does."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from doubles.redis import MemoryRedis
from local import valkey

_KEYS = st.sampled_from(["account:one", "account:two", "account:.applied"])
_FIELDS = st.sampled_from(["database", "status", "at"])
_VALUES = st.sampled_from(["", "web", 3, 1.5, b"bytes"])
Call = tuple[str, tuple[Any, ...], dict[str, Any]]
_CALLS = st.one_of(
    st.builds(
        lambda key, mapping: ("hset", (key,), {"mapping": mapping}),
        _KEYS,
        st.dictionaries(_FIELDS, _VALUES, max_size=2),
    ),
    st.builds(lambda key, field, value: ("hset", (key, field, value), {}), _KEYS, _FIELDS, _VALUES),
    st.builds(lambda key: ("hgetall", (key,), {}), _KEYS),
    st.builds(lambda key, fields: ("hmget", (key, fields), {}), _KEYS, st.lists(_FIELDS, min_size=1)),
    st.builds(lambda key, field: ("hget", (key, field), {}), _KEYS, _FIELDS),
    st.builds(lambda key, field: ("hdel", (key, field), {}), _KEYS, _FIELDS),
    st.builds(lambda key: ("delete", (key,), {}), _KEYS),
    st.builds(lambda key: ("exists", (key, key), {}), _KEYS),
    st.builds(lambda key: ("set", (key, "text"), {}), _KEYS),
    st.builds(lambda key: ("get", (key,), {}), _KEYS),
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a Valkey of this module's own."""
    folder: Path = tmp_path_factory.mktemp("valkey")
    process, port = valkey.start(folder)
    yield port
    process.terminate()
    process.wait()


def _outcome(client: Any, call: Call) -> Any:
    name, args, options = call
    try:
        return getattr(client, name)(*args, **options)
    except redis.exceptions.RedisError as error:
        return type(error)


@settings(max_examples=60, deadline=None)
@given(calls=st.lists(_CALLS, max_size=25), pipelined=st.booleans())
def test_any_sequence_answers_the_same(server: int, calls: list[Call], *, pipelined: bool) -> None:
    """Whatever is done in whatever order, one by one or in a pipeline, answers and errors are Valkey's."""
    double = MemoryRedis()
    with redis.Redis(port=server, decode_responses=True) as real:
        real.flushall()
        if not pipelined:
            for call in calls:
                assert _outcome(double, call) == _outcome(real, call), call
            return
        answers = []
        for client in (double, real):
            with client.pipeline(transaction=False) as pipe:
                for call in calls:
                    _outcome(pipe, call)
                answers.append(pipe.execute(raise_on_error=False))
        for ours, theirs in itertools.zip_longest(*answers):
            assert ours == theirs or type(ours) is type(theirs) is redis.exceptions.ResponseError


def test_a_transaction_is_refused() -> None:
    """As in cluster mode, a pipeline over several keys must not be a transaction."""
    with pytest.raises(redis.exceptions.ResponseError):
        MemoryRedis().pipeline()
