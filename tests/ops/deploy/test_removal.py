"""Removing a stack: in which order, what a failure leaves, and how it is known that nothing is left."""

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest
from botocore.exceptions import ReadTimeoutError, WaiterError
from click.testing import CliRunner

from doubles.aws_errors import client_error
from doubles.clock import ManualClock
from ops.cli import main
from ops.deploy.code_bucket import CodeBucket
from ops.deploy.removal import RETAINED, Removal, Removed
from ops.failure import Failure
from ops.stack import Stack
from tests.support.modes import Mode

ACCOUNT, REGION = "123456789012", "eu-central-1"
FUNCTION, BUCKET = "AWS::Lambda::Function", "AWS::S3::Bucket"
STREAM, ROLE = "AWS::Kinesis::Stream", "AWS::IAM::Role"

RESOURCES = {"Ingest": FUNCTION, "Aside": BUCKET, "Stream": STREAM, "Role": ROLE}


@dataclass
class Aws:
    """The stack `sluice-dev` and the AWS that it is in, behind the session and the clients of every service.

    CloudFormation keeps `retained` resources, `stubborn` ones, and buckets with objects. `concurrency` is what functions reserve, `lost` those
    for which an answer is lost once, or which are gone when they are deleted, `later` the stack deleted last, `log` what was changed; `written`
    is called as a bucket is deleted.
    """

    resources: dict[str, str] = field(default_factory=lambda: RESOURCES)
    retained: set[str] = field(default_factory=set)
    stubborn: set[str] = field(default_factory=set)
    is_protected: bool = False
    objects: dict[str, int] = field(default_factory=lambda: {"aside": 3})
    concurrency: dict[str, int | None] = field(default_factory=lambda: {"ingest": None})
    unreadable: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    lost: set[str] = field(default_factory=set)
    written: Callable[["Aws"], None] = lambda _: None
    region_name: str = REGION
    later: str = "other"
    log: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.meta = SimpleNamespace(region_name=REGION)
        self.there = {name.lower() for name in self.resources}
        self.in_stack = set(self.resources)

    def __getattr__(self, operation: str) -> Any:
        """Return a call of any service. Its parameters are known by their order."""
        answer = getattr(type(self), f"_{operation}")
        return lambda *given, **named: answer(self, *given, *named.values())

    def _client(self, *_: Any) -> Any:
        return self

    _resource = _get_paginator = _get_waiter = _client

    def _get_caller_identity(self) -> Any:
        return {"Account": ACCOUNT}

    def _describe_stacks(self, name: str) -> Any:
        if not self.in_stack:
            raise client_error("ValidationError", "DescribeStacks")
        found = {"StackName": name, "StackId": "arn:1", "EnableTerminationProtection": self.is_protected}
        return {"Stacks": [found]}

    def _paginate(self, name: str | list[str]) -> Any:
        if isinstance(name, list):
            found = {"StackName": "sluice-dev", "StackId": "arn:1", "DeletionTime": 1}
            later = {"StackName": self.later, "StackId": "arn:2", "DeletionTime": 2}
            return [{"StackSummaries": [found, later]}]
        if name == "arn:2":
            return [{"StackResourceSummaries": []}]
        assert name == "arn:1"
        gone = ("DELETE_COMPLETE", "DELETE_SKIPPED")
        listed = [
            {
                "LogicalResourceId": name,
                "PhysicalResourceId": name.lower(),
                "ResourceType": kind,
                "ResourceStatus": "CREATE_COMPLETE" if name in self.in_stack else gone[name in self.retained],
            }
            for name, kind in self.resources.items()
        ]
        return [{"StackResourceSummaries": listed}]

    def _delete_stack(self, _name: str) -> None:
        if "delete_stack" in self.refused:
            raise client_error("AccessDenied", "DeleteStack", "you may not")
        self.log.append("delete stack")
        for name in self.resources:
            if name in self.retained:
                self.in_stack.discard(name)
            elif name not in self.stubborn and not self.objects.get(name.lower()):
                self.in_stack.discard(name)
                self.there.discard(name.lower())

    def _wait(self, *_: Any) -> None:
        if self.in_stack:
            raise WaiterError("stack_delete_complete", "DELETE_FAILED", {})

    def _get_function_concurrency(self, name: str) -> Any:
        self._look(name)
        found = self.concurrency[name]
        return {} if found is None else {"ReservedConcurrentExecutions": found}

    def _put_function_concurrency(self, name: str, reserved: int) -> None:
        if name in self.refused:
            raise client_error("AccessDeniedException", "PutFunctionConcurrency", "you may not")
        assert isinstance(reserved, int)
        self.concurrency[name] = reserved
        self.log.append(f"{name} {reserved}")
        if name in self.lost:
            self.lost = set()
            raise ReadTimeoutError(endpoint_url="https://lambda.example")

    def _delete_function_concurrency(self, name: str) -> None:
        self._look(name)
        self.concurrency[name] = None

    def _Bucket(self, name: str) -> Any:  # noqa: N802 -- boto3's name
        return SimpleNamespace(object_versions=SimpleNamespace(delete=lambda: self._empty(name)))

    def _empty(self, bucket: str) -> list[Any]:
        if self.objects.pop(bucket, 0):
            self.log.append(f"empty {bucket}")
        return [{"Errors": [{"Key": "k", "Code": "AccessDenied"}]}] if bucket in self.refused else [{}]

    def _delete_bucket(self, name: str) -> None:
        self.written(self)
        if self.objects.get(name):
            raise client_error("BucketNotEmpty", "DeleteBucket")
        self._delete_stream(name)

    def _delete_stream(self, name: str, *_: Any) -> None:
        self.there.discard(name)
        self.log.append(f"delete {name}")
        if name in self.lost:
            raise client_error("AWS.SimpleQueueService.NonExistentQueue", "DeleteQueue")

    def _look(self, name: str, *_: Any) -> Any:
        if name in self.unreadable:
            raise client_error("AccessDenied", "Describe", "the account 123404567890 may not look")
        if name not in self.there:
            raise client_error("404", "Describe")
        return {}

    _describe_stream_summary = _get_role = _get_function = _head_bucket = _look

    def removed(self) -> Removed:
        """Remove the stack."""
        session: Any = self
        return Removal(Stack("sluice-dev", {}, session), ManualClock(), 1.0).run()

    def failed(self) -> str:
        """Remove the stack, which must fail, and return the message."""
        with pytest.raises(Failure) as error:
            self.removed()
        return error.value.message


def test_the_bucket_is_emptied_once_nothing_else_is_left() -> None:
    """First the functions stop, then the stack goes, then the objects, and last the bucket that `sluice deploy` has created beside it."""
    aws = Aws()
    client: Any = aws
    code = CodeBucket(client, "sluice-dev", ACCOUNT, REGION).name
    aws.there.add(code)
    aws.objects[code] = 2
    found = aws.removed()
    first = ["ingest 0", "delete stack", "empty aside", "delete stack"]

    assert [*first, f"empty {code}", f"delete {code}"] == aws.log
    assert (4, {}, {}) == found
    assert set() == aws.there


@pytest.mark.parametrize("lost", [set(), {"aside", "stream"}])
def test_what_the_stack_retains_is_deleted_after_it(lost: set[str]) -> None:
    """Lambda may write once more, so an emptied bucket is emptied again. SQS may show a queue that is gone when it is deleted."""
    late = iter([2, 0])
    aws = Aws(retained={"Stream", "Aside"}, lost=lost)
    aws.written = lambda one: one.objects.__setitem__("aside", next(late))

    assert (4, {}, {}) == aws.removed()
    emptied = ["empty aside", "empty aside", "delete aside"]
    assert ["ingest 0", "delete stack", *emptied, "delete stream"] == aws.log
    assert set() == aws.there


@pytest.mark.parametrize("reserved", [None, 7, 0])
@pytest.mark.parametrize(
    ("state", "why"),
    [
        ({"is_protected": True}, "--no-enable-termination-protection --stack-name sluice-dev"),
        (
            {"stubborn": {"Role", "Ingest", "Worker"}},
            "did not delete Ingest, Role, Worker of sluice-dev: `aws cloudformation describe-stack-events`",
        ),
        ({"refused": {"delete_stack"}}, "do not allow DeleteStack"),
        ({"refused": {"worker"}}, "do not allow PutFunctionConcurrency"),
        ({"lost": {"worker"}}, "Read timeout"),
    ],
)
def test_a_surviving_stack_keeps_its_objects(state: dict[str, Any], why: str, reserved: int | None) -> None:
    """A missing right or network stops the deletion: no object is deleted, and each function runs as before, even if an interrupted attempt had stopped it."""
    more = RESOURCES | {"Worker": FUNCTION}
    aws = Aws(more, concurrency={"ingest": reserved, "worker": None}, **state)

    assert why in aws.failed()
    assert {"aside": 3} == aws.objects
    assert {"ingest": (reserved or None) if aws.log else reserved, "worker": None} == aws.concurrency
    assert state.keys() != {"is_protected"} or [] == aws.log  # nothing was stopped either


def test_a_bucket_that_cannot_be_emptied_is_a_failure() -> None:
    """Somebody else writes to it, or its objects may not be deleted."""
    busy = Aws(retained={"Aside"}, written=lambda one: one.objects.__setitem__("aside", 1))

    assert "something still writes to it" in busy.failed()
    assert "S3 did not delete k of aside: AccessDenied" in Aws(retained={"Aside"}, refused={"aside"}).failed()


def test_what_is_left_is_named() -> None:
    """What CloudFormation has retained and Sluice does not delete is left. A second attempt finishes the first."""
    assert (4, {"Role": "role"}, {}) == Aws(retained={"Role"}).removed()
    version = {**RESOURCES, "Version": "AWS::Lambda::Version"}  # it goes with its function
    assert (5, {}, {}) == Aws(version, retained={"Version"}).removed()
    again = Aws(
        {**RESOURCES, "Worker": FUNCTION},
        stubborn={"Role", "Worker"},
        concurrency={"ingest": None, "worker": None},
    )
    again.there.discard("ingest")
    again.failed()
    again.stubborn.clear()

    assert ((3, {}, {}), set()) == (again.removed(), again.there)
    assert 2 == again.log.count("worker 0")


def test_what_cannot_be_looked_for_is_named() -> None:
    """It is not assumed gone."""
    aws = Aws(retained={"Stream"})
    aws.written = lambda one: one.unreadable.add("stream")
    aws.there.add(code := CodeBucket(cast("Any", aws), "sluice-dev", ACCOUNT, REGION).name)
    count, left, unseen = aws.removed()

    assert (4, {}, ["Stream"]) == (count, left, list(unseen))
    assert f"delete {code}" in aws.log


@pytest.mark.parametrize(
    ("functions", "later", "code", "said"),
    [
        (("WorkerFunction", "AdminFunction"), "other", 0, "2 resources removed. Nothing is left."),
        (("WorkerFunction", "AdminFunction"), "sluice-dev", 1, "there is no stack sluice-dev"),
        (("Worker",), "other", 1, "there is no stack sluice-dev in region eu-central-1"),
    ],
)
def test_a_removal_that_failed_after_the_stack_was_gone_goes_on(
    monkeypatch: pytest.MonkeyPatch, functions: tuple[str, ...], later: str, code: int, said: str
) -> None:
    """What the deleted stack has retained is deleted, if it was a stack of Sluice's, and the last one of its name."""
    reserved: dict[str, int | None] = dict.fromkeys(("ingest", *map(str.lower, functions)))
    more = RESOURCES | dict.fromkeys(functions, FUNCTION)
    aws = Aws(more, retained={"Aside", "Stream"}, refused={"aside"}, concurrency=reserved, later=later)
    assert "S3 did not delete" in aws.failed()
    aws.refused.clear()
    monkeypatch.setattr("ops.stack.session_in", lambda _: aws)
    monkeypatch.setattr("ops.commands.remove.SystemClock", ManualClock)
    result = CliRunner().invoke(main, ["remove", "--stack", "sluice-dev", "--yes"])

    assert (code, True) == (result.exit_code, said in result.output), result.output
    assert (set() if code == 0 else {"aside", "stream"}) == aws.there


def test_everything_that_prod_retains_is_deleted() -> None:
    """Versions go with their function."""
    kept = {
        found["Type"]
        for found in Mode({"Stage": "prod"}).resources().values()
        if found.get("DeletionPolicy", "Delete") != "Delete"
    }

    assert kept - {"AWS::Lambda::Version"} == RETAINED.keys()


@pytest.mark.parametrize(
    ("state", "more", "code", "said"),
    [
        ({}, ["--yes"], 0, "4 resources removed. Nothing is left."),
        ({"retained": {"Role"}}, ["--yes"], 3, "1 resource may be left:"),
        ({"is_protected": True}, ["--yes"], 1, "has termination protection"),
        ({}, [], 1, "This removes sluice-dev"),
        ({}, ["--json"], 1, "This removes sluice-dev"),
        (None, ["--yes"], 1, "needs a deployed stack"),
    ],
)
def test_the_command_asks_and_says_how_it_ended(
    monkeypatch: pytest.MonkeyPatch, state: dict[str, Any] | None, more: list[str], code: int, said: str
) -> None:
    """Its exit code tells whether everything is gone. --json does not answer its question. The local stack ends with its command."""
    aws: Any = Aws(**state or {})
    functions: Any = {} if state is None else None
    stack = Stack("sluice-dev", {}, aws, functions=functions)
    monkeypatch.setattr("ops.stack.deployed", lambda *_, **__: stack)
    monkeypatch.setattr("ops.commands.remove.SystemClock", ManualClock)
    line = ["remove", "--stack", "sluice-dev", *more]
    result = CliRunner(mix_stderr=False).invoke(main, line, input="n\n")

    assert code == result.exit_code
    assert said in f"{result.stdout}{result.stderr}"
    assert (code == 1) == ([] == aws.log)
