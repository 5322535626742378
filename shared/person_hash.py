"""Keyed hashes of what identifies a person, by which the functions recognise persons without keeping their values.

A hash is of an account, a column and the text of a value. Who has the hashes alone cannot try values.
"""

import hmac
from collections.abc import Callable
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


def hasher(key: bytes, account: str, column: str) -> Callable[[bytes], bytes]:
    """Return what hashes the texts of a column's values."""
    # neither an account nor a column has a slash
    column_key = blake2b(f"{account}/{column}".encode(), key=key[: blake2b.MAX_KEY_SIZE]).digest()
    keyed = blake2b(digest_size=HASH_BYTES, key=column_key)

    def hash_of(text: bytes) -> bytes:
        copy = keyed.copy()  # takes the key in once: less time than a new hash
        copy.update(text)
        return copy.digest()

    return hash_of
