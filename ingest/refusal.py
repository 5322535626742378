"""Every code with which the ingest rejects a request or an event, and the HTTP response for each."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from shared import rows

RequestCode = Literal[
    "invalid_json",
    "not_events",
    "no_events",
    "unreadable_body",
    "unsupported_encoding",
    "invalid_batch_id",
    "invalid_callback",
    "invalid_redirect",
    "missing_key",
    "invalid_key",
    "wrong_database",
    "unknown_account",
    "disabled_account",
    "revoked_key",
    "unwanted_bot",
    "not_found",
    "method_not_allowed",
    "rate_exceeded",
    "budget_exceeded",
    "body_too_large",
    "too_many_events",
    "internal_error",
    "keys_unavailable",
    "stream_unavailable",
]
EventCode = rows.Code | rows.PlanCode | Literal["stream_unavailable"]
AnyCode = RequestCode | EventCode
EVENT_CODES: tuple[EventCode, ...] = (*get_args(rows.Code), *get_args(rows.PlanCode), "stream_unavailable")


@dataclass(frozen=True, slots=True)
class Answer:
    """The response for a code.

    Attributes:
        status: the HTTP status, if the whole request is rejected.
        meaning: what is wrong, for a person.
        retry_after: seconds after which a retry may succeed; None if it never will.
    """

    status: int
    meaning: str
    retry_after: int | None = None


ANSWERS: Mapping[AnyCode, Answer] = {
    # for a request
    "invalid_json": Answer(400, "the body is not valid JSON in UTF-8"),
    "not_events": Answer(400, "the body is neither an event nor an array of events"),
    "no_events": Answer(400, "the body contains no event"),
    "unreadable_body": Answer(400, "the body is truncated or corrupt gzip, zlib or base64"),
    "unsupported_encoding": Answer(400, "content-encoding must be gzip, deflate or absent"),
    "invalid_batch_id": Answer(400, "the batch id is not a string of 1 to 64 characters"),
    "invalid_callback": Answer(400, "the callback is not a valid function name"),
    "invalid_redirect": Answer(400, "the redirect does not point to a host that this stack allows"),
    "missing_key": Answer(401, "the request has no write key"),
    "invalid_key": Answer(401, "the write key is not signed with a currently valid secret"),
    "wrong_database": Answer(403, "the request must name the write key's account in place of a database"),
    "unknown_account": Answer(403, "the write key's account does not exist in this stack"),
    "disabled_account": Answer(403, "the account is disabled"),
    "revoked_key": Answer(403, "the write key has been revoked"),
    "unwanted_bot": Answer(403, "this stack does not accept events from known bots"),
    "not_found": Answer(404, "this path does not exist"),
    "method_not_allowed": Answer(
        405, "this path does not support the method; the `allow` header lists those it does"
    ),
    "body_too_large": Answer(413, "the body is larger than 1 MiB as sent or 2 MiB decompressed"),
    "too_many_events": Answer(413, "the body contains more than 500 events"),
    "rate_exceeded": Answer(
        429, "the write key sends more events or bytes than this stack accepts from one key", 1
    ),
    "budget_exceeded": Answer(
        429, "the account sends more events or bytes than its budget; large requests are refused first", 60
    ),
    "internal_error": Answer(500, "an internal error; retry the request later", 5),
    "keys_unavailable": Answer(503, "the signing secrets cannot be read at the moment; retry later", 5),
    "stream_unavailable": Answer(
        503, "neither the stream nor the overflow queue acknowledged the events; retry later", 5
    ),
    # for an event
    "not_an_object": Answer(400, "the event is not a JSON object"),
    "missing_table": Answer(400, "neither the event nor the request names a table"),
    "invalid_table": Answer(400, "the table name is not 3 to 128 characters of `a-z`, `0-9` and `_`"),
    "too_many_tables": Answer(
        400, "the request names more than 20 tables; send this event in another request"
    ),
    "too_many_columns": Answer(400, "the row would have more than 512 columns"),
    "too_deep": Answer(400, "a value is nested more than 254 levels deep"),
    "event_too_large": Answer(413, "the event is larger than 256 KiB as JSON"),
    "refused_person": Answer(403, "the account refuses events of this person"),
    "unplanned_table": Answer(400, "the event's table is not in the account's tracking plan"),
    "unplanned_column": Answer(400, "the event has a column that the account's tracking plan does not have"),
    "missing_column": Answer(400, "the event lacks a column that the account's tracking plan requires"),
    "wrong_type": Answer(
        400, "a column's value does not have the type that the account's tracking plan requires"
    ),
    "wrong_value": Answer(400, "a column has a value that the account's tracking plan does not allow"),
}
"""Codes are stable: clients may depend on them. `stream_unavailable` applies to requests and to events."""


class Refused(Exception):  # noqa: N818 -- an answer, not a failure
    """The request is rejected as a whole.

    Attributes:
        code: one of ANSWERS.
        message: for a person; defaults to the code's meaning.
        allow: the path's methods, if the method was wrong.
    """

    def __init__(self, code: AnyCode, message: str = "", allow: str = "") -> None:
        super().__init__(code)
        self.code: AnyCode = code
        self.message = message or ANSWERS[code].meaning
        self.allow = allow
