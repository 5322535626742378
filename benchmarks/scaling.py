"""Simulates a stream that sizes itself and one on demand, and compares cost and delay for several shapes of traffic."""

import hashlib
import math
import random
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache

from benchmarks.report import Report
from ops.cost.prices import DEFAULT_REGION, REGIONS
from scaler.rule import RECENT_SECONDS, SHARD_RECORDS, TRIES, Minute, target

HOUR, DAY = 3600, 86_400
SECONDS = 2 * DAY
"""The simulated time. Spikes are on the second day."""
RECORD_BYTES = 540
KEYS = 320
"""Partition keys: 16 for each of twenty accounts."""
MOST_SHARDS = 16
METRIC_SECONDS = 90
"""Assumed: how long after its end CloudWatch shows a minute."""
CHANGE_SECONDS = 60
"""Assumed: how long Kinesis takes to change the number of shards."""
CHANGES_A_DAY = 10
DRAINED_A_SECOND = 1000
"""Assumed: how many envelopes two invocations of the drainer put per second, in calls of 500."""
RETRY_SECONDS = 120
"""How long the drainer waits before it retries puts that the stream rejected."""

SHAPES: Mapping[str, Callable[[float], float]] = {
    "trickle: 1 request in 10 s": lambda _at: 0.1,
    "flat: 300 a second": lambda _at: 300.0,
    "daily wave: 20 to 1,400 a second": lambda at: 710 - 690 * math.cos(2 * math.pi * at / DAY),
    "tenfold spike of ten minutes: 400 to 4,000 a second": lambda at: (
        4000.0 if 36 * HOUR <= at < 36 * HOUR + 600 else 400.0
    ),
    "flash sale: 100 to 6,000 a second, gone in two hours": lambda at: (
        100 + 5900 * math.exp((36 * HOUR - at) / 1800) if at >= 36 * HOUR else 100.0
    ),
}
"""Shapes of traffic: each returns the requests per second at a second of the simulation."""


@dataclass(slots=True)
class Outcome:
    """The results of a simulation.

    Attributes:
        usd: the stream's cost per month.
        overflowed: the share of the requests that went through the overflow queue.
        longest: the most seconds that a request waited there.
        least: the minimum number of shards, or their equivalent on demand.
        most: the maximum number of shards.
    """

    usd: float = 0.0
    overflowed: float = 0.0
    longest: float = 0.0
    least: float = math.inf
    most: float = 0.0


@cache
def _shares(shards: int) -> tuple[float, ...]:
    """Return each shard's share of the traffic."""
    counts = [0] * shards
    for key in range(KEYS):
        hashed = int.from_bytes(hashlib.md5(str(key).encode(), usedforsecurity=False).digest())
        counts[hashed * shards >> 128] += 1
    return tuple(count / KEYS for count in counts)


@dataclass(slots=True)
class _Auto:
    """A stream that the scaler sizes."""

    shards: int = 1
    minutes: deque[tuple[float, Minute]] = field(default_factory=deque)
    changes: deque[float] = field(default_factory=deque)
    wanted: int = 1
    busy_until: float = 0.0
    was_throttled: bool = False

    def look(self, at: float) -> None:
        """Run the scaler if it is due: every five minutes, and when CloudWatch shows a minute with rejected puts."""
        known = [(begin, minute) for begin, minute in self.minutes if begin + 60 + METRIC_SECONDS <= at]
        newest = known[-1][1] if known else Minute()
        alarm = bool(newest.throttled) and not self.was_throttled
        self.was_throttled = bool(newest.throttled)
        if at % 300 == 0 or alarm:
            recent = [minute for begin, minute in known if begin >= at - RECENT_SECONDS]
            day = [minute for _, minute in known]
            self.wanted = min(target(self.shards, day, recent, at), MOST_SHARDS)

    def step(self, at: float) -> None:
        """Take one step towards the wanted number of shards, if Kinesis allows one now."""
        while self.changes and self.changes[0] <= at - DAY:
            self.changes.popleft()
        if self.shards != self.wanted and at >= self.busy_until and len(self.changes) < CHANGES_A_DAY:
            self.shards = max(min(self.wanted, 2 * self.shards), -(-self.shards // 2))
            self.changes.append(at)
            self.busy_until = at + CHANGE_SECONDS


def simulate(rate: Callable[[float], float], *, auto: bool, seed: int = 1) -> Outcome:
    """Simulate a stream second by second."""
    chances, outcome, stream = random.Random(seed), Outcome(), _Auto()
    waiting: deque[tuple[float, float, float]] = deque()  # when visible, waiting since, how many
    prices = REGIONS[DEFAULT_REGION]
    came = overflowed = shard_seconds = peak = 0.0
    minute = [0.0, 0.0]
    for at in range(SECONDS):
        expected = rate(at)
        arriving = max(0.0, chances.gauss(expected, math.sqrt(expected)))
        came += arriving
        if auto:
            capacity = [float(SHARD_RECORDS)] * stream.shards
            shares = _shares(stream.shards)
        else:
            capacity = [max(4.0 * SHARD_RECORDS, 2 * peak)]
            shares = (1.0,)
        size = sum(capacity) / SHARD_RECORDS
        shard_seconds += size
        outcome.least, outcome.most = min(outcome.least, size), max(outcome.most, size)
        refused = 0.0
        for index, share in enumerate(shares):
            taken = min(capacity[index], arriving * share)
            capacity[index] -= taken
            refused += arriving * share - taken
        if refused:
            waiting.append((at, at, refused))
            overflowed += refused
        minute[0] += arriving - refused
        minute[1] += refused * TRIES
        _drain(waiting, at, capacity, shares, outcome)
        if at % 60 == 59:
            peak = max(peak, minute[0] / 60) if at % 900 == 899 else peak
            stream.minutes.append((at - 59, Minute(minute[0], minute[0] * RECORD_BYTES, minute[1])))
            while stream.minutes[0][0] < at - DAY:
                stream.minutes.popleft()
            minute = [0.0, 0.0]
        if auto:
            if at % 30 == 0:
                stream.look(at)
            stream.step(at)
    hours = SECONDS / HOUR
    gigabytes = came * math.ceil(RECORD_BYTES / 1024) * 1024 / 1e9
    usd = (
        shard_seconds / HOUR * prices["shard_hours"] + came / 1e6 * prices["put_units"]
        if auto
        else hours * prices["stream_hours"] + gigabytes * (prices["stream_in"] + prices["stream_out"])
    )
    outcome.usd = usd / hours * 730
    outcome.overflowed = overflowed / came
    return outcome


def _drain(
    waiting: deque[tuple[float, float, float]],
    at: float,
    capacity: list[float],
    shares: tuple[float, ...],
    outcome: Outcome,
) -> None:
    """Put waiting requests as far as the stream has capacity left; retry rejected ones later."""
    left = float(DRAINED_A_SECOND)
    for _ in range(len(waiting)):
        if left <= 0 or not waiting or waiting[0][0] > at:
            return
        _, since, count = waiting.popleft()
        put = min(count, left)
        left -= put
        refused = 0.0
        for index, share in enumerate(shares):
            taken = min(capacity[index], put * share)
            capacity[index] -= taken
            refused += put * share - taken
        outcome.longest = max(outcome.longest, at - since)
        if count > put:
            waiting.appendleft((at, since, count - put))
        if refused > 1e-9:
            waiting.append((at + RETRY_SECONDS, since, refused))


def run(report: Report) -> None:
    """Simulate each shape with both kinds of stream, and report a table."""
    report.say(
        f"Simulated second by second for {SECONDS // DAY} days, with spikes on the second day."
        f" Assumed: CloudWatch shows a minute {METRIC_SECONDS} s after its end, a change of shards takes {CHANGE_SECONDS} s, an on-demand"
        f" stream accepts twice its peak so far and at least 4,000 requests a second, and the drainer puts {DRAINED_A_SECOND:,} a second."
    )
    rows = []
    for name, rate in SHAPES.items():
        for auto in (True, False):
            found = simulate(rate, auto=auto)
            rows.append(
                [
                    name if auto else "",
                    "`AUTO`" if auto else "`ON_DEMAND`",
                    f"{found.least:.0f} to {found.most:.0f}"
                    if found.most > found.least
                    else f"{found.most:.0f}",
                    f"{found.usd:,.2f}",
                    f"{found.overflowed:.2%}",
                    f"{found.longest:,.0f}",
                ]
            )
            if auto:
                auto_usd = found.usd
            else:
                report.ratio(f"scaling_{name.split(':')[0].replace(' ', '_')}", auto_usd / found.usd)
    report.table(("traffic", "stream", "shards", "$ a month", "overflowed", "longest wait, s"), rows)
