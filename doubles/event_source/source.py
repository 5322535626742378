"""The event source as threads: what stands between the stream and the worker in the local stack."""

import json
import logging
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Self

from doubles.event_source.invocation import Invocation, Outcome, Raised, Returned, TimedOut, settled_count
from doubles.event_source.mapping import EventSourceMapping
from doubles.event_source.shard_poller import ShardPoller, exponential_backoff
from doubles.event_source.stream_poller import StreamPoller
from doubles.lambda_context import Context
from shared.clock import Clock

_log = logging.getLogger("doubles.event_source")

_STOP_SECONDS = 5.0


class EventSource:
    """Polls every shard in a thread of its own and calls the function with what it finds.

    A function that overruns its time-out is not stopped, because a thread cannot be. Its shard waits for it and then
    ignores its result, as Lambda would.

    Args:
        client: boto3-shaped Kinesis client; boto3's own may be shared by threads.
        mapping: the settings.
        invoke: the handler, called with an event and a context.
        clock: tells the time.
        poll_seconds: how long a shard rests that had nothing to send. Lambda rests a second.
        timeout_seconds: the function's time-out.
        function_name: goes into the context.
        memory_limit_in_mb: likewise.
        backoff: seconds to wait after that many failures in a row.
    """

    def __init__(
        self,
        client: Any,
        mapping: EventSourceMapping,
        invoke: Callable[[dict[str, Any], Any], Any],
        *,
        clock: Clock,
        poll_seconds: float = 0.2,
        timeout_seconds: float = 60,
        function_name: str = "WorkerFunction",
        memory_limit_in_mb: int = 1024,
        backoff: Callable[[int], float] = exponential_backoff,
    ) -> None:
        self._invoke = invoke
        self._clock = clock
        self._poll_seconds = poll_seconds
        self._timeout_seconds = timeout_seconds
        self._function_name = function_name
        self._memory_limit_in_mb = memory_limit_in_mb
        self._stream = StreamPoller(client, mapping, discovery_seconds=5, backoff=backoff)
        self._stopping = threading.Event()
        self._threads: dict[str, threading.Thread] = {}

    def start(self) -> None:
        """Start polling and return at once."""
        self._spawn("discovery", self._discover)

    def stop(self) -> None:
        """Stop polling; return when no invocation is under way, or each thread had five seconds to end."""
        self._stopping.set()
        for thread in tuple(self._threads.values()):
            thread.join(_STOP_SECONDS)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _spawn(self, name: str, run: Callable[[], None]) -> None:
        thread = threading.Thread(target=run, name=f"event source {name}", daemon=True)
        self._threads[name] = thread
        thread.start()

    def _discover(self) -> None:
        while not self._stopping.is_set():
            self._stream.discover(self._clock.now())
            for shard_id, poller in self._stream.pollers.items():
                if shard_id not in self._threads:
                    self._spawn(shard_id, partial(self._run, poller))
            self._stopping.wait(self._poll_seconds)

    def _run(self, poller: ShardPoller) -> None:
        while not (self._stopping.is_set() or poller.drained):
            invocation = poller.poll(self._clock.now())
            if invocation is None:
                self._stopping.wait(self._poll_seconds)
            else:
                poller.complete(invocation, self._call(invocation), self._clock.now())

    def _call(self, invocation: Invocation) -> Outcome:
        context = Context(
            function_name=self._function_name,
            deadline=self._clock.now() + self._timeout_seconds,
            now=self._clock.now,
            memory_limit_in_mb=self._memory_limit_in_mb,
            aws_request_id=invocation.request_id,
        )
        outcome: Outcome
        try:
            # The result goes through JSON, as in Lambda: what cannot be written fails here as there.
            outcome = Returned(json.loads(json.dumps(self._invoke(invocation.event, context))))
        except BaseException as error:  # noqa: BLE001 -- Lambda survives whatever a function raises
            outcome = Raised(type(error).__name__, str(error))
        if self._clock.now() >= context.deadline:
            outcome = TimedOut()
        self._report(invocation, outcome)
        return outcome

    def _report(self, invocation: Invocation, outcome: Outcome) -> None:
        left = len(invocation.records) - settled_count(outcome, invocation.sequence_numbers)
        if not left:
            return
        if isinstance(outcome, Returned):
            reason = f"{left} of {len(invocation.records)} records will be sent again"
        elif isinstance(outcome, Raised):
            reason = f"{outcome.error_type}: {outcome.message}"
        else:
            reason = f"no result within {self._timeout_seconds:g} s"
        _log.warning("%s: invocation %s failed: %s", invocation.shard_id, invocation.request_id, reason)
