"""The event source as threads: what stands between the stream and the worker on one machine."""

import json
import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Self

from doubles.event_source.backlog import Backlog, BacklogCounter
from doubles.event_source.failure_record import FailureRecord
from doubles.event_source.invocation import Invocation
from doubles.event_source.mapping import Mapping
from doubles.event_source.outcome import Outcome, Raised, Returned, TimedOut, settled_count
from doubles.event_source.shard_poller import ShardPoller, exponential_backoff
from doubles.event_source.stream_poller import StreamPoller
from doubles.lambda_context import Context
from shared.clock import Clock

_log = logging.getLogger("doubles.event_source")

_STOP_SECONDS = 5.0


class EventSource:
    """Polls every shard in a thread of its own and calls the function with what is there.

    A function that overruns its time-out is not stopped, for a thread cannot be: its shard waits for it, and then
    its answer counts for nothing, as Lambda's would.

    Args:
        client: boto3-shaped Kinesis client; boto3's own may be shared by threads.
        mapping: the settings.
        invoke: the handler, called with an event and a context.
        clock: tells the time.
        poll_seconds: how long a shard rests that had nothing to send. Lambda rests a second.
        timeout_seconds: the function's time-out.
        function_name: goes into the context.
        memory_limit_in_mb: the same.
        backoff: seconds to wait after that many failures in a row.
        on_failure: gets a record of each batch that is given up.
    """

    def __init__(
        self,
        client: Any,
        mapping: Mapping,
        invoke: Callable[[dict[str, Any], Any], Any],
        *,
        clock: Clock,
        poll_seconds: float = 0.2,
        timeout_seconds: float = 60,
        function_name: str = "WorkerFunction",
        memory_limit_in_mb: int = 1024,
        backoff: Callable[[int], float] = exponential_backoff,
        on_failure: Callable[[FailureRecord], None] = lambda _: None,
    ) -> None:
        self._client = client
        self._mapping = mapping
        self._invoke = invoke
        self._clock = clock
        self._poll_seconds = poll_seconds
        self._timeout_seconds = timeout_seconds
        self._function_name = function_name
        self._memory_limit_in_mb = memory_limit_in_mb
        self._stream = StreamPoller(
            client, mapping, discovery_seconds=5, backoff=backoff, on_failure=on_failure
        )
        self._stopping = threading.Event()
        self._threads: dict[str, threading.Thread] = {}
        self._counters: dict[str, BacklogCounter] = {}
        self._counting = threading.Lock()

    def start(self) -> None:
        """Begin to poll, or go on with it after a stop; return at once."""
        self._stopping.clear()
        self._spawn("discovery", self._discover)

    def stop(self) -> None:
        """End polling; return when no invocation is under way any more, or after five seconds."""
        self._stopping.set()
        until = time.monotonic() + _STOP_SECONDS
        for thread in tuple(self._threads.values()):
            thread.join(max(0.0, until - time.monotonic()))
        self._threads.clear()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def backlog(self) -> list[Backlog]:
        """Return what waits, shard by shard, without the shards that are drained.

        Raises:
            ClientError: as Kinesis has it.
        """
        now = self._clock.now()
        with self._counting:
            return [
                counter.backlog(self._last_settled(shard_id), now)
                for shard_id, counter in self._counters.items()
                if shard_id not in self._stream.pollers or not self._stream.pollers[shard_id].drained
            ]

    def _last_settled(self, shard_id: str) -> str | None:
        poller = self._stream.pollers.get(shard_id)
        return poller.last_settled if poller else None

    def _spawn(self, name: str, run: Callable[[], None]) -> None:
        thread = threading.Thread(target=run, name=f"event source {name}", daemon=True)
        self._threads[name] = thread
        thread.start()

    def _discover(self) -> None:
        while not self._stopping.is_set():
            self._stream.discover(self._clock.now())
            with self._counting:
                for shard_id in self._stream.waiting:
                    self._count(shard_id, {"ShardIteratorType": "TRIM_HORIZON"})
                for shard_id, poller in self._stream.pollers.items():
                    self._count(shard_id, poller.reads_from)
            for shard_id, poller in self._stream.pollers.items():
                if shard_id not in self._threads and not poller.drained:
                    self._spawn(shard_id, partial(self._run, poller))
            self._stopping.wait(self._poll_seconds)

    def _count(self, shard_id: str, start: dict[str, Any]) -> None:
        if shard_id not in self._counters:
            self._counters[shard_id] = BacklogCounter(
                self._client, self._mapping.stream_name, shard_id, start
            )

    def _run(self, poller: ShardPoller) -> None:
        while not (self._stopping.is_set() or poller.drained):
            invocation = poller.poll(self._clock.now())
            if invocation is None:
                self._stopping.wait(self._poll_seconds)
            else:
                poller.complete(invocation, self._call(invocation), self._clock.now())

    def _call(self, invocation: Invocation) -> Outcome:
        started = self._clock.now()
        context = Context(
            function_name=self._function_name,
            deadline=started + self._timeout_seconds,
            now=self._clock.now,
            memory_limit_in_mb=self._memory_limit_in_mb,
            aws_request_id=invocation.request_id,
        )
        outcome: Outcome
        try:
            # Both ways through JSON, as in Lambda: what cannot be written fails here as there.
            outcome = Returned(json.loads(json.dumps(self._invoke(invocation.event, context))))
        except BaseException as error:  # noqa: BLE001  # Lambda survives whatever a function raises
            outcome = Raised(type(error).__name__, str(error))
        if self._clock.now() >= context.deadline:
            outcome = TimedOut()
        self._report(invocation, outcome)
        return outcome

    def _report(self, invocation: Invocation, outcome: Outcome) -> None:
        count = len(invocation.records)
        if isinstance(outcome, Returned):
            settled = count
            if self._mapping.report_batch_item_failures:
                settled = settled_count(outcome.value, invocation.sequence_numbers)
            if settled == count:
                return
            reason = f"{count - settled} of {count} records are to be sent again"
        elif isinstance(outcome, Raised):
            reason = f"{outcome.error_type}: {outcome.message}"
        else:
            reason = f"no answer within {self._timeout_seconds:g} s"
        _log.warning(
            "%s: invocation %s (try %d) failed: %s",
            invocation.shard_id,
            invocation.request_id,
            invocation.attempt,
            reason,
        )
