"""What alternatives to Sluice cost for ten million events a month, by their own published figures."""

from typing import NamedTuple


class Alternative(NamedTuple):
    """Another way to load events into Treasure Data, or part of one.

    Attributes:
        usd: dollars a month for ten million events.
        source: the source of the figure.
        covers: what it does and what it leaves out.
    """

    name: str
    usd: float
    source: str
    covers: str


ALTERNATIVES = (
    Alternative(
        "One upload to Treasure Data per event",
        200.0,
        "an actual bill: $200 for 10 million events in a month, assumed proportional",
        "everything; no buffer",
    ),
    Alternative(
        "AWS Clickstream Analytics",
        175.8 + 14.0,  # for up to ten requests a second, and its logs
        "https://docs.aws.amazon.com/solutions/latest/clickstream-analytics-on-aws/cost.html, seen 2026-11-25",
        "collection up to Kinesis and S3; no network, no loading into a database",
    ),
    Alternative(
        "Snowplow Community Edition",
        200.0,  # one pipeline, for up to 100 events a second
        "https://docs.snowplow.io/docs/getting-started-on-community-edition, seen 2026-11-25",
        "everything, on servers that are always on",
    ),
)
