"""Failures are reported in one line, with what to do."""

from pathlib import Path
from unittest.mock import Mock

import boto3
import pytest
from botocore import exceptions
from botocore.exceptions import ClientError
from botocore.parsers import ResponseParserError
from click.testing import CliRunner

from doubles.aws_errors import client_error
from doubles.invocation_api import InvocationApi
from ops import stack as stacks
from ops.cli import main
from ops.failure import Failure, explained
from ops.stack import Stack
from shared.errors import BucketUnavailableError, IndexDamagedError, InvalidObjectError

NEW = "log in again (`aws sso login`, or new keys in the environment) and repeat the command"
NOT_AWS = "something else than AWS has answered, perhaps a proxy: check your network and AWS_ENDPOINT_URL, and repeat the command"
ASK = "Ask your AWS administrator for this permission (docs/commands.md#iam-permissions)"


def refused(code: str, message: str = "no") -> ClientError:
    """Return an error from AWS."""
    return client_error(code, "GetRecords", message)


def caused_by(cause: Exception) -> Exception:
    """Return an error of the worker's modules with an AWS error behind it."""
    error = BucketUnavailableError("S3")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (refused("ExpiredTokenException"), f"your AWS credentials have expired: {NEW}"),
        (caused_by(refused("ExpiredToken")), f"your AWS credentials have expired: {NEW}"),
        (refused("UnrecognizedClientException"), f"AWS does not know your credentials: {NEW}"),
        (
            refused("AccessDeniedException", "User: x is not authorized to perform: kinesis:GetRecords."),
            f"your credentials do not allow GetRecords: User: x is not authorized to perform: kinesis:GetRecords. {ASK}",
        ),
        (refused("ThrottlingException"), "AWS throttles your calls (GetRecords): repeat the command in a minute"),
        (refused("NoSuchBucket"), "a resource of the stack is gone (GetRecords: no): run `sam deploy` to recreate it"),
        (refused("Odd", "two\nlines"), "AWS rejected GetRecords: Odd: two lines"),
        (
            exceptions.EndpointConnectionError(endpoint_url="https://sqs.us-esat-1"),
            'Could not connect to the endpoint URL: "https://sqs.us-esat-1": check your network and the region, and with --local, that the local stack is running (`sluice local`)',
        ),
        (
            exceptions.NoCredentialsError(),
            "no AWS credentials were found: set a profile up (`aws configure`, or `aws configure sso`), and repeat the command",
        ),
        (ResponseParserError("b'<html>'"), NOT_AWS),
        (caused_by(ResponseParserError("b'<html>'")), NOT_AWS),
        (IndexDamagedError("the index of a span cannot be read"), "the index of a span cannot be read"),
        (InvalidObjectError("it holds other bytes"), "it holds other bytes"),
        (Failure("a\n b"), "a b"),
    ],
)  # fmt: skip
def test_an_error_becomes_one_line(error: Exception, said: str) -> None:
    """The line says what to do next, whatever the command was."""
    assert said == explained(error).message
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stacks, "local", Mock(side_effect=error))
        result = CliRunner(mix_stderr=False).invoke(main, ["status", "--local"])
    assert (1, True) == (result.exit_code, said in result.stderr)


def test_a_failing_function_is_reported(tmp_path: Path) -> None:
    """The message has the exception's name and text, without a traceback; a command that the function advises names the stack."""
    refusal = {"error": "unavailable", "message": "Run `sluice accounts apply accounts.yaml`."}
    fail = Mock(side_effect=[AttributeError("it broke"), refusal])
    session = boto3.Session("key", "secret", region_name="us-east-1")
    with InvocationApi("AdminFunction", fail) as api:
        outputs, functions = {"AdminFunction": "AdminFunction"}, {"AdminFunction": api.url}
        stack = Stack("local", outputs, session, functions=functions, folder=tmp_path)
        with pytest.raises(Failure, match="AdminFunction failed: AttributeError: it broke"):
            stack.administer(do="accounts")
        with pytest.raises(Failure, match=r"Run `sluice accounts apply accounts.yaml --local`"):
            stack.administer(do="accounts")
