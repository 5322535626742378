"""What waits on a shard."""

from collections import deque
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Backlog:
    """What of one shard is not settled yet.

    Attributes:
        count: records.
        oldest_seconds: the age of the oldest of them, 0 when there is none.
        last_settled: the sequence number of the last record that is settled, None when none is.
    """

    shard_id: str
    count: int
    oldest_seconds: float
    last_settled: str | None


class BacklogCounter:
    """Follows a shard to its end, beside its poller, and counts what the poller has not settled.

    Args:
        client: boto3-shaped Kinesis client.
        stream_name: the shard's stream.
        shard_id: the shard.
        start: where the poller begins, as arguments of `get_shard_iterator`.
    """

    def __init__(self, client: Any, stream_name: str, shard_id: str, start: dict[str, Any]) -> None:
        self._client = client
        self._shard = {"StreamName": stream_name, "ShardId": shard_id}
        self._start = start
        self._arrivals: deque[tuple[int, float]] = deque()

    def backlog(self, last_settled: str | None, now: float) -> Backlog:
        """Read on to the shard's end and count.

        Args:
            last_settled: the poller's.
            now: UNIX seconds.

        Raises:
            ClientError: as Kinesis has it.
        """
        iterator = self._client.get_shard_iterator(**self._shard, **self._start)["ShardIterator"]
        while iterator is not None:
            answer = self._client.get_records(ShardIterator=iterator, Limit=10_000)
            for record in answer["Records"]:
                number = record["SequenceNumber"]
                self._arrivals.append((int(number), record["ApproximateArrivalTimestamp"].timestamp()))
                self._start = {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": number}
            iterator = answer.get("NextShardIterator") if answer.get("MillisBehindLatest") else None
        settled = int(last_settled or -1)
        while self._arrivals and self._arrivals[0][0] <= settled:
            self._arrivals.popleft()
        oldest = max(0.0, now - self._arrivals[0][1]) if self._arrivals else 0.0
        return Backlog(self._shard["ShardId"], len(self._arrivals), oldest, last_settled)
