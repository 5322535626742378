"""The local stack's event source, which feeds the stream to the worker in real time."""

import json
import logging
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from threading import Event
from typing import Any

from doubles.event_source import Failed, Invocation, Outcome, Returned, settled_count
from doubles.event_source.pollers import StreamPoller
from doubles.lambda_context import Context
from shared.clock import Clock

_log = logging.getLogger("local.event_source")

_SHARDS_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class EventSource:
    """Calls the function with batches of records, with the shards in parallel.

    A function that exceeds its timeout is not stopped, because threads cannot be. Its shard waits for it and then ignores its
    result, as Lambda would.

    Attributes:
        poller: polls the stream.
        invoke: the handler, called with an event and a context.
        clock: tells the time.
        poll_seconds: pause between polls. Lambda pauses for a second.
        function_name: the name in the context.
        memory_limit_in_mb: the memory in the context.
        settled: called after each invocation with the shard and its last settled record.
    """

    poller: StreamPoller
    invoke: Callable[[dict[str, Any], Any], Any]
    clock: Clock
    poll_seconds: float = 0.2
    timeout_seconds: float = 60
    function_name: str = "WorkerFunction"
    memory_limit_in_mb: int = 1024
    settled: Callable[[str, str], None] = lambda *_: None

    def run(self, stop: Event) -> None:
        """Poll and invoke until `stop` is set; return when all invocations have ended."""
        under_way: dict[Future[Outcome], Invocation] = {}
        with ThreadPoolExecutor(_SHARDS_AT_ONCE) as pool:
            while not stop.is_set():
                while invocation := self.poller.poll(self.clock.now()):
                    under_way[pool.submit(self._call, invocation)] = invocation
                if not under_way:
                    stop.wait(self.poll_seconds)
                done, _ = wait(under_way, self.poll_seconds, FIRST_COMPLETED)
                for future in done:
                    invocation = under_way.pop(future)
                    self.poller.complete(invocation, future.result(), self.clock.now())
                    last = self.poller.pollers[invocation.shard_id].last_settled
                    if last is not None:
                        self.settled(invocation.shard_id, last)

    def _call(self, invocation: Invocation) -> Outcome:
        context = Context(
            function_name=self.function_name,
            deadline=self.clock.now() + self.timeout_seconds,
            now=self.clock.now,
            memory_limit_in_mb=self.memory_limit_in_mb,
            aws_request_id=invocation.request_id,
        )
        outcome: Outcome
        try:
            # As in Lambda, a result that cannot be encoded as JSON is an error.
            outcome = Returned(json.loads(json.dumps(self.invoke(invocation.event, context))))
        except (Exception, SystemExit) as error:  # noqa: BLE001 -- Lambda survives whatever a function raises
            outcome = Failed(f"{type(error).__name__}: {error}")
        if self.clock.now() >= context.deadline:
            outcome = Failed("it timed out")
        left = len(invocation.records) - settled_count(outcome, invocation.sequence_numbers)
        if left:
            _log.warning("%s: %d records will be sent again: %s", invocation.shard_id, left, outcome)
        return outcome
