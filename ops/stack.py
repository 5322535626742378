"""The stack that a command works on: a deployed one, described by its outputs, or the local one."""

import functools
import json
import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import click
import requests
from botocore.client import BaseClient
from botocore.config import Config
from click.core import ParameterSource

from ops import screen
from ops.books.budget_uses import BudgetUses
from ops.deploy.stack_status import obstacle
from ops.failure import Failure, if_there
from ops.help_page import DEPLOY
from ops.stream.readable_shards import ReadableShards
from shared.aws_clients import method_makes_client
from shared.clock import SystemClock
from shared.telemetry import NullTelemetry
from worker.bucket import Bucket
from worker.ledger import Ledger
from worker.membership import Membership
from worker.passing import Passing
from worker.span_object import SpanObjects
from worker.watermark import Watermarks

if TYPE_CHECKING:
    from mypy_boto3_cloudformation import CloudFormationClient

_CONNECTIONS = 32  # of a client: several searches look ahead at once
_UNNAMED = "name a stack: --stack NAME (or the variable SLUICE_STACK)"
UNNAMED = f"{_UNNAMED}, or --local"
"""What a command says that needs a stack and was given none."""
_ROOT = Path(__file__).parents[1]
_DESCRIPTION = "stack.json"
_INVOCATION_SECONDS = 310  # longer than any function may run
_FUNCTIONS = ("WorkerFunction", "AdminFunction")
_OUTPUTS = ("ApiUrl", "StreamName", "LedgerTable", "DataBucket", *_FUNCTIONS)


@dataclass(frozen=True, slots=True)
class Stack:
    """A stack.

    Attributes:
        name: its name; `local` for the local one.
        endpoint: the local emulator of AWS; None for AWS itself.
        functions: the local stack's functions: their endpoints by output. None for a deployed stack.
        folder: the local stack's folder, with its logs.
        deleted: CloudFormation's id of a stack that it has deleted; empty if it exists.
    """

    name: str
    outputs: Mapping[str, str]
    session: boto3.Session
    endpoint: str | None = None
    functions: Mapping[str, str] | None = None
    folder: Path | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)
    deleted: str = ""

    @property
    def is_local(self) -> bool:
        """Whether it is the local one."""
        return self.functions is not None

    @property
    def option(self) -> str:
        """The options that name it on a command line."""
        if self.is_local:
            return "--local"
        return f"--stack {self.name} --region {self.session.region_name}"

    @property
    def window_seconds(self) -> int:
        """How long records may wait for a batch to fill; 0 if unknown."""
        return int(self.parameters.get("BatchWindowSeconds", 0))

    @method_makes_client
    def client(self, service: str, read_timeout: float = 60) -> BaseClient:
        """Return a boto3 client of a service. `read_timeout` is in seconds."""
        config = Config(
            connect_timeout=5,
            read_timeout=read_timeout,
            retries={"mode": "standard", "total_max_attempts": 3},
            max_pool_connections=_CONNECTIONS,
        )
        made: BaseClient = self.session.client(service, endpoint_url=self.endpoint, config=config)  # type: ignore[call-overload]  # the stub accepts only literals
        return made

    def ledger(self) -> Ledger:
        """Return the ledger."""
        return Ledger(
            self.client("dynamodb"), self.outputs["LedgerTable"], SystemClock(), os.urandom, NullTelemetry()
        )

    def spending(self) -> BudgetUses:
        """Return what accounts have spent of their budgets."""
        return BudgetUses(self.client("dynamodb"), self.outputs["CountersTable"])

    def shards(self) -> ReadableShards:
        """Return the stream."""
        return ReadableShards(self.client("kinesis"), self.outputs["StreamName"], SystemClock())

    def watermarks(self) -> Watermarks:
        """Return the source of watermarks."""
        shards, ledger, clock = self.shards(), self.ledger(), SystemClock()
        return Watermarks(
            Passing(shards, ledger, clock, NullTelemetry(), marks=False),
            shards,
            ledger,
            self.client("sqs"),
            self.outputs["OverflowQueueUrl"],
            self.outputs["OverflowNoticesUrl"],
            clock,
        )

    def objects(self) -> SpanObjects:
        """Return the span objects."""
        return SpanObjects(self.bucket())

    def membership(self) -> Membership:
        """Return what finds the spans of records."""
        return Membership(self.ledger(), self.objects())

    def bucket(self) -> Bucket:
        """Return the bucket of span objects and rejected events."""
        return Bucket(self.client("s3"), self.outputs["DataBucket"])

    def invoke(self, output: str, event: Mapping[str, Any]) -> dict[str, Any]:
        """Invoke the function that an output names, and return its response.

        Raises:
            Failure: the function failed.
        """
        config = Config(
            connect_timeout=5, read_timeout=_INVOCATION_SECONDS, retries={"total_max_attempts": 1}
        )
        endpoint = self.endpoint if self.functions is None else self.functions[output]
        client = self.session.client("lambda", endpoint_url=endpoint, config=config)
        name = self.outputs[output]
        answer = client.invoke(FunctionName=name, Payload=json.dumps(event).encode())
        content: dict[str, Any] = json.loads(answer["Payload"].read())
        if answer.get("FunctionError"):
            raise Failure(
                f"{output} failed: {content.get('errorType')}: {content.get('errorMessage')}; see its log for details"
            )
        if "error" in content:  # a function does not know how commands name its stack
            content["message"] = re.sub("`(sluice [^`]+)`", rf"`\1 {self.option}`", content["message"])
        return content

    def administer(self, **event: Any) -> dict[str, Any]:
        """Invoke AdminFunction, and return its response.

        Raises:
            Failure: it reports an error.
        """
        answer = self.invoke("AdminFunction", event)
        if "error" in answer:
            raise Failure(". ".join(filter(None, advised(answer))))
        return answer

    def http(self) -> requests.Session:
        """Return what calls the API. It trusts whom boto3 trusts, such as the certificates of a company's proxy."""
        session = requests.Session()
        if bundle := os.environ.get("AWS_CA_BUNDLE"):
            session.verify = bundle
        return session


def advised(answer: Mapping[str, str]) -> tuple[str, str]:
    """Return what an error of AdminFunction says, and what to do about it, which may be empty."""
    said, advice = answer["message"].rstrip("."), _ADVICE.get(answer["error"], "")
    return said, advice


_ADVICE = {
    "redis_unreachable": "No row is lost: the worker delivers those of accounts that it remembers, and the others wait until Redis is back. Check that Redis is running and accepts connections from this stack (docs/deploying.md#network)",
    "no_redis_url": "`aws secretsmanager put-secret-value --secret-id <RedisUrlSecret> --secret-string rediss://…`",
}


def home() -> Path:
    """Return the local stack's folder: `.local/` in a clone, else `.sluice/` in the user's home."""
    if named := os.environ.get("SLUICE_HOME"):
        return Path(named).absolute()  # `sluice local` runs in another folder
    if _is_clone():
        return _ROOT / ".local"
    try:
        return Path.home() / ".sluice"
    except RuntimeError:
        raise Failure("your home folder is unknown: name a folder with the variable SLUICE_HOME") from None


def _is_clone() -> bool:
    return (_ROOT / "template.yaml").exists()


def announce(folder: Path) -> None:
    """Note the folder of a local stack that has started, so that commands of other installations find it; if that fails, they do not."""
    with suppress(OSError, RuntimeError):
        file, others = _running(), [one for one in _elsewhere() if one != folder]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(f"{one}\n" for one in (folder, *others)))


def _running() -> Path:
    """Return the file that names the folders of local stacks, the last one that was started first."""
    return Path.home() / ".sluice/running"


def _elsewhere() -> list[Path]:
    """Return the folders of the local stacks that run according to that file: a command without a stack of its own uses the first."""
    try:
        noted = [Path(line) for line in _running().read_text().splitlines()]
    except (OSError, RuntimeError):
        return []
    return [folder for folder in noted if (folder / _DESCRIPTION).exists()]


def session_in(region: str | None) -> boto3.Session:
    """Return a session in a region; without one, in that of the environment or the profile.

    Raises:
        Failure: no region is known.
    """
    session = boto3.Session(region_name=region or os.environ.get("AWS_REGION") or None)
    if not session.region_name:  # boto3 takes an empty one for a region's name
        raise Failure(
            "no region: pass --region, set AWS_REGION, or set one for your profile with `aws configure`"
        )
    return session


def deployed(name: str, region: str | None, *, or_deleted: bool = False) -> Stack:
    """Find a deployed stack, or else, if `or_deleted`, the last one of that name that CloudFormation has deleted.

    Raises:
        Failure: no region is known, there is no stack of that name, or it is not a Sluice stack.
    """
    session = session_in(region)
    cloudformation = session.client("cloudformation")
    where = f"region {cloudformation.meta.region_name}"
    answer = if_there(cloudformation.describe_stacks, StackName=name)
    if answer is None:
        if or_deleted and (deleted := _deleted(cloudformation, name)):
            return Stack(name, {}, session, deleted=deleted)
        raise Failure(
            f"there is no stack {name} in {where}: check --stack and --region; `aws cloudformation list-stacks` lists the stacks, {DEPLOY} creates one"
        )
    (found,) = answer["Stacks"]
    outputs = {output["OutputKey"]: output["OutputValue"] for output in found.get("Outputs", ())}
    missing = [output for output in _OUTPUTS if output not in outputs]
    if missing and (advice := obstacle(found["StackStatus"], name, str(cloudformation.meta.region_name))):
        raise Failure(f"the stack {name} in {where} is in {found['StackStatus']}. {advice}")
    if missing:
        raise Failure(
            f"the stack {name} in {where} ({found['StackStatus']}) lacks the output {missing[0]}: "
            f"it is not a Sluice stack, or is from an older version, which {DEPLOY} updates"
        )
    parameters = {one["ParameterKey"]: one["ParameterValue"] for one in found.get("Parameters", ())}
    return Stack(name, outputs, session, parameters=parameters)


def _deleted(cloudformation: "CloudFormationClient", name: str) -> str:
    """Return the id of the stack of a name that was deleted last, if it was a Sluice stack; else an empty string.

    What earlier ones have left may have been kept on purpose. CloudFormation remembers stacks for 90 days.
    """
    pages = cloudformation.get_paginator("list_stacks").paginate(StackStatusFilter=["DELETE_COMPLETE"])
    found = [one for page in pages for one in page["StackSummaries"] if one["StackName"] == name]
    if not found:
        return ""
    last = max(found, key=lambda one: one["DeletionTime"])["StackId"]
    parts = cloudformation.get_paginator("list_stack_resources").paginate(StackName=last)
    had = {part["LogicalResourceId"] for page in parts for part in page["StackResourceSummaries"]}
    return last if had.issuperset(_FUNCTIONS) else ""


def local() -> Stack:
    """Find the local stack on this machine.

    Raises:
        Failure: it is not running.
    """
    folder = home()
    if not (folder / _DESCRIPTION).exists() and "SLUICE_HOME" not in os.environ and (others := _elsewhere()):
        folder = others[0]
        if _is_clone() or len(others) > 1:
            screen.note(f"Note: this is the local stack of {folder}.")
    try:
        said = json.loads((folder / _DESCRIPTION).read_text())
    except FileNotFoundError:
        raise Failure("the local stack is not running: start it with `sluice local` or `make up`") from None
    return described(said)


def described(said: Mapping[str, Any]) -> Stack:
    """Return the local stack from its description, the content of stack.json."""
    made, functions = said["resources"], said["functions"]
    outputs = {
        "ApiUrl": said["gateway"],
        "StreamName": made["stream"],
        "OverflowQueueUrl": made["queue_url"],
        "OverflowNoticesUrl": f"{made['queue_url']}-notices",
        "LedgerTable": made["ledger_table"],
        "CountersTable": made["counters_table"],
        "DataBucket": made["data_bucket"],
        "WriteKeySecret": made["write_key_secret"],
        "TdApiKeySecret": made["td_api_key_secret"],
        "RedisUrlSecret": made["redis_url_secret"],
        "IngestFunction": "IngestFunction",
        **{name: name for name in functions},
    }
    if "page" in said:
        outputs["SdkUrl"] = f"{said['page']}/sdk"
    session = boto3.Session(
        aws_access_key_id="local",
        aws_secret_access_key="local",  # noqa: S106 -- moto accepts any
        region_name="us-east-1",
    )
    return Stack("local", outputs, session, said["aws"], functions, Path(said["folder"]))


def _unless_local(ctx: click.Context, _: click.Parameter, name: str | None) -> str | None:
    """Return the value of --stack; it contradicts --local, unless it is only the variable."""
    if ctx.params["is_local"] and ctx.get_parameter_source("name") is ParameterSource.COMMANDLINE:
        raise click.UsageError("use either --local or --stack")
    return name


def stack_options(command: Callable[..., Any], *, hides_local: bool = False) -> Callable[..., Any]:
    """Give a command the options that name a stack: `is_local`, which the help may hide, `name` and `region`."""
    return screen.with_options(
        click.option(
            "--local",
            "is_local",
            is_flag=True,
            is_eager=True,  # before --stack, which looks at it
            hidden=hides_local,
            help="Use the local stack that `sluice local` runs.",
        ),
        click.option(
            "--stack",
            "name",
            envvar="SLUICE_STACK",
            metavar="NAME",
            callback=_unless_local,
            help="Use the deployed stack with this name.",
        ),
        click.option(
            "--region",
            metavar="REGION",
            help="The stack's AWS region. Default: the region of your AWS profile.",
        ),
    )(command)


def works_on_deployed_stack(command: Callable[..., Any], *, or_deleted: bool = False) -> Callable[..., Any]:
    """Do as `works_on_stack`, but do not offer --local, which the command answers with a better one. It may take a deleted stack."""
    return works_on_stack(command, needs_deployed=True, or_deleted=or_deleted)


def works_on_stack(
    command: Callable[..., Any], *, needs_deployed: bool = False, or_deleted: bool = False
) -> Callable[..., Any]:
    """Give a command the options that name a stack, and pass the stack as its first argument.

    If another command runs it with a stack as the context's object, that stack is used.
    """

    @functools.partial(stack_options, hides_local=needs_deployed)
    @functools.wraps(command)
    def wrapped(*args: Any, is_local: bool, name: str | None, region: str | None, **options: Any) -> Any:
        if isinstance(given := click.get_current_context().obj, Stack):
            return command(given, *args, **options)
        if is_local:
            return command(local(), *args, **options)
        if name is None:
            raise click.UsageError(_UNNAMED if needs_deployed else UNNAMED)
        return command(deployed(name, region, or_deleted=or_deleted), *args, **options)

    return wrapped
