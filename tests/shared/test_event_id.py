"""Events without an id get one."""

import uuid

from hypothesis import given
from hypothesis import strategies as st

from shared import event_id


@given(st.integers(0, 2**48 - 1), st.binary(min_size=10, max_size=10))
def test_a_new_id_is_a_uuid_version_7(now_ms: int, chance: bytes) -> None:
    """Its first 48 bits are the time in milliseconds, so ids sort by time (RFC 9562, 5.7)."""
    made = uuid.UUID(event_id.new_event_id(now_ms, lambda _count: chance))

    assert (7, uuid.RFC_4122, now_ms) == (made.version, made.variant, made.int >> 80)


@given(st.binary(min_size=10, max_size=10), st.binary(min_size=10, max_size=10))
def test_74_bits_are_random(one: bytes, other: bytes) -> None:
    """Two events in the same millisecond share an id only if all 74 random bits are equal."""
    ids = [event_id.new_event_id(1, lambda _count, chance=chance: chance) for chance in (one, other)]
    bits = [int.from_bytes(chance) & ~(0xF << 76 | 3 << 62) for chance in (one, other)]

    assert (bits[0] == bits[1]) == (ids[0] == ids[1])


def test_a_derived_id_depends_on_the_position() -> None:
    """It is a UUID version 8 (RFC 9562, 5.8): the same each time for one position, and different for each position."""
    places = [("shard-0", "1", 0), ("shard-0", "1", 1), ("shard-0", "2", 0), ("shard-1", "1", 0)]
    ids = [event_id.derived_event_id(*place) for place in places]

    assert "29614763-6e91-8df4-9ea1-8d90dfcc173e" == ids[0]
    assert ids == [event_id.derived_event_id(*place) for place in places]
    assert [(8, uuid.RFC_4122)] * 4 == [(uuid.UUID(made).version, uuid.UUID(made).variant) for made in ids]
    assert 4 == len(set(ids))
