"""Replaces personal data by stand-ins. Equal values get equal stand-ins, so rows can be compared without revealing a person."""

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from shared.rows import column_name

COLUMNS = frozenset(
    ("td_ip", "td_client_id", "td_global_id", "td_user_agent", "td_referrer", "td_url", "user_id", "email")
)
"""Columns that hold personal data."""

EXPLANATION = "Personal data is replaced by stand-ins, equal values by equal ones; --raw shows it."
_EMAIL = re.compile(r"[^\s\"'<>@,;:=/?&]+@[^\s\"'<>@,;:=/?&]+\.[a-zA-Z]{2,}")


def scrub(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row, or an event as sent, with stand-ins for the values of COLUMNS and for email addresses in any column."""
    return {name: stand_in(name, value) for name, value in row.items()}


def stand_in(name: str, value: Any) -> Any:
    """Return the stand-in for a column's value, or the value itself if it is not personal data."""
    column = column_name(name)
    if column not in COLUMNS:
        try:
            return without_emails(value)
        except RecursionError:  # a rejected event is nested as deeply as its sender likes
            return "nested too deeply to show"
    if value is None or value == "":
        return value
    text = value if isinstance(value, str) else repr(value)
    digest = hashlib.sha256(f"{column}\n{text}".encode(errors="replace")).digest()
    if column == "td_ip":
        return f"198.51.100.{digest[0]}"  # reserved for documentation, RFC 5737
    if column in ("td_url", "td_referrer"):
        return f"https://page.example/{digest.hex()[:12]}"
    return f"{column}-{digest.hex()[:16]}"


def without_emails(value: Any) -> Any:
    """Return a JSON value with stand-ins for the email addresses in it, at any depth."""
    match value:
        case str():
            return _EMAIL.sub(_email, value) if "@" in value else value
        case list():
            return [without_emails(one) for one in value]
        case dict():
            return {without_emails(name): without_emails(one) for name, one in value.items()}
    return value


def _email(found: re.Match[str]) -> str:
    return f"email-{hashlib.sha256(found[0].encode(errors='replace')).hexdigest()[:16]}"
