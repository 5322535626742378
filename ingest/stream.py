"""Puts envelopes on the Kinesis stream, or makes them durable elsewhere.

What the stream surely did not take is put again, by this code and never by botocore, for a bounded time. A put whose
outcome is not known is never repeated here: its envelope could stand on the stream twice. Either, in the end, goes to
the overflow queue.

| answer | fate | what follows |
|---|---|---|
| a sequence number | ACKNOWLEDGED | |
| throttled, as a whole or one entry of PutRecords; no connection was made | BUSY | put again, then the queue |
| any other 4xx | REFUSED | the queue |
| 5xx, InternalFailure, time-out, connection lost, an answer that is none, … | DOUBTFUL | the queue |
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum, auto
from typing import Any

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    ProxyConnectionError,
)

from ingest.journal import Journal
from ingest.overflow import Overflow
from shared.clock import Clock
from shared.envelope import Envelope

CLIENT_OPTIONS: Mapping[str, Any] = {"connect_timeout": 1, "read_timeout": 1.5}
"""How the client is made: it repeats nothing, and no wait is so long that a visitor would notice."""
PATIENCE_SECONDS = 1.0
"""How long a put that is surely refused is repeated. A request's worst case, 1 s of patience, one last attempt (2.5 s),
the queue's two (4 s) and a reading of the secrets (2 s), stays below the function's time-out of 10 s."""
MAX_PER_PUT = 7
"""Envelopes of one PutRecords: at their largest they stay below 5 MiB, though Kinesis takes 10 MiB by now."""

_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 0.4
_MAX_ATTEMPTS = 20  # a clock that is set back must not make it endless
_BUSY_CODES = {
    "ProvisionedThroughputExceededException",
    "LimitExceededException",
    "KMSThrottlingException",
    "RequestLimitExceeded",
    "Throttling",
    "ThrottlingException",
    "ThrottledException",
    "TooManyRequestsException",
}
_NO_CONNECTION = (ConnectTimeoutError, EndpointConnectionError, ProxyConnectionError)


class Fate(Enum):
    """What became of a put."""

    ACKNOWLEDGED = auto()
    BUSY = auto()
    REFUSED = auto()
    DOUBTFUL = auto()


class Stream:
    """Makes envelopes durable.

    Args:
        client: a boto3-shaped Kinesis client that repeats nothing by itself: see CLIENT_OPTIONS.
        name: the stream's name.
        overflow: takes what the stream does not.
        clock: measures patience.
        entropy: returns that many random bytes; waits are spread by them.
        journal: learns of refusals and doubts.
    """

    def __init__(
        self,
        client: Any,
        name: str,
        overflow: Overflow,
        *,
        clock: Clock,
        entropy: Callable[[int], bytes],
        journal: Journal,
    ) -> None:
        self._client = client
        self._name = name
        self._overflow = overflow
        self._clock = clock
        self._entropy = entropy
        self._journal = journal

    def put(self, envelopes: Sequence[Envelope], partition_key: str) -> list[bool]:
        """Return for each envelope whether it is durable, on the stream or in the queue."""
        return self._send(envelopes, self._put_on_stream(envelopes, partition_key), partition_key)

    def put_again(self, envelopes: Sequence[Envelope], partition_key: str, since: int) -> list[bool]:
        """Return for each envelope whether it is durable; the stream may have each since `since` (UNIX ms).

        So none is put on it before somebody has looked: they all go to the queue.
        """
        return self._send(envelopes, range(len(envelopes)), partition_key, since)

    def _send(
        self,
        envelopes: Sequence[Envelope],
        indices: Iterable[int],
        partition_key: str,
        since: int | None = None,
    ) -> list[bool]:
        """Send some of the envelopes to the queue; return for each of all whether it is durable then.

        Once the queue has failed, the rest is not tried: each attempt may take seconds.
        """
        durable = [True] * len(envelopes)
        queue_works = True
        for index in sorted(indices):
            queue_works = queue_works and self._overflow.send(envelopes[index], partition_key, since)
            durable[index] = queue_works
        if not queue_works:
            self._journal.count("EnvelopesUntaken", durable.count(False))
        return durable

    def _put_on_stream(self, envelopes: Sequence[Envelope], partition_key: str) -> list[int]:
        """Return the indices of those that are not acknowledged."""
        entries = [{"Data": envelope.encode(), "PartitionKey": partition_key} for envelope in envelopes]
        deadline = self._clock.now() + PATIENCE_SECONDS
        waiting = list(range(len(entries)))
        others: list[int] = []
        for attempt in range(_MAX_ATTEMPTS):
            busy: list[int] = []
            for start in range(0, len(waiting), MAX_PER_PUT):
                batch = waiting[start : start + MAX_PER_PUT]
                late = self._clock.now() >= deadline
                fates = [Fate.REFUSED] * len(batch) if late else self._call([entries[i] for i in batch])
                for index, fate in zip(batch, fates, strict=True):
                    if fate is Fate.BUSY:
                        busy.append(index)
                    elif fate is not Fate.ACKNOWLEDGED:
                        others.append(index)
            waiting = busy
            if not busy:
                break
            pause = self._pause(attempt)
            if self._clock.now() + pause >= deadline:
                break
            self._clock.sleep(pause)
        return others + waiting

    def _call(self, entries: Sequence[Mapping[str, Any]]) -> list[Fate]:
        """Put the entries in one call and return the fate of each."""
        try:
            if len(entries) == 1:
                results = [self._client.put_record(StreamName=self._name, **entries[0])]
            else:
                results = self._client.put_records(StreamName=self._name, Records=entries).get("Records", [])
            fates = [_fate(result) for result in results]
            if len(fates) != len(entries):
                fates = [Fate.DOUBTFUL] * len(entries)
        except (BotoCoreError, ClientError) as error:
            fates = [_fate_of_error(error)] * len(entries)
            self._journal.warn("the stream did not acknowledge a put", _name(error), fate=fates[0].name)
        if refused := fates.count(Fate.BUSY) + fates.count(Fate.REFUSED):
            self._journal.count("StreamRefusals", refused)
        if doubtful := fates.count(Fate.DOUBTFUL):
            self._journal.count("StreamDoubts", doubtful)
        return fates

    def _pause(self, attempt: int) -> float:
        """Return full jitter: anything from nothing to the longest wait of this attempt, in seconds."""
        longest = min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * (1 << attempt))
        return longest * (int.from_bytes(self._entropy(4)) / 2**32)


def _fate(result: Mapping[str, Any]) -> Fate:
    """Return the fate that an acknowledgement, or an entry of PutRecords' answer, tells of."""
    if result.get("ErrorCode") in _BUSY_CODES:
        return Fate.BUSY
    return Fate.ACKNOWLEDGED if result.get("SequenceNumber") else Fate.DOUBTFUL


def _fate_of_error(error: Exception) -> Fate:
    if isinstance(error, _NO_CONNECTION):
        return Fate.BUSY
    if not isinstance(error, ClientError):
        return Fate.DOUBTFUL  # of some it is certain that nothing was sent, but the queue serves them all
    if error.response.get("Error", {}).get("Code") in _BUSY_CODES:
        return Fate.BUSY
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500)
    return Fate.REFUSED if 400 <= status < 500 else Fate.DOUBTFUL


def _name(error: Exception) -> str:
    if isinstance(error, ClientError):
        return str(error.response.get("Error", {}).get("Code", "Unknown"))
    return type(error).__name__
