"""Errors as botocore raises them, for the in-memory clients."""

from typing import Any

from botocore.exceptions import ClientError

_CLASSES: dict[str, type[ClientError]] = {}


def error_class(code: str) -> type[ClientError]:
    """Return the exception class that a botocore client has for an error code."""
    if code not in _CLASSES:
        _CLASSES[code] = type(code, (ClientError,), {})
    return _CLASSES[code]


def client_error(
    code: str, operation: str, message: str = "", status: int = 400, **members: Any
) -> ClientError:
    """Return the error that a call of `operation` raises; `members` stand beside `Error` in its response."""
    response = {
        "Error": {"Code": code, "Message": message or code},
        "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": {}, "RetryAttempts": 0},
        **members,
    }
    return error_class(code)(response, operation)  # type: ignore[arg-type]  # botocore-stubs want a TypedDict


class Exceptions:
    """What `client.exceptions` is: a class for each error code."""

    ClientError = ClientError

    def __getattr__(self, code: str) -> type[ClientError]:
        """Return the class of an error code."""
        if code.startswith("_"):
            raise AttributeError(code)
        return error_class(code)
