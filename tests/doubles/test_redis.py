"""The in-memory Redis responds as a real Valkey does."""

from collections.abc import Iterator
from typing import Any

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from doubles.redis import MemoryRedis
from local import valkey

_KEYS = st.sampled_from(["account:one", "account:two", "account:.applied"])
_FIELDS = st.sampled_from(["database", "status", "at"])
_MAPPINGS = st.dictionaries(_FIELDS, st.sampled_from(["", "web", 3]), max_size=2)
Call = tuple[str, tuple[Any, ...], dict[str, Any]]
_CALLS = st.one_of(
    st.builds(lambda key, mapping: ("hset", (key,), {"mapping": mapping}), _KEYS, _MAPPINGS),
    st.builds(lambda key, fields: ("hmget", (key, fields), {}), _KEYS, st.lists(_FIELDS, min_size=1)),
    st.builds(lambda key, field: ("hget", (key, field), {}), _KEYS, _FIELDS),
    st.builds(lambda key: ("delete", (key,), {}), _KEYS),
    st.just(("scan_iter", (), {"match": "account:[a-z]*", "count": 1000})),
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a Valkey for this module."""
    process, port = valkey.start(tmp_path_factory.mktemp("valkey"))
    yield port
    process.terminate()
    process.wait()


def _outcome(client: Any, call: Call) -> Any:
    name, args, options = call
    try:
        answer = getattr(client, name)(*args, **options)
    except redis.exceptions.RedisError as error:
        return type(error)
    return sorted(answer) if name == "scan_iter" else answer


@settings(max_examples=60, deadline=None)
@given(calls=st.lists(_CALLS, max_size=25))
def test_any_sequence_of_calls_matches_valkey(server: int, calls: list[Call]) -> None:
    """For any calls in any order, responses and errors are Valkey's, including those of a pipeline at the end."""
    double = MemoryRedis()
    with redis.Redis(port=server, decode_responses=True) as real:
        real.flushall()
        for call in calls:
            assert _outcome(real, call) == _outcome(double, call), call
        answers = []
        for client in (real, double):
            pipeline: Any = client.pipeline(transaction=False)
            pipeline.hget("account:one", "at")
            pipeline.hmget("account:two", ["at", "status"])
            pipeline.hset("account:two", mapping={"at": 5})
            pipeline.delete("account:two")
            answers.append(pipeline.execute(raise_on_error=False))

        assert answers[0] == answers[1]


def test_a_transaction_is_rejected() -> None:
    """As in cluster mode, a pipeline that is a transaction is rejected."""
    with pytest.raises(redis.exceptions.ResponseError):
        MemoryRedis().pipeline()
