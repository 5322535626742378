"""Lambda's pollers of one stream: one for each shard, as shards come and go. A state machine as theirs."""

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from doubles.event_source.failure_record import FailureRecord
from doubles.event_source.invocation import Invocation
from doubles.event_source.mapping import Mapping, StartingPosition
from doubles.event_source.outcome import Outcome
from doubles.event_source.shard_poller import Borders, ShardPoller, exponential_backoff, random_id

_log = logging.getLogger("doubles.event_source")


def _ignore(_: FailureRecord) -> None:
    pass


class StreamPoller:
    """Finds a stream's shards and hands on the invocations of all of them.

    Shards that are found later are read from their beginning, as a resharding loses nothing on AWS.

    Args:
        client: boto3-shaped Kinesis client (`list_shards`, `describe_stream_summary`, `get_shard_iterator`,
            `get_records`).
        mapping: the settings.
        children_wait: begin with a child only when its parents are drained. Lambda is known to do so, but AWS does
            not promise it: a harness turns it off.
        discovery_seconds: how often to ask for new shards; where one ends it is asked at once.
        borders: as for `ShardPoller`, and so are the other arguments.
    """

    def __init__(
        self,
        client: Any,
        mapping: Mapping,
        *,
        children_wait: bool = True,
        discovery_seconds: float = 10,
        borders: Borders | None = None,
        backoff: Callable[[int], float] = exponential_backoff,
        on_failure: Callable[[FailureRecord], None] = _ignore,
        new_id: Callable[[], str] = random_id,
    ) -> None:
        self.pollers: dict[str, ShardPoller] = {}
        """Those begun with, by shard id."""
        self._client = client
        self._mapping = mapping
        self._children_wait = children_wait
        self._discovery_seconds = discovery_seconds
        self._new_poller = partial(
            ShardPoller,
            client,
            mapping,
            borders=borders,
            backoff=backoff,
            on_failure=on_failure,
            new_id=new_id,
        )
        # Shards that were listed and not begun with: their parents, and where they will begin.
        self._waiting: dict[str, tuple[list[str], StartingPosition]] = {}
        # Shards that were closed before a mapping that begins with the latest record.
        self._passed: set[str] = set()
        self._listed: set[str] = set()
        self._listed_at = float("-inf")
        self._ended: set[str] = set()
        self._retention_seconds: float | None = None
        self._turn: list[ShardPoller] = []

    @property
    def waiting(self) -> tuple[str, ...]:
        """The ids of the shards that wait for their parents."""
        return tuple(self._waiting)

    @property
    def ready_at(self) -> float:
        """When what has been read already can be sent, in UNIX seconds; inf where waiting alone changes nothing."""
        return min((poller.ready_at for poller in self._turn), default=float("inf"))

    def poll(self, now: float) -> Invocation | None:
        """Return the next invocation of any shard that has none under way; the shards take turns.

        Args:
            now: UNIX seconds, never less than before.
        """
        self.discover(now)
        for poller in tuple(self._turn):
            invocation = poller.poll(now)
            if invocation is not None:
                self._turn.remove(poller)
                self._turn.append(poller)
                return invocation
        # A shard may have come to its end just now, and its children may begin.
        return self.poll(now) if self.discover(now) else None

    def complete(self, invocation: Invocation, outcome: Outcome, now: float) -> None:
        """Go on from how an invocation ended.

        Raises:
            ValueError: it is not under way.
        """
        self.pollers[invocation.shard_id].complete(invocation, outcome, now)

    def discover(self, now: float) -> list[ShardPoller]:
        """Look for shards where it is time to, and return the pollers of those begun with."""
        ended = {shard_id for shard_id, poller in self.pollers.items() if poller.ended}
        if now >= self._listed_at + self._discovery_seconds or ended != self._ended:
            try:
                self._list(now)
            except (ClientError, BotoCoreError) as error:
                _log.warning("the shards of %s could not be listed: %s", self._mapping.stream_name, error)
            else:
                self._ended = ended
        return [self._begin(shard_id) for shard_id in self._waiting.copy() if self._may_begin(shard_id)]

    def _list(self, now: float) -> None:
        shards: list[dict[str, Any]] = []
        page: dict[str, Any] = {"StreamName": self._mapping.stream_name}
        while page:
            answer = self._client.list_shards(**page)
            shards += answer["Shards"]
            page = {"NextToken": answer["NextToken"]} if answer.get("NextToken") else {}
        summary = self._client.describe_stream_summary(StreamName=self._mapping.stream_name)
        self._retention_seconds = summary["StreamDescriptionSummary"]["RetentionPeriodHours"] * 3600
        for poller in self.pollers.values():
            poller.retention_seconds = self._retention_seconds

        position = self._mapping.starting_position
        first_time = self._listed_at < 0
        for shard in shards:
            shard_id = shard["ShardId"]
            if shard_id in self.pollers or shard_id in self._waiting or shard_id in self._passed:
                continue
            if position == "LATEST" and first_time and "EndingSequenceNumber" in shard["SequenceNumberRange"]:
                self._passed.add(shard_id)
                continue
            parents = [shard[name] for name in ("ParentShardId", "AdjacentParentShardId") if name in shard]
            begin: StartingPosition = "TRIM_HORIZON" if position == "LATEST" and not first_time else position
            self._waiting[shard_id] = (parents, begin)
        self._listed = {shard["ShardId"] for shard in shards}
        self._listed_at = now

    def _may_begin(self, shard_id: str) -> bool:
        parents, _ = self._waiting[shard_id]
        return not self._children_wait or all(self._is_drained(parent) for parent in parents)

    def _is_drained(self, shard_id: str) -> bool:
        if shard_id in self.pollers:
            return self.pollers[shard_id].drained
        return shard_id in self._passed or shard_id not in self._listed

    def _begin(self, shard_id: str) -> ShardPoller:
        _, position = self._waiting.pop(shard_id)
        poller = self._new_poller(shard_id, position=position, retention_seconds=self._retention_seconds)
        self.pollers[shard_id] = poller
        self._turn.append(poller)
        return poller
