"""Every error that Sluice's functions raise. All derive from SluiceError.

Commands in `ops` and `local` derive their own errors from SluiceError. Rejecting a request or an event is a response, not an
error: `ingest.refusal.Refused` and `shared.rows.Rejected` are not part of the tree.
"""

import sys
from collections.abc import Mapping
from typing import Any


def aws_errors(*others: type[Exception]) -> tuple[type[Exception], ...]:
    """Return what a failed call to AWS raises, and others, for an `except` clause: AwsError, and boto3's errors where it is in use.

    The ingest's zip has no boto3. A clause is evaluated only once there is an exception, and only a loaded boto3 can raise one.
    """
    if (boto := sys.modules.get("botocore.exceptions")) is not None:
        others += (boto.BotoCoreError, boto.ClientError)
    if (parsers := sys.modules.get("botocore.parsers")) is not None:
        others += (parsers.ResponseParserError,)  # of an answer that is not the service's
    return (AwsError, *others)


def error_code(error: Exception) -> str:
    """Return the error code of an AWS service's response, or the exception's type if there was no response."""
    response = getattr(error, "response", None)
    if isinstance(response, Mapping):
        return str(response.get("Error", {}).get("Code", "Unknown"))
    return type(error).__name__


class SluiceError(Exception):
    """Base class; the message is for a person."""


class UnavailableError(SluiceError):
    """A required service is unavailable; a retry may succeed. Whatever reaches a service may raise it."""


class LedgerUnavailableError(UnavailableError):
    """The ledger cannot be reached: nothing may be sent, so everything is held."""


class ItemTooLargeError(LedgerUnavailableError):
    """An item of the ledger has no room for what should be written."""


class BucketUnavailableError(UnavailableError):
    """The bucket cannot be reached, rejects the call, or returned something other than what was written."""


class PolicyContestedError(UnavailableError):
    """Others have changed the accounts meanwhile, or the edge policy at each attempt; the message says what to do."""


class ShardUnreadableError(UnavailableError):
    """The shard cannot be read, or not in the time available."""


class ShardGoneError(ShardUnreadableError):
    """Kinesis says that there is no such shard, or no such stream."""


class SecretUnavailableError(UnavailableError):
    """A secret cannot be read; the message says why and what to do."""


class UnprovenError(UnavailableError):
    """It cannot be proven now up to when rows are complete; the message says why."""


class HeldError(SluiceError):
    """Lambda must deliver the rest of the batch again; the message says why.

    `sluice status` explains the messages that equal, or begin with, one of these constants.
    """

    NO_TIME = "the time is up"
    UNDECIDED_COPY = "the ledger does not say which copy of an envelope counts"
    UNREADABLE_INDEX = "the index of a span cannot be read"
    DELETED_STREAM = "the records come from a stream that was deleted"
    RESTORED_LEDGER = "the ledger was restored from a backup and has not been compared with the bucket"


class IndexLostError(HeldError):
    """Nothing shows any more which records a span has: its object is deleted."""


class IndexDamagedError(HeldError):
    """S3 answers with another index than was written, at least for now."""


class UnforeseenError(SluiceError):
    """Takes the place of any other exception that ends an invocation; the message names its type and quotes nothing."""


class EditRefusedError(SluiceError):
    """A chunk cannot be edited this way; the message says why."""


class SettingsError(SluiceError):
    """Settings are missing or invalid; the message names each one."""


class AwsError(SluiceError):
    """A call to AWS failed, and it is unknown whether it was carried out."""


class NotSentError(AwsError):
    """There was no connection, so the request was not sent."""


class ConnectTimeoutError(NotSentError):
    """The connection was not made in time."""


class ConnectionFailedError(NotSentError):
    """The connection was not made."""


class TlsError(NotSentError):
    """The TLS handshake failed, for example because the certificate is not trusted."""


class ReadTimeoutError(AwsError):
    """The response did not arrive in time."""


class ConnectionClosedError(AwsError):
    """The connection closed before the response was complete."""


class UnreadableAnswerError(AwsError):
    """The response is invalid or incomplete."""


class ErrorAnswerError(AwsError):
    """The service returned an error.

    Attributes:
        response: its code, message and HTTP status, in the form of boto3's ClientError.
        operation_name: the operation that was called.
    """

    def __init__(self, response: Mapping[str, Any], operation_name: str) -> None:
        super().__init__(f"{operation_name}: {response['Error']['Code']}: {response['Error']['Message']}")
        self.response = response
        self.operation_name = operation_name


class InvalidError(SluiceError, ValueError):
    """Data is invalid; the message says why."""


class EnvelopeError(InvalidError):
    """The bytes are not an envelope of this version."""


class InvalidAccountError(InvalidError):
    """An entry in Redis or accounts.yaml is not a valid account."""


class InvalidPolicyError(InvalidError):
    """The bytes are not an edge policy that this version can read; the message says why."""


class InvalidKeyError(InvalidError):
    """The write key was not signed with a currently valid secret. The message never contains the key."""


class UnknownSecretError(InvalidKeyError):
    """The secret that signed the write key is not currently valid."""


class InvalidJsonError(InvalidError):
    """The text is not a JSON document in UTF-8; the message says where parsing failed."""


class TooDeepError(InvalidError):
    """A value is nested too deeply."""


class InvalidReplayError(InvalidError):
    """The event asks for a replay that is impossible."""


class InvalidObjectError(InvalidError):
    """An object in the bucket does not hold what was written."""


class ObjectGoneError(InvalidObjectError):
    """The object has been deleted, or the part of it that is asked for."""


class WrongCountError(InvalidObjectError):
    """A chunk has another number of rows than its envelopes say."""
