"""Spans that have been open for a long time: an interrupted replay left them, or the worker holds them."""

import shlex
from collections.abc import Collection
from dataclasses import dataclass

from ops.books.accounting import by_group
from shared.clock import Clock
from worker.delivery import State
from worker.forced_replay import ForcedReplay
from worker.ledger import Ledger, Place
from worker.record import sequence_number
from worker.span import Span

LEFT_SECONDS = 900.0
"""No invocation is working on a span that has been open for longer: several invocations have ended since."""
MOST = 100
"""The most spans that are listed."""


@dataclass(frozen=True, slots=True)
class OpenSpan:
    """An open span.

    Attributes:
        shard: its shard.
        planned_at: UNIX seconds.
        rows: pending rows.
        first: sequence number of its first record.
        last: sequence number of its last record.
        tag: the tag of the forced replay that planned it; empty for any other span.
        account: the account to which that replay is limited; empty for all.
        table: the table to which it is limited; empty for all.
    """

    shard: str
    planned_at: float
    rows: int
    first: str
    last: str
    tag: str = ""
    account: str = ""
    table: str = ""

    @classmethod
    def of(cls, span: Span) -> "OpenSpan":
        """Return the description of a span."""
        replay = ForcedReplay.parse(span.chain.replay) if span.chain.is_forced else None
        return cls(
            span.chain.shard,
            span.planned_at / 1000,
            sum(states[State.PENDING] for states in by_group(span).values()),
            sequence_number(span.first),
            sequence_number(span.last),
            *(() if replay is None else (replay.tag, replay.account or "", replay.table or "")),
        )

    def command(self, option: str) -> str:
        """Return the command line that settles it.

        Args:
            option: names the stack, such as `--local`.
        """
        words = ["sluice", "replay", *option.split(), "--shard", self.shard]
        words += ["--from", self.first, "--to", self.last]
        if self.tag:
            words += ["--force", "--tag", self.tag]
            words += ["--account", self.account] if self.account else []
            words += ["--table", self.table] if self.table else []
        return shlex.join(words)


@dataclass(frozen=True, slots=True)
class LongOpenSpans:
    """Open spans, oldest first. `is_complete` says whether the whole ledger was searched."""

    spans: tuple[OpenSpan, ...] = ()
    is_complete: bool = True


def find(ledger: Ledger, clock: Clock, *, seconds: float, beside: Collection[Place] = ()) -> LongOpenSpans:
    """Search the ledger for spans that have been open for a long time; one read unit per 8 KB.

    Args:
        ledger: the ledger.
        clock: tells the time.
        seconds: the most time to search.
        beside: places of spans to leave out.

    Raises:
        LedgerUnavailableError: the ledger cannot be reached.
    """
    now = clock.now()
    found: list[OpenSpan] = []
    is_enough = is_complete = False
    for page in ledger.open_spans(now - LEFT_SECONDS):
        if is_enough:
            break
        found += [OpenSpan.of(span) for span in page if Place(span.chain, span.after) not in beside]
        is_enough = len(found) >= MOST or clock.now() - now >= seconds
    else:
        is_complete = True
    return LongOpenSpans(tuple(sorted(found, key=lambda span: span.planned_at)[:MOST]), is_complete)
