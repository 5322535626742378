"""What went wrong, in one line that says what to do."""

import click
from botocore import exceptions
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    HTTPClientError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
    UnauthorizedSSOTokenError,
)

from shared.errors import UnavailableError

FAILED = 1
"""Exit code: it was not done; standard error has one line that says what to do."""
UNFINISHED = 3
"""Exit code: it was done as far as possible, or looked at, and something needs attention."""
TIMED_OUT = 4
"""Exit code: what was waited for did not come about in time."""
INTERRUPTED = 130
"""Exit code: Ctrl-C ended it."""

EXIT_CODES = {
    0: "success, or nothing needs attention",
    FAILED: "failed; one line on standard error says why and what to do",
    2: "invalid command line",
    UNFINISHED: "`status`, `doctor`, `preflight` or `certify` found something that needs attention; `replay` or `redrive` did not finish everything; what `wait` waited for is complete, but for rows that are set aside",
    TIMED_OUT: "`wait`: it is not complete within --timeout",
    INTERRUPTED: "stopped by Ctrl-C; `replay` prints how to continue",
}

FORESEEN = (BotoCoreError, ClientError, UnavailableError)
"""Errors that may come of every call: `explained` says what they mean."""

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
_GONE = {"ResourceNotFoundException", "NoSuchBucket", "AWS.SimpleQueueService.NonExistentQueue"}
_NEW_CREDENTIALS = "log in again (`aws sso login`, or new keys in the environment) and repeat the command"


class Failure(click.ClickException):
    """The command could not do what it was asked for; the message is one line that says what to do."""

    exit_code = FAILED

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


def is_lasting(error: Exception) -> bool:
    """Tell whether an error stays until a person does something."""
    cause = _cause(error)
    if isinstance(cause, ClientError):
        return cause.response.get("Error", {}).get("Code", "") in _EXPIRED | _UNKNOWN_KEY | _DENIED | _GONE
    return isinstance(cause, NoCredentialsError | PartialCredentialsError | SSOError | TokenRetrievalError)


def is_denied(error: Exception) -> bool:
    """Tell whether AWS answered that the caller has no right to something."""
    return isinstance(error, ClientError) and error.response.get("Error", {}).get("Code") in _DENIED


def explained(error: Exception) -> Failure:
    """Return what an error of AWS's clients, or of what stands on them, means to a person."""
    if isinstance(error, click.ClickException):
        return Failure(error.message)
    cause = _cause(error)
    if isinstance(cause, ClientError):
        return Failure(_refused(cause))
    match cause:
        case NoCredentialsError() | PartialCredentialsError():
            return Failure(f"no AWS credentials were found: {_NEW_CREDENTIALS}")
        case ProfileNotFound():
            return Failure(f"{cause}: set AWS_PROFILE to one that `aws configure list-profiles` lists")
        case SSOError() | TokenRetrievalError() | UnauthorizedSSOTokenError():
            return Failure(f"your AWS session has expired: {_NEW_CREDENTIALS}")
        case NoRegionError():
            return Failure("no region: pass --region or set AWS_REGION")
        case exceptions.ConnectionError() | HTTPClientError():
            return Failure(
                f"{_plain(cause)}: is the network up, and does the local stack run (`sluice local`)?"
            )
    return Failure(f"{type(error).__name__}: {_plain(error)}")


def _cause(error: Exception) -> BaseException:
    """Return the error of AWS's clients that an error stands on."""
    cause: BaseException = error
    while not isinstance(cause, ClientError | BotoCoreError) and cause.__cause__ is not None:
        cause = cause.__cause__
    return cause


def _refused(error: ClientError) -> str:
    answer = error.response.get("Error", {})
    code, message = answer.get("Code", ""), answer.get("Message", "")
    operation = error.operation_name
    if code in _EXPIRED:
        return f"your AWS credentials have expired: {_NEW_CREDENTIALS}"
    if code in _UNKNOWN_KEY:
        return f"AWS does not know your credentials: {_NEW_CREDENTIALS}"
    if code in _DENIED:
        return f"your credentials do not allow {operation}: {message} Ask your AWS administrator for it"
    if code in _THROTTLED:
        return f"AWS asks for a pause ({operation}): repeat the command in a minute"
    if code in _GONE:
        return f"a resource of the stack is gone ({operation}: {message}): `sam deploy` recreates it"
    return f"AWS refused {operation}: {code}: {message}"


def _plain(error: BaseException) -> str:
    return str(error).rstrip(".")
