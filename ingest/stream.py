"""Puts envelopes on the Kinesis stream, or on the overflow queue if that fails.

Puts that the stream definitely rejected are retried for a limited time, by this module and never by the client. Puts with an
unknown outcome are never retried here. Both then go to the overflow queue, with a note of which it was.

| fate (`shared/puts.py`) | next |
|---|---|
| ACKNOWLEDGED | nothing |
| REFUSED | retry, then the queue |
| DOUBTFUL | the queue |
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ingest.overflow import LONGEST_SECONDS as LONGEST_SEND_SECONDS
from ingest.overflow import Overflow
from shared.clock import Clock
from shared.envelope import Envelope
from shared.errors import aws_errors, error_code
from shared.puts import MAX_KEY_BYTES, Fate, batches, put
from shared.telemetry import Telemetry

if TYPE_CHECKING:
    from ingest.aws_client import KinesisClient

CLIENT_OPTIONS: Mapping[str, Any] = {"connect_timeout": 1, "read_timeout": 1.5}
"""Client options: no retries, and timeouts too short for visitors to notice."""
PATIENCE_SECONDS = 1.0
"""How long a definitely rejected put is retried. The last attempt may then take LONGEST_PUT_SECONDS."""
LONGEST_PUT_SECONDS = 2.5
"""The longest time that one attempt takes with CLIENT_OPTIONS."""
READY_SECONDS = 300.0
"""How long the last put counts as evidence of whether the stream, or the queue, accepts envelopes."""
LOOK_SECONDS = 5.0
"""How long the stream's status is cached."""
OFFER_PAUSE_SECONDS = 60.0
"""How long no offer is made after one has failed."""

_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 0.4
_MAX_ATTEMPTS = 20  # bounds the loop even if the clock is set back


class Stream:
    """Stores envelopes.

    Args:
        client: a boto3-like Kinesis client that does not retry: see CLIENT_OPTIONS.
        name: the stream's name.
        overflow: stores what the stream does not.
        clock: limits retries.
        entropy: returns n random bytes, for jitter.
        telemetry: counts envelopes that are not stored, and logs puts that were not acknowledged.
    """

    def __init__(
        self,
        client: "KinesisClient",
        name: str,
        overflow: Overflow,
        *,
        clock: Clock,
        entropy: Callable[[int], bytes],
        telemetry: Telemetry,
    ) -> None:
        self._client = client
        self._name = name
        self._overflow = overflow
        self._clock = clock
        self._entropy = entropy
        self._telemetry = telemetry
        self._last_put: tuple[float, bool] | None = None  # when, and whether everything became durable
        self._last_look: tuple[float, bool] | None = None
        self._no_offer_before = 0.0

    def is_ready(self) -> bool:
        """Return whether envelopes would become durable, judging by the last put or, if that is long ago, by the stream's status."""
        ready = self._seems_ready()
        if not ready:
            self._telemetry.count("NotReady")
        return ready

    def _seems_ready(self) -> bool:
        now = self._clock.now()
        if self._last_put is not None and 0 <= now - self._last_put[0] < READY_SECONDS:
            return self._last_put[1]
        if self._last_look is None or not 0 <= now - self._last_look[0] < LOOK_SECONDS:
            self._last_look = now, self._is_active()
        return self._last_look[1]

    def _is_active(self) -> bool:
        try:
            answer = self._client.describe_stream_summary(StreamName=self._name)
            return answer["StreamDescriptionSummary"]["StreamStatus"] in ("ACTIVE", "UPDATING")
        except aws_errors() as error:
            self._telemetry.warning("the stream cannot be described", code=error_code(error))
        except (KeyError, TypeError):
            self._telemetry.warning("the stream cannot be described", code="unreadable")
        return False

    def offer(self, envelope: Envelope, partition_key: str, deadline: float = math.inf) -> None:
        """Put an envelope that no response promises to keep, once: it is dropped if the stream does not acknowledge it."""
        now = self._clock.now()
        if self._no_offer_before <= now <= deadline - LONGEST_PUT_SECONDS:
            entry = {"Data": envelope.encode(), "PartitionKey": partition_key}
            if self._call([entry]) != [Fate.ACKNOWLEDGED]:
                self._no_offer_before = now + OFFER_PAUSE_SECONDS

    def put(
        self, envelopes: Sequence[Envelope], partition_key: str, deadline: float = math.inf
    ) -> list[bool]:
        """Store the envelopes by `deadline` (UNIX seconds); return for each whether it is on the stream or in the queue.

        No call starts that may end after the deadline, and puts on the stream leave enough time to send one envelope to the queue.
        Once the queue has failed, the remaining envelopes do not try it, because each attempt may take seconds. Envelopes without
        rows never go to the queue.
        """
        last_send = deadline - LONGEST_SEND_SECONDS
        fates = self._put_on_stream(envelopes, partition_key, last_send - LONGEST_PUT_SECONDS)
        durable = [True] * len(envelopes)
        queue_works = True
        for index, (envelope, fate) in enumerate(zip(envelopes, fates, strict=True)):
            if fate is not Fate.ACKNOWLEDGED and envelope.tables:
                refused = fate is Fate.REFUSED
                queue_works = (
                    queue_works
                    and self._clock.now() <= last_send
                    and self._overflow.send(envelope, partition_key, refused=refused)
                )
                durable[index] = queue_works
        if not queue_works:
            self._telemetry.count("EnvelopesNotStored", durable.count(False))
        if envelopes:
            self._last_put = self._clock.now(), queue_works
        return durable

    def _put_on_stream(
        self, envelopes: Sequence[Envelope], partition_key: str, last_put: float
    ) -> list[Fate]:
        """Return each envelope's fate; REFUSED if every attempt was rejected, or there was no time for one."""
        entries = [{"Data": envelope.encode(), "PartitionKey": partition_key} for envelope in envelopes]

        def size(index: int) -> int:
            return len(entries[index]["Data"]) + MAX_KEY_BYTES

        deadline = min(self._clock.now() + PATIENCE_SECONDS, last_put)
        fates = [Fate.REFUSED] * len(entries)
        for attempt in range(_MAX_ATTEMPTS):
            waiting = [index for index, fate in enumerate(fates) if fate is Fate.REFUSED]
            for batch in [waiting] if len(waiting) == 1 else batches(waiting, size):
                if self._clock.now() < deadline:
                    answers = self._call([entries[index] for index in batch])
                    for index, fate in zip(batch, answers, strict=True):
                        fates[index] = fate
            if Fate.REFUSED not in fates:
                break
            pause = self._pause(attempt)
            if self._clock.now() + pause >= deadline:
                break
            self._clock.sleep(pause)
        return fates

    def _call(self, entries: Sequence[Mapping[str, Any]]) -> list[Fate]:
        """Put the entries in one call; return the fate of each."""
        fates, code = put(self._client, self._name, entries)
        if code:
            self._telemetry.warning(
                "the stream did not acknowledge a put",
                code=code,
                refused=fates.count(Fate.REFUSED),
                doubtful=fates.count(Fate.DOUBTFUL),
            )
        return fates

    def _pause(self, attempt: int) -> float:
        """Return a pause with full jitter, in seconds."""
        longest = min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * (1 << attempt))
        return longest * (int.from_bytes(self._entropy(4)) / 2**32)
