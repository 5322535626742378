"""The monthly cost of alternatives to Sluice, by their own published figures."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ops.cost.estimate import SECONDS

_EARLIER_USD = 200.0
_EARLIER_EVENTS = 10e6

_CLICKSTREAM_PER_REQUEST = 10
_CLICKSTREAM_LOGGING = 14.0
_CLICKSTREAM = ((10.0, 175.8), (100.0, 205.8), (1000.0, 578.8))

_SNOWPLOW_USD = 200.0
_SNOWPLOW_PER_SECOND = 100


@dataclass(frozen=True, slots=True)
class Alternative:
    """Another way to load events into Treasure Data, or part of one.

    Attributes:
        usd: returns dollars a month for a number of events a month.
        source: the source of the figures.
        covers: what it does and what it leaves out.
    """

    name: str
    usd: Callable[[float], float]
    source: str
    covers: str


def _earlier(events: float) -> float:
    return _EARLIER_USD * events / _EARLIER_EVENTS


def _clickstream(events: float) -> float:
    """Interpolate between the published figures; below the first one, the same servers run."""
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
    """Scale the published pipeline's cost by the load, but never below one pipeline."""
    rate = events / SECONDS / _SNOWPLOW_PER_SECOND
    return _SNOWPLOW_USD * max(1.0, rate)


ALTERNATIVES = (
    Alternative(
        "One upload to Treasure Data per event",
        _earlier,
        "an actual bill: $200 for 10 million events in a month, assumed proportional",
        "everything; no buffer",
    ),
    Alternative(
        "AWS Clickstream Analytics",
        _clickstream,
        "https://docs.aws.amazon.com/solutions/latest/clickstream-analytics-on-aws/cost.html, seen 2026-11-25",
        "collection up to Kinesis and S3; no network, no loading into a database",
    ),
    Alternative(
        "Snowplow Community Edition",
        _snowplow,
        "https://docs.snowplow.io/docs/getting-started-on-community-edition, seen 2026-11-25",
        "everything, on servers that are always on",
    ),
)
