"""Lambda's pollers of one stream: one for each shard, as shards come and go. A state machine like theirs."""

import logging
from collections.abc import Mapping
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from doubles.event_source.invocation import Invocation, Outcome
from doubles.event_source.mapping import EventSourceMapping
from doubles.event_source.shard_poller import ShardPoller

_log = logging.getLogger("doubles.event_source")


class StreamPoller:
    """Finds a stream's shards and hands out the invocations of all of them.

    Args:
        client: boto3-shaped Kinesis client (`list_shards`, `describe_stream_summary`, `get_shard_iterator`,
            `get_records`).
        mapping: the settings.
        checkpoints: by shard id, the sequence number to go on after.

    Attributes:
        pollers: the pollers that were started, by shard id; those that are served next come first.
    """

    def __init__(
        self, client: Any, mapping: EventSourceMapping, checkpoints: Mapping[str, str] | None = None
    ) -> None:
        self.pollers: dict[str, ShardPoller] = {}
        self._client = client
        self._mapping = mapping
        self._checkpoints = dict(checkpoints or {})
        # the parents of the shards that were listed and not started
        self._waiting: dict[str, list[str]] = {}
        self._listed: set[str] = set()
        self._listed_at = float("-inf")
        self._ended: set[str] = set()
        self._retention_seconds = float("inf")

    @property
    def ready_at(self) -> float:
        """When what has been read can be sent, in UNIX seconds; inf if waiting alone changes nothing."""
        return min((poller.ready_at for poller in self.pollers.values()), default=float("inf"))

    def poll(self, now: float) -> Invocation | None:
        """Return the next invocation of any shard that has none under way. The shards take turns."""
        self._discover(now)
        for shard_id, poller in list(self.pollers.items()):
            invocation = poller.poll(now)
            if invocation is not None:
                self.pollers[shard_id] = self.pollers.pop(shard_id)  # to the end
                return invocation
        # A shard may have ended just now, so that its children can start.
        return self.poll(now) if self._discover(now) else None

    def complete(self, invocation: Invocation, outcome: Outcome, now: float) -> None:
        """Continue after the end of an invocation, as `ShardPoller.complete` does."""
        self.pollers[invocation.shard_id].complete(invocation, outcome, now)

    def _discover(self, now: float) -> bool:
        """Look for shards if it is time to, and return whether any poller was started."""
        ended = {shard_id for shard_id, poller in self.pollers.items() if poller.ended}
        if now >= self._listed_at + self._mapping.discovery_seconds or ended != self._ended:
            try:
                self._list(now)
            except (ClientError, BotoCoreError) as error:
                _log.warning("the shards of %s could not be listed: %s", self._mapping.stream_name, error)
            else:
                self._ended = ended
        startable = [shard_id for shard_id in self._waiting if self._may_start(shard_id)]
        for shard_id in startable:
            del self._waiting[shard_id]
            poller = self.pollers[shard_id] = ShardPoller(
                self._client, self._mapping, shard_id, self._checkpoints.get(shard_id, "")
            )
            poller.retention_seconds = self._retention_seconds
        return bool(startable)

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
        for shard in shards:
            if shard["ShardId"] not in self.pollers:
                parents = [
                    shard[name] for name in ("ParentShardId", "AdjacentParentShardId") if name in shard
                ]
                self._waiting[shard["ShardId"]] = parents
        self._listed = {shard["ShardId"] for shard in shards}
        self._listed_at = now

    def _may_start(self, shard_id: str) -> bool:
        return not self._mapping.children_wait or all(map(self._is_drained, self._waiting[shard_id]))

    def _is_drained(self, shard_id: str) -> bool:
        poller = self.pollers.get(shard_id)
        return poller.drained if poller is not None else shard_id not in self._listed
