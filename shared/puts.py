"""Puts on the Kinesis stream: one call, and what its response proves.

| response | fate |
|---|---|
| a sequence number | ACKNOWLEDGED |
| Kinesis' own throttling error, for the call or for one entry of PutRecords; no connection was made, TLS included | REFUSED |
| any other error, a timeout, a lost connection, an invalid response … | DOUBTFUL |
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum, auto
from typing import Any, Protocol

from shared.errors import NotSentError, aws_errors, error_code

MAX_PER_PUT = 500
"""Envelopes per PutRecords, as Kinesis allows."""
MAX_PUT_BYTES = 5 * 1024 * 1024
"""Bytes per PutRecords, keys included (Kinesis now accepts 10 MiB)."""
MAX_KEY_BYTES = 256
THROTTLED = frozenset(
    (
        "ProvisionedThroughputExceededException",
        "LimitExceededException",
        "KMSThrottlingException",
        "RequestLimitExceeded",
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "TooManyRequestsException",
    )
)
"""Codes by which Kinesis definitely rejects a call."""

_NO_CONNECTION = (
    "ConnectTimeoutError",
    "EndpointConnectionError",
    "ProxyConnectionError",
    "SSLError",
)  # boto3's


class Fate(Enum):
    """The outcome of a put."""

    ACKNOWLEDGED = auto()
    REFUSED = auto()
    DOUBTFUL = auto()


class StreamClient(Protocol):
    """boto3's Kinesis client, or one with the same put methods."""

    @property
    def put_record(self) -> Callable[..., Mapping[str, Any]]:
        """Kinesis' PutRecord."""
        ...

    @property
    def put_records(self) -> Callable[..., Mapping[str, Any]]:
        """Kinesis' PutRecords."""
        ...


def put(client: StreamClient, stream: str, entries: Sequence[Mapping[str, Any]]) -> tuple[list[Fate], str]:
    """Put entries, each with `Data` and `PartitionKey`, in one call. The client must not retry.

    Returns:
        Each entry's fate, and an error code; it is empty if all were acknowledged.
    """
    try:
        if len(entries) == 1:
            results = [client.put_record(StreamName=stream, **entries[0])]
        else:
            found = client.put_records(StreamName=stream, Records=entries).get("Records")
            results = (
                [result for result in found if isinstance(result, dict)] if isinstance(found, list) else []
            )
    except aws_errors() as error:
        return [_fate_of_error(error)] * len(entries), error_code(error)
    fates = [_fate(result) for result in results]
    if len(fates) != len(entries):
        fates = [Fate.DOUBTFUL] * len(entries)
    elif fates.count(Fate.ACKNOWLEDGED) == len(entries):
        return fates, ""
    codes = (result["ErrorCode"] for result in results if "ErrorCode" in result)
    return fates, next(codes, "InvalidResponse")


def batches[Item](
    items: Iterable[Item],
    size: Callable[[Item], int],
    max_bytes: int = MAX_PUT_BYTES,
    max_items: int = MAX_PER_PUT,
) -> Iterator[list[Item]]:
    """Divide items among calls, by default to PutRecords; an item that is too large gets a call of its own."""
    batch: list[Item] = []
    total = 0
    for item in items:
        cost = size(item)
        if batch and (len(batch) == max_items or total + cost > max_bytes):
            yield batch
            batch, total = [], 0
        batch.append(item)
        total += cost
    if batch:
        yield batch


def _fate(result: Mapping[str, Any]) -> Fate:
    """Return the fate of one PutRecord response or PutRecords entry."""
    if "ErrorCode" in result:
        return Fate.REFUSED if result["ErrorCode"] in THROTTLED else Fate.DOUBTFUL
    number = result.get("SequenceNumber")
    return Fate.ACKNOWLEDGED if isinstance(number, str) and number.isdecimal() else Fate.DOUBTFUL


def _fate_of_error(error: Exception) -> Fate:
    response = getattr(error, "response", None)
    if response is None:  # for some of the others, too, nothing was sent, but the callers handle both cases
        was_sent = not isinstance(error, NotSentError) and type(error).__name__ not in _NO_CONNECTION
        return Fate.DOUBTFUL if was_sent else Fate.REFUSED
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500)
    is_throttled = response.get("Error", {}).get("Code") in THROTTLED
    return Fate.REFUSED if is_throttled and 400 <= status < 500 else Fate.DOUBTFUL
