"""Errors as botocore raises them, for the in-memory clients."""

from collections.abc import Collection, Mapping
from typing import Any

from botocore.exceptions import ClientError


def client_error(
    code: str, operation: str, message: str = "", status: int = 400, **members: Any
) -> ClientError:
    """Return the error that a call of `operation` raises, with `members` beside `Error` in its response."""
    response = {
        "Error": {"Code": code, "Message": message or code},
        "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": {}, "RetryAttempts": 0},
        **members,
    }
    return ClientError(response, operation)  # type: ignore[arg-type]  # botocore-stubs want a TypedDict


def check_members(operation: str, request: Mapping[str, Any], known: Collection[str]) -> None:
    """Raise NotImplementedError if a request has members that the double would ignore."""
    if unknown := request.keys() - set(known):
        raise NotImplementedError(f"the double does not support {', '.join(unknown)} of {operation}")
