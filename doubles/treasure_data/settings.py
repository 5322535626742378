"""Treasure Data's behaviour where it is not documented, or differs from account to account."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

API_KEY = "1/5f1ce05f1ce05f1ce05f1ce05f1ce05f1ce05f1c"
"""The key that may do everything, unless others are given."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How the double behaves where TD's behaviour is not documented.

    Attributes:
        id_memory: seconds for which a table remembers a unique_id, from the first import that was accepted under it.
        duplicate_status: the status of the response to a repeated unique_id: 200 or 409.
        query_delay: seconds from an import until queries see its rows.
        job_seconds: seconds that a job takes; it sees what could be queried when it was issued.
        answer_seconds: seconds that the response to an import takes.
        largest_import: bytes of an import before gzip; more is a 413. fluent-plugin-td's limit.
        schema_delay: seconds from when queries see a row until its table shows the row's columns; infinite where schema
            detection is off.
        job_age: seconds for which a query that is issued has run already: a cache answers with an old one.
        rejects: tells of a row whether an import that holds it is a 422.
    """

    id_memory: float = 3600.0
    duplicate_status: int = 200
    query_delay: float = 0.0
    job_seconds: float = 0.0
    answer_seconds: float = 0.0
    largest_import: int = 32 * 1024 * 1024
    schema_delay: float = 0.0
    job_age: float = 0.0
    rejects: Callable[[dict[str, Any]], bool] | None = None
