"""How far a sender's clock is off.

A body may say when it was sent, by the sender's clock. What lies between that and its arrival is the way through the
network, the error of the clock, or both, and nobody can tell them apart. So only what is far beyond the way is taken
for the clock's error, and then one number of seconds is added to every event's time of that request: their order and
their distances stay as they were.
"""

from shared import rows

TRANSIT_SECONDS = 300
"""No request is under way for longer than this."""

_YEAR_10000 = 253_402_300_800


def drift(sent_at: object, received_at: int) -> int:
    """Return the seconds by which the sender's clock is behind; 0 where it is right, or nothing is known of it.

    Args:
        sent_at: when the request was sent by the sender's clock, in any form that an event's `time` may have.
        received_at: when it arrived, UNIX seconds.
    """
    sent = rows.read_time(sent_at)
    if sent is None or not 0 <= sent < _YEAR_10000:  # no clock shows such a time
        return 0
    behind = received_at - sent
    return behind if abs(behind) > TRANSIT_SECONDS else 0
