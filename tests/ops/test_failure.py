"""Failures are reported in one line, with what to do."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import redis
from botocore import exceptions
from botocore.exceptions import ClientError
from click.testing import CliRunner, Result

from doubles.invocation_api import InvocationApi
from local.up import DESCRIPTION
from ops.cli import main
from ops.failure import Failure, explained
from shared.errors import BucketUnavailableError
from tests.support.delivery import Delivery

NEW = "log in again (`aws sso login`, or new keys in the environment) and repeat the command"

ASK = "Ask your AWS administrator for this permission (docs/commands.md#iam-permissions)"


def refused(code: str, message: str = "no") -> ClientError:
    """Return an error from AWS."""
    return ClientError({"Error": {"Code": code, "Message": message}}, "GetRecords")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (refused("ExpiredTokenException"), f"your AWS credentials have expired: {NEW}"),
        (refused("UnrecognizedClientException"), f"AWS does not know your credentials: {NEW}"),
        (
            refused("AccessDeniedException", "User: x is not authorized to perform: kinesis:GetRecords."),
            f"your credentials do not allow GetRecords: User: x is not authorized to perform: kinesis:GetRecords. {ASK}",
        ),
        (
            refused("ThrottlingException"),
            "AWS throttles your calls (GetRecords): repeat the command in a minute",
        ),
        (refused("Odd", "two\nlines"), "AWS rejected GetRecords: Odd: two lines"),
        (exceptions.NoCredentialsError(), f"no AWS credentials were found: {NEW}"),
    ],
)
def test_an_aws_error_becomes_one_line(error: Exception, said: str) -> None:
    """The line says what to do next."""
    assert said == explained(error).message


def test_an_error_is_explained_by_its_cause() -> None:
    """An error of the worker's modules is explained by the AWS error behind it."""
    error = BucketUnavailableError("S3")
    error.__cause__ = refused("ExpiredToken")

    assert explained(error).message.startswith("your AWS credentials have expired")


@contextmanager
def aws(status: int, code: str, message: str) -> Iterator[str]:
    """Run a server that refuses every call as CloudFormation would, and yield its address."""
    body = f"<ErrorResponse><Error><Code>{code}</Code><Message>{message}</Message></Error></ErrorResponse>"

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(status)
            self.send_header("content-type", "text/xml")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def on_deployed(endpoint: str) -> Result:
    """Run a command on a deployed stack."""
    environment = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_MAX_ATTEMPTS": "1",
    }
    line = ["accounts", "list", "--stack", "sluice-dev", "--region", "eu-central-1"]
    return CliRunner(mix_stderr=False).invoke(main, line, env=environment)


@pytest.mark.parametrize(
    ("status", "code", "message", "said"),
    [
        (
            400,
            "ValidationError",
            "does not exist",
            "Error: there is no stack sluice-dev in region eu-central-1: ",
        ),
        (403, "ExpiredToken", "expired", "Error: your AWS credentials have expired: log in again"),
        (
            403,
            "AccessDenied",
            "not authorized",
            "Error: your credentials do not allow DescribeStacks: not authorized",
        ),
    ],
)
def test_a_deployed_stack_that_cannot_be_found(status: int, code: str, message: str, said: str) -> None:
    """A wrong name, expired credentials and a missing permission have different messages, each in one line."""
    with aws(status, code, message) as endpoint:
        result = on_deployed(endpoint)

    assert (1, 1) == (result.exit_code, result.stderr.count("\n"))
    assert result.stderr.startswith(said)


def test_an_unreachable_aws_is_reported() -> None:
    """Without a network, the message is one line."""
    result = on_deployed("http://127.0.0.1:9")

    assert (1, 1) == (result.exit_code, result.stderr.count("\n"))
    assert "Could not connect" in result.stderr


def test_a_local_stack_that_is_not_running_is_reported(tmp_path: Path) -> None:
    """The message says how to start it."""
    result = CliRunner(mix_stderr=False).invoke(
        main, ["status", "--local"], env={"SLUICE_HOME": str(tmp_path)}
    )

    assert (
        "Error: the local stack is not running: start it with `sluice local` or `make up`\n" == result.stderr
    )


class Gone:
    """A Redis that nobody can reach."""

    def __getattr__(self, _: str) -> Callable[..., Any]:
        def fail(*_arguments: Any, **_options: Any) -> Any:
            raise redis.ConnectionError("Connection refused.")

        return fail


@contextmanager
def with_redis(folder: Path, client: Any) -> Iterator[None]:
    """Describe, in a folder, a stack whose administration uses this Redis."""
    delivery = Delivery()
    delivery.redis = client
    admin = delivery.wiring.admin
    deadline = delivery.deadline(60_000)
    with InvocationApi("AdminFunction", lambda event: admin.run(event, deadline)) as api:
        names = ("stream", "queue_url", "ledger_table", "counters_table", "data_bucket", "write_key_secret")
        made = dict.fromkeys((*names, "td_api_key_secret", "redis_url_secret"), "x")
        described = {
            "gateway": "http://127.0.0.1:9",
            "aws": "http://127.0.0.1:9",
            "functions": {"AdminFunction": api.url},
            "resources": made,
            "folder": str(folder),
        }
        (folder / DESCRIPTION).write_text(json.dumps(described))
        yield


def test_an_unreachable_redis_is_reported(tmp_path: Path) -> None:
    """The message says that no rows are lost, and what to check."""
    with with_redis(tmp_path, Gone()):
        result = CliRunner(mix_stderr=False).invoke(
            main, ["accounts", "list", "--local"], env={"SLUICE_HOME": str(tmp_path)}
        )

    assert 1 == result.exit_code
    assert result.stderr == (
        "Error: Redis does not answer: Connection refused. No row is lost: the worker delivers those of accounts that it remembers, "
        "and the others wait until Redis is back. Check that Redis is running and accepts connections from this stack "
        "(docs/deploying.md#network)\n"
    )


def test_a_failing_function_is_reported(tmp_path: Path) -> None:
    """The message has the exception's name and text, without a traceback."""
    with with_redis(tmp_path, None):
        result = CliRunner(mix_stderr=False).invoke(
            main, ["accounts", "list", "--local"], env={"SLUICE_HOME": str(tmp_path)}
        )

    assert result.stderr.startswith("Error: AdminFunction failed: AttributeError: ")
    assert 1 == result.stderr.count("\n")


def test_the_doctor_reports_unreachable_services(tmp_path: Path) -> None:
    """With the API, AWS and Redis all down, each has a line of its own, and there is no traceback."""
    with with_redis(tmp_path, Gone()):
        result = CliRunner(mix_stderr=False).invoke(
            main, ["doctor", "--local"], env={"SLUICE_HOME": str(tmp_path)}
        )

    assert (3, "") == (result.exit_code, result.stderr)
    assert (
        "FAULT  API: http://127.0.0.1:9/health did not respond (ConnectionError). Check the region"
        in result.stdout
    )
    assert "FAULT  Redis: Redis does not answer: Connection refused" in result.stdout
    assert "?      ledger: Could not connect" in result.stdout


def test_a_failure_is_one_line() -> None:
    """Line breaks in its message become spaces."""
    assert "a b" == Failure("a\n b").message
