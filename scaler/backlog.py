"""Publishes in the edge policy that the overflow queue holds too much, so that instances of the ingest refuse what makes it grow.

The queue is for what the stream does not accept for a while. If somebody sends more than the stream can ever take, it would grow
without end, at a price, and genuine envelopes would wait behind the others.
"""

from typing import TYPE_CHECKING

from shared import policy
from shared.clock import Clock
from shared.errors import PolicyContestedError, aws_errors, error_code
from shared.policy import EdgePolicy, OverflowLimit
from shared.published_policy import PublishedPolicy
from shared.queue_counts import queue_counts
from shared.telemetry import Telemetry

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

MOST_MESSAGES = 20_000
"""The backlog above which the queue holds too much: 18 GB at most."""
VALID_SECONDS = 600
"""How long what is published is valid. The scaler extends it, so that it ends if the scaler does."""
MOST_LEVEL = 10


def decide(messages: int, current: OverflowLimit | None, now: float) -> OverflowLimit | None:
    """Return what to publish about a backlog; None if the queue does not hold too much.

    Args:
        messages: in the queue.
        current: what is published.
        now: UNIX seconds.
    """
    until = round((now + VALID_SECONDS) * 1000)
    if current is None or current.until <= now * 1000:
        return OverflowLimit(until, 0, messages) if messages > MOST_MESSAGES else None
    if messages < MOST_MESSAGES / 2:
        return None
    grows = messages > MOST_MESSAGES and messages >= current.messages
    return OverflowLimit(until, min(MOST_LEVEL, current.level + grows), messages)


class Backlog:
    """The overflow queue's backlog.

    Args:
        sqs: a boto3 client.
        queue_url: the overflow queue.
        published: the edge policy.
        clock: tells the time.
        telemetry: logs each change.
    """

    def __init__(
        self, sqs: "SQSClient", queue_url: str, published: PublishedPolicy, clock: Clock, telemetry: Telemetry
    ) -> None:
        self._sqs = sqs
        self._queue_url = queue_url
        self._published = published
        self._clock = clock
        self._telemetry = telemetry

    def run(self) -> int | None:
        """Publish whether the queue holds too much; return how many messages it holds, None if that is unknown."""
        try:
            messages = sum(queue_counts(self._sqs, self._queue_url))
            self._published.change(lambda current: self._changed(current, messages))
        except aws_errors(PolicyContestedError) as error:
            self._telemetry.warning(
                "the backlog could not be published; the next run tries again", reason=error_code(error)
            )
            self._telemetry.count("ScalerFailures")
            return None
        return messages

    def _changed(self, current: EdgePolicy | None, messages: int) -> bytes | None:
        if current is None:
            return None  # without accounts there is nothing to refuse
        now = self._clock.now()
        overflow = decide(messages, current.overflow, now)
        if overflow is None and current.overflow is None:
            return None
        self._telemetry.warning(
            "the overflow queue's backlog is published",
            messages=messages,
            level=-1 if overflow is None else overflow.level,
        )
        return policy.with_overflow(current, overflow, round(now * 1000))
