"""What others cost in a month, by their own published figures."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ops.estimate import SECONDS

LEAST_EVENTS = 1e4
"""A month's events below which nothing is compared."""

_EARLIER_USD = 200.0
_EARLIER_EVENTS = 10e6

_CLICKSTREAM_PER_REQUEST = 10
_CLICKSTREAM_LOGGING = 14.0
_CLICKSTREAM = ((10.0, 175.8), (100.0, 205.8), (1000.0, 578.8))

_SNOWPLOW_USD = 200.0
_SNOWPLOW_PER_SECOND = 100


@dataclass(frozen=True, slots=True)
class Rival:
    """Another way.

    Attributes:
        name: its name.
        label: its name where there is little room.
        usd: dollars a month for so many events.
        most: events a month up to which its figures are published.
        source: where they are.
        covers: what they are for.
    """

    name: str
    label: str
    usd: Callable[[float], float]
    most: float
    source: str
    covers: str


def _earlier(events: float) -> float:
    return _EARLIER_USD * events / _EARLIER_EVENTS


def _clickstream(events: float) -> float:
    """Return what lies between the published figures; servers that run anyway cost the same for less."""
    rate = events / _CLICKSTREAM_PER_REQUEST / SECONDS
    return _CLICKSTREAM_LOGGING + _between(_CLICKSTREAM, rate)


def _between(points: Sequence[tuple[float, float]], x: float) -> float:
    if x <= points[0][0]:
        return points[0][1]
    for (left, low), (right, high) in itertools.pairwise(points):
        if x <= right:
            return low + (high - low) * (x - left) / (right - left)
    return points[-1][1] * x / points[-1][0]


def _snowplow(events: float) -> float:
    """Return what enough pipelines of the published size cost."""
    rate = events / SECONDS / _SNOWPLOW_PER_SECOND
    return _SNOWPLOW_USD * max(1.0, rate)


RIVALS = (
    Rival(
        "one upload to Treasure Data per event",
        "upload per event",
        _earlier,
        10 * _EARLIER_EVENTS,
        "an actual bill: $200 for 10 million events in a month, assumed proportional",
        "everything; no buffer, nothing set aside",
    ),
    Rival(
        "AWS Clickstream Analytics",
        "AWS Clickstream",
        _clickstream,
        _CLICKSTREAM[-1][0] * _CLICKSTREAM_PER_REQUEST * SECONDS,
        "https://docs.aws.amazon.com/solutions/latest/clickstream-analytics-on-aws/cost.html, seen 2026-11-25: "
        "EC2, provisioned Kinesis, 10 events per request, us-east-1, and $14 for logging",
        "collection up to Kinesis and S3; no network, no loading into a database",
    ),
    Rival(
        "Snowplow Community Edition",
        "Snowplow",
        _snowplow,
        _SNOWPLOW_PER_SECOND * SECONDS,
        "https://docs.snowplow.io/docs/getting-started-on-community-edition, seen 2026-11-25: "
        "around $200 a month on AWS for around 100 events per second",
        "everything, on servers that are always on",
    ),
)


def dearer(ours: Callable[[float], float], rival: Rival) -> list[tuple[float, float]]:
    """Return from how many events a month to how many ours is dearer, as far as the rival's figures are published.

    Args:
        ours: dollars a month for so many events.
        rival: the other way.
    """

    def loses(events: float) -> bool:
        return ours(events) > rival.usd(events)

    decades = math.log10(rival.most / LEAST_EVENTS)
    steps = math.ceil(decades * 20)
    marks = [*(LEAST_EVENTS * 10 ** (decades * step / steps) for step in range(steps)), rival.most]
    ranges: list[tuple[float, float]] = []
    start = marks[0] if loses(marks[0]) else None
    for low, high in itertools.pairwise(marks):
        if loses(low) != loses(high):
            border = _border(loses, low, high)
            if start is None:
                start = border
            else:
                ranges.append((start, border))
                start = None
    return ranges if start is None else [*ranges, (start, marks[-1])]


def _border(loses: Callable[[float], bool], low: float, high: float) -> float:
    before = loses(low)
    while high / low > 1.001:
        middle = (low * high) ** 0.5
        if loses(middle) == before:
            low = middle
        else:
            high = middle
    return high
