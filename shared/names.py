"""Legal names of accounts, key ids, databases and tables, and the columns that every row has.

Databases and tables follow Treasure Data's rule: 3 to 128 characters of `a-z`, `0-9` and `_`.
"""

import re

_ACCOUNT = re.compile(r"[a-z0-9_]{3,64}")
_KEY_ID = re.compile(r"[a-z0-9]{1,16}(-[0-9]{1,4})?")
_TD_NAME = re.compile(r"[a-z0-9_]{3,128}")

ROW_COLUMNS = ("time", "event_id", "received_at")
"""The columns of every row, which cannot be dropped or hashed."""


def is_account(name: str) -> bool:
    """Return whether `name` is a legal account name."""
    return _ACCOUNT.fullmatch(name) is not None


def is_key_id(name: str) -> bool:
    """Return whether `name` is a legal key id: a secret's id, optionally followed by `-` and a serial number."""
    return _KEY_ID.fullmatch(name) is not None


def is_database(name: str) -> bool:
    """Return whether `name` is a legal database name in Treasure Data."""
    return _TD_NAME.fullmatch(name) is not None


def is_table(name: str) -> bool:
    """Return whether `name` is a legal table name in Treasure Data."""
    return _TD_NAME.fullmatch(name) is not None
