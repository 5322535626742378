"""A stage for the steps of a certification: its commands are scripted, and its clock is simulated."""

from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import click

from doubles.clock import ManualClock
from ops.deploy.certify.stage import ON_AWS, TABLE, DeployedStage
from ops.deploy.stack_api import HttpAnswer
from tests.support.delivery import Delivery, envelope, row

_ACCEPTED = HttpAnswer(200, "", b"", 0.02)
_FUNCTIONS = ("IngestFunction", "WorkerFunction", "SenderFunction", "AdminFunction")
_OTHERS = ("StreamName", "OverflowQueueUrl", "OverflowNoticesUrl", "TdApiKeySecret", "RedisUrlSecret")


class Rehearsal(DeployedStage):
    """A stage on which every event becomes so many rows. Each command gives its answers in order, and its last again; without a `client`, puts succeed."""

    def __init__(
        self, copies: int = 1, client: Callable[[str], Any] | None = None, **answers: list[Any]
    ) -> None:
        clock = ManualClock()
        self.kept = Delivery(clock=clock)
        self.kept.map(shop="shop")
        self.queued: list[dict[str, Any]] = []
        self.calls: Counter[str] = Counter()
        self._copies = copies
        self._answers = answers
        puts = SimpleNamespace(put_record=lambda **_: {}, send_message=lambda **one: self.queued.append(one))
        stack: Any = SimpleNamespace(
            option="--stack sluice-dev",
            name="sluice-dev",
            outputs={name: name for name in (*_FUNCTIONS, *_OTHERS)},
            parameters={"LogLevel": "INFO"},
            client=client or (lambda _service: puts),
            administer=lambda **_: self._next("administer", {}),
            objects=lambda: self.kept.objects,
            ledger=lambda: self.kept.ledger,
        )
        made: Any = SimpleNamespace(breaking=lambda *_, **__: nullcontext(), request=lambda *_: _ACCEPTED)
        super().__init__(
            stack=stack,
            run="certify-1",
            account="shop",
            database="shop",
            key="shop.k1.mac",
            queries=made,
            api=made,
            repairs=made,
            is_emulated=False,
            clock=clock,
            pace=ON_AWS,
        )

    def send(self, case: str, table: str = TABLE) -> HttpAnswer:
        """Accept an event; its row is in S3 at once."""
        self.accept(table, self.event_id(case))
        self.kept.put(envelope("shop", {table: [row(self.event_id(case))]}, request_id=case))
        self.kept.deliver()
        return _ACCEPTED

    def counts(self, table: str = TABLE) -> Counter[str]:
        """Return the rows of all that was accepted."""
        return Counter(dict.fromkeys(self.copies.get(table, ()), self._copies))

    def operate(self, command: click.Command, *_words: str) -> Any:
        """Answer as the command would."""
        return self._next(str(command.name))

    def _next(self, name: str, *default: Any) -> Any:
        self.calls[name] += 1
        waiting = self._answers.get(name) or list(default)
        answer = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        if isinstance(answer, Exception):
            raise answer
        return answer
