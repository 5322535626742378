"""Keyed hashes of what identifies a person, by which the functions recognise persons without keeping their values.

A hash is of an account, a column and the text of a value. Who has the hashes alone cannot try values.
"""

import hmac
from hashlib import blake2b
from typing import Any

HASH_BYTES = 16

_HASHED_COLUMN_BYTES = 16


def text_of(value: Any) -> bytes:
    """Return the text of a column's value, by which persons are recognised and columns are hashed."""
    return (value if isinstance(value, str) else repr(value)).encode(errors="replace")


def hashed_column(value: Any, key: bytes) -> str:
    """Return what HashedColumns makes of a value: 128 bits of HMAC-SHA256 of its text, in hex."""
    return hmac.digest(key, text_of(value), "sha256")[:_HASHED_COLUMN_BYTES].hex()


def key_of(key: bytes, account: str, column: str) -> bytes:
    """Return the key of the hashes of a column's texts."""
    # neither an account nor a column has a slash
    return blake2b(f"{account}/{column}".encode(), key=key[: blake2b.MAX_KEY_SIZE]).digest()


def hash_of(column_key: bytes, text: bytes) -> bytes:
    """Return the hash of a value's text, with the key of its column."""
    return blake2b(text, digest_size=HASH_BYTES, key=column_key).digest()
