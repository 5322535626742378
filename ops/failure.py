"""Error messages: one line that says what went wrong and what to do."""

from collections.abc import Callable

import click
from botocore import exceptions
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
    UnauthorizedSSOTokenError,
)
from botocore.parsers import ResponseParserError

from ops.help_page import DEPLOY, RIGHTS
from shared.errors import HeldError, InvalidObjectError, SluiceError, UnavailableError

FAILED = 1
"""Exit code: the command failed; one line on standard error says what to do."""
UNFINISHED = 3
"""Exit code: the command did what it could, or completed a check, and something needs attention."""
TIMED_OUT = 4
"""Exit code: the condition was not met in time."""
INTERRUPTED = 130
"""Exit code: stopped by Ctrl-C."""
UNREAD = 141
"""Exit code: whoever read the output left. A shell shows the same for a tool that SIGPIPE ends."""

EXIT_CODES = {
    0: "success, or nothing needs attention",
    FAILED: "failed; one line on standard error says why and what to do",
    2: "invalid command line",
    UNFINISHED: "`status`, `doctor`, `preflight` or `certify` found something that needs attention; `plan diff` found differences; `replay` or `redrive` did not finish everything; `forget`, `export` or `accounts export` could not read or delete everything; `keys verify` could check only the signature; `wait`: the table is complete except for dead rows",
    TIMED_OUT: "`wait`: the table is not complete within --timeout",
    INTERRUPTED: "stopped by Ctrl-C",
    UNREAD: "whoever read the output left before the command ended, as `head` does",
}

FORESEEN = (BotoCoreError, ClientError, ResponseParserError, UnavailableError, HeldError, InvalidObjectError)
"""Errors that any call that reaches AWS, or reads what is stored there, may raise; docstrings do not repeat them. `explained` turns them into
messages."""

_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"}
_UNKNOWN_KEY = {
    "InvalidClientTokenId",
    "UnrecognizedClientException",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
}
_DENIED = {
    "AccessDenied",
    "AccessDeniedException",
    "UnauthorizedOperation",
    "NotAuthorized",
    "AuthorizationError",
}
_THROTTLED = {"Throttling", "ThrottlingException", "TooManyRequestsException", "RequestLimitExceeded"}
_GONE = {"ResourceNotFoundException", "NoSuchBucket", "404", "AWS.SimpleQueueService.NonExistentQueue"}
"""404 is HeadBucket's, whose answer has no body."""
_ABSENT = ("NotFound", "NoSuch", "NonExistent", "DoesNotExist", "404")
_NEW_CREDENTIALS = "log in again (`aws sso login`, or new keys in the environment) and repeat the command"


class Failure(click.ClickException):
    """The command failed. The message is one line that says what to do."""

    exit_code = FAILED

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


def is_lasting(error: Exception) -> bool:
    """Return whether an error lasts until somebody acts."""
    unknown = (NoCredentialsError, PartialCredentialsError, SSOError, TokenRetrievalError)
    return _code(error) in _EXPIRED | _UNKNOWN_KEY | _DENIED | _GONE or isinstance(_cause(error), unknown)


def is_gone(error: Exception) -> bool:
    """Return whether a resource of the stack does not exist."""
    return _code(error) in _GONE


def is_absent(error: BaseException) -> bool:
    """Return whether AWS answers that what was asked for does not exist."""
    code = _code(error)  # not the message, which may name an account with 404 in its id
    is_stack = isinstance(error, ClientError) and error.operation_name == "DescribeStacks"
    return any(word in code for word in _ABSENT) or (is_stack and code == "ValidationError")


def if_there[**P, Found](call: Callable[P, Found], *args: P.args, **arguments: P.kwargs) -> Found | None:
    """Return the result of a call of AWS; None if what it asks for does not exist."""
    try:
        return call(*args, **arguments)
    except ClientError as error:
        if is_absent(error):
            return None
        raise


def is_down(error: Exception) -> bool:
    """Return whether a service of AWS fails, which passes on its own."""
    cause = _cause(error)
    answer = cause.response.get("ResponseMetadata", {}) if isinstance(cause, ClientError) else {}
    return int(answer.get("HTTPStatusCode", 0)) >= 500


def is_denied(error: Exception) -> bool:
    """Return whether AWS denied the caller permission."""
    return _code(error) in _DENIED


def explained(error: Exception, rights: str = RIGHTS) -> Failure:
    """Turn an error of boto3, or one caused by it, into a message. `rights` is the page that lists the permissions."""
    if isinstance(error, click.ClickException):
        return Failure(error.message)
    cause = _cause(error)
    if isinstance(cause, ClientError):
        return Failure(_refused(cause, rights))
    match cause:
        case NoCredentialsError() | PartialCredentialsError():
            return Failure(
                "no AWS credentials were found: set a profile up (`aws configure`, or `aws configure sso`), and repeat the command"
            )
        case ProfileNotFound():
            return Failure(f"{cause}: set AWS_PROFILE to a profile in `aws configure list-profiles`")
        case SSOError() | TokenRetrievalError() | UnauthorizedSSOTokenError():
            return Failure(f"your AWS session has expired: {_NEW_CREDENTIALS}")
        case exceptions.ConnectionError() | HTTPClientError():
            return Failure(
                f"{_plain(cause)}: check your network and the region, and with --local, that the local stack is running (`sluice local`)"
            )
        case ResponseParserError():
            return Failure(
                "something else than AWS has answered, perhaps a proxy: check your network and AWS_ENDPOINT_URL, and repeat the command"
            )
    if isinstance(error, SluiceError):
        return Failure(_plain(error))
    return Failure(f"{type(error).__name__}: {_plain(error)}")


def _cause(error: BaseException) -> BaseException:
    """Return the boto3 error that caused an error."""
    cause = error
    while not isinstance(cause, ClientError | BotoCoreError) and cause.__cause__ is not None:
        cause = cause.__cause__
    return cause


def _code(error: BaseException) -> str:
    cause = _cause(error)
    return str(cause.response.get("Error", {}).get("Code", "")) if isinstance(cause, ClientError) else ""


def _refused(error: ClientError, rights: str) -> str:
    answer = error.response.get("Error", {})
    code, message = answer.get("Code", ""), answer.get("Message", "")
    operation = error.operation_name
    if code in _EXPIRED:
        return f"your AWS credentials have expired: {_NEW_CREDENTIALS}"
    if code in _UNKNOWN_KEY:
        return f"AWS does not know your credentials: {_NEW_CREDENTIALS}"
    if code in _DENIED:
        said = message.rstrip(".")
        return f"your credentials do not allow {operation}: {said}. Ask your AWS administrator for this permission ({rights})"
    if code in _THROTTLED:
        return f"AWS throttles your calls ({operation}): repeat the command in a minute"
    if code in _GONE:
        return f"a resource of the stack is gone ({operation}: {message}): run {DEPLOY} to recreate it"
    return f"AWS rejected {operation}: {code}: {message}"


def _plain(error: BaseException) -> str:
    return str(error).rstrip(".")
