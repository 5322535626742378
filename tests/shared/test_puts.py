"""Calls to the stream are as large as Kinesis allows, and a response proves only what it says."""

from typing import Any

import pytest
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    NoCredentialsError,
    ProxyConnectionError,
    ReadTimeoutError,
    SSLError,
)

from doubles.aws_errors import client_error
from doubles.clock import ManualClock
from shared import errors
from shared.errors import ErrorAnswerError
from shared.puts import Fate, batches, put
from tests.support.ingest import Faults

URL = "https://kinesis.invalid"
THROTTLING_CODES = """
ProvisionedThroughputExceededException LimitExceededException KMSThrottlingException ThrottlingException Throttling
ThrottledException RequestLimitExceeded TooManyRequestsException
"""
REFUSED = [
    *[client_error(code, "PutRecord") for code in THROTTLING_CODES.split()],
    client_error("Throttling", "PutRecord", status=499),
    ErrorAnswerError(client_error("Throttling", "PutRecord").response, "PutRecord"),
    ConnectTimeoutError(endpoint_url=URL),
    EndpointConnectionError(endpoint_url=URL),
    ProxyConnectionError(proxy_url=URL),
    SSLError(endpoint_url=URL, error="not who it should be"),
    *[error(URL) for error in (errors.ConnectTimeoutError, errors.ConnectionFailedError, errors.TlsError)],
]
OTHER_CODES = "ResourceNotFoundException AccessDeniedException ExpiredTokenException ValidationException 400"
DOUBTFUL = [
    *[client_error(code, "PutRecord") for code in OTHER_CODES.split()],
    *[client_error("Throttling", "PutRecord", status=status) for status in (399, 500, 503)],
    client_error("InternalFailure", "PutRecord", status=500),
    ErrorAnswerError(client_error("InternalFailure", "PutRecord", status=500).response, "PutRecord"),
    ClientError({"Error": {"Code": "Throttling"}}, "PutRecord"),
    ClientError({}, "PutRecord"),
    *[kind(endpoint_url=URL) for kind in (ReadTimeoutError, ConnectionClosedError)],
    HTTPClientError(error="anything"),
    NoCredentialsError(),
    *[
        error(URL)
        for error in (errors.ReadTimeoutError, errors.ConnectionClosedError, errors.UnreadableAnswerError)
    ],
    {},
    {"message": "<html>", "ResponseMetadata": {"HTTPStatusCode": 200}},
    {"SequenceNumber": "a page"},
    {"SequenceNumber": 1},
]


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([], []),
        ([10] * 501, [500, 1]),
        ([3 << 20, 3 << 20, 2 << 20, 1], [1, 2, 1]),
        ([3 << 20, 6 << 20, 1], [1, 1, 1]),
        ([2 << 20, 3 << 20], [2]),
    ],
)
def test_a_call_stays_within_the_limits_of_kinesis(sizes: list[int], expected: list[int]) -> None:
    """A call has at most 500 envelopes and 5 MiB; a larger envelope gets its own call."""
    assert expected == [len(batch) for batch in batches(sizes, int)]


def answering(answer: Any) -> Faults:
    """Return a client that raises this or gives it as the response to every call."""
    client = Faults(None, ManualClock())
    client.faults, client.sticky = [answer], True
    return client


ENTRY = {"Data": b"", "PartitionKey": "shop/1"}


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize(
    ("answer", "fate"),
    [*[(one, Fate.REFUSED) for one in REFUSED], *[(one, Fate.DOUBTFUL) for one in DOUBTFUL]],
    ids=repr,
)
def test_only_throttling_or_no_connection_proves_nothing_stored(answer: Any, fate: Fate, count: int) -> None:
    """Whatever else is raised or answered in place of a sequence number leaves the whole call in doubt."""
    fates, code = put(answering(answer), "events", [ENTRY] * count)

    assert [fate] * count == fates
    assert code


THROTTLING = {"ErrorCode": "ProvisionedThroughputExceededException"}
FAILED = {"ErrorCode": "InternalFailure"}
STORED = {"SequenceNumber": "1"}


@pytest.mark.parametrize(
    ("answer", "fates", "code"),
    [
        ({"Records": [STORED, STORED]}, [Fate.ACKNOWLEDGED] * 2, ""),
        ({"Records": [STORED, THROTTLING]}, [Fate.ACKNOWLEDGED, Fate.REFUSED], THROTTLING["ErrorCode"]),
        ({"Records": [FAILED, THROTTLING]}, [Fate.DOUBTFUL, Fate.REFUSED], "InternalFailure"),
        *(({"Records": [STORED] * n}, [Fate.DOUBTFUL] * 2, "InvalidResponse") for n in (1, 3)),
        ({"Records": [STORED, {}]}, [Fate.ACKNOWLEDGED, Fate.DOUBTFUL], "InvalidResponse"),
        ({"Records": None}, [Fate.DOUBTFUL] * 2, "InvalidResponse"),
        ({"Records": [None, "1"]}, [Fate.DOUBTFUL] * 2, "InvalidResponse"),
        (client_error("Throttling", "PutRecords"), [Fate.REFUSED] * 2, "Throttling"),
    ],
)
def test_each_entry_has_a_fate(answer: Any, fates: list[Fate], code: str) -> None:
    """A response with another number of entries, or without any, proves nothing."""
    assert (fates, code) == put(answering(answer), "events", [ENTRY] * 2)
