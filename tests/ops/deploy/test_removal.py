"""Removing a stack: in which order, what a failure leaves, and how it is known that nothing is left."""

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import WaiterError
from click.testing import CliRunner

from doubles.aws_errors import client_error
from doubles.clock import ManualClock
from ops.cli import main
from ops.deploy.code_bucket import CodeBucket
from ops.deploy.removal import GO_WITH, LOOKS, RETAINED, Removal, Removed
from ops.failure import Failure
from ops.stack import Stack
from tests.support.modes import Mode
from tests.support.sam import transformed

ACCOUNT, REGION = "123456789012", "eu-central-1"
FUNCTION, BUCKET, STREAM, ROLE = (
    "AWS::Lambda::Function",
    "AWS::S3::Bucket",
    "AWS::Kinesis::Stream",
    "AWS::IAM::Role",
)


@dataclass
class Aws:
    """The stack `sluice-dev` and the AWS that it is in, behind the clients of every service.

    Like CloudFormation, it deletes no bucket that has objects, and leaves what it may not delete.

    Attributes:
        resources: the types of the stack's resources, by logical id; the physical id is the same in lower case.
        retained: the resources that CloudFormation retains.
        stubborn: the resources that CloudFormation cannot delete.
        objects: the number of objects of each bucket.
        concurrency: what each function has reserved.
        written: called at each attempt to delete a bucket.
        log: the calls that change something.
    """

    resources: dict[str, str]
    retained: set[str] = field(default_factory=set)
    stubborn: set[str] = field(default_factory=set)
    is_protected: bool = False
    objects: dict[str, int] = field(default_factory=lambda: {"aside": 3})
    concurrency: dict[str, int | None] = field(default_factory=dict)
    unreadable: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    written: Callable[["Aws"], None] = lambda _: None
    region_name: str = REGION
    log: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.there = {name.lower() for name in self.resources}
        self.in_stack = set(self.resources)
        functions = [name.lower() for name, kind in self.resources.items() if kind == FUNCTION]
        self.concurrency = dict.fromkeys(functions) | self.concurrency

    def client(self, _service: str, **_: Any) -> "Aws":
        """Return this, as the client of a service."""
        return self

    # CloudFormation

    def describe_stacks(self, StackName: str) -> Any:  # noqa: N803 -- boto3's names, here and below
        """Return the stack."""
        return {"Stacks": [{"StackName": StackName, "EnableTerminationProtection": self.is_protected}]}

    def get_paginator(self, _operation: str) -> Any:
        """Return the resources that the stack has or had, in one page."""
        listed = [
            {
                "LogicalResourceId": name,
                "PhysicalResourceId": name.lower(),
                "ResourceType": kind,
                "ResourceStatus": "CREATE_COMPLETE" if name in self.in_stack else "DELETE_COMPLETE",
            }
            for name, kind in self.resources.items()
        ]
        return SimpleNamespace(paginate=lambda **_: [{"StackResourceSummaries": listed}])

    def delete_stack(self, **_: Any) -> None:
        """Delete what can be deleted."""
        if "delete_stack" in self.refused:
            raise client_error("AccessDenied", "DeleteStack", "you may not")
        self.log.append("delete stack")
        for name in self.resources:
            if name in self.retained:
                self.in_stack.discard(name)
            elif name not in self.stubborn and not self.objects.get(name.lower()):
                self.in_stack.discard(name)
                self.there.discard(name.lower())

    def get_waiter(self, _name: str) -> Any:
        """Return a waiter that knows the end already, and fails if the deletion has."""
        return SimpleNamespace(wait=self._wait)

    def _wait(self, **_: Any) -> None:
        if self.in_stack:
            raise WaiterError("stack_delete_complete", "DELETE_FAILED", {})

    # Lambda

    def get_function_concurrency(self, FunctionName: str) -> Any:  # noqa: N803
        """Return a function's reserved concurrency."""
        self._look(FunctionName)
        found = self.concurrency[FunctionName]
        return {} if found is None else {"ReservedConcurrentExecutions": found}

    def put_function_concurrency(self, FunctionName: str, ReservedConcurrentExecutions: int) -> None:  # noqa: N803
        """Reserve concurrency."""
        if FunctionName in self.refused:
            raise client_error("AccessDeniedException", "PutFunctionConcurrency", "you may not")
        self.concurrency[FunctionName] = ReservedConcurrentExecutions
        self.log.append(f"{FunctionName} {ReservedConcurrentExecutions}")

    def delete_function_concurrency(self, FunctionName: str) -> None:  # noqa: N803
        """Reserve none."""
        self._look(FunctionName)
        self.concurrency[FunctionName] = None

    # S3

    def resource(self, _service: str) -> Any:
        """Return the resource of S3, whose buckets can be emptied."""

        def bucket(name: str) -> Any:
            return SimpleNamespace(object_versions=SimpleNamespace(delete=lambda: self._empty(name)))

        return SimpleNamespace(Bucket=bucket)

    def _empty(self, bucket: str) -> list[Any]:
        if self.objects.pop(bucket, 0):
            self.log.append(f"empty {bucket}")
        return [{"Errors": [{"Key": "k", "Code": "AccessDenied"}]}] if bucket in self.refused else [{}]

    def delete_bucket(self, Bucket: str) -> None:  # noqa: N803
        """Delete the bucket if it is empty."""
        self.written(self)
        if self.objects.get(Bucket):
            raise client_error("BucketNotEmpty", "DeleteBucket")
        self._delete(Bucket)

    # others

    def __getattr__(self, name: str) -> Any:
        """Return a call that describes or deletes what its first parameter names."""
        if name == "get_caller_identity":
            return lambda: {"Account": ACCOUNT}
        if name == "delete_stream":
            return lambda **named: self._delete(named["StreamName"])
        if name in ("describe_stream_summary", "get_role", "get_function", "head_bucket"):
            return lambda **named: self._look(next(iter(named.values())))
        raise AttributeError(name)

    def _delete(self, name: str) -> None:
        self.there.discard(name)
        self.log.append(f"delete {name}")

    def _look(self, name: str) -> Any:
        if name in self.unreadable:
            raise client_error("AccessDenied", "Describe", "you may not look")
        if name not in self.there:
            raise client_error("404", "Describe")
        return {}

    def removed(self) -> Removed:
        """Remove the stack."""
        session: Any = self
        return Removal(Stack("sluice-dev", {}, session), ManualClock(), 1.0, lambda _: None).run()

    def failed(self) -> str:
        """Remove the stack, which must fail, and return the message."""
        with pytest.raises(Failure) as error:
            self.removed()
        return error.value.message


def a_stack(worker: str = "", **state: Any) -> Aws:
    """Return a stack with a function, a bucket with objects, a stream and a role, and perhaps another function."""
    resources = {"Ingest": FUNCTION, "Aside": BUCKET, "Stream": STREAM, "Role": ROLE}
    return Aws(resources | ({"Worker": worker} if worker else {}), **state)


def test_the_bucket_is_emptied_once_nothing_else_is_left() -> None:
    """First the functions stop, then the stack goes, then the objects, and last the bucket that `sluice deploy` has created beside it."""
    aws = a_stack()
    client: Any = aws
    code = CodeBucket(client, "sluice-dev", ACCOUNT, REGION).name
    aws.there.add(code)
    aws.objects[code] = 2
    found = aws.removed()
    first = ["ingest 0", "delete stack", "empty aside", "delete stack"]

    assert [*first, f"empty {code}", f"delete {code}"] == aws.log
    assert (4, {}, {}) == found
    assert set() == aws.there


def test_what_the_stack_retains_is_deleted_after_it() -> None:
    """In prod, CloudFormation leaves the data. Lambda may write once more, so an emptied bucket is emptied again."""
    late = iter([2, 0])
    aws = a_stack(
        retained={"Stream", "Aside"}, written=lambda one: one.objects.__setitem__("aside", next(late))
    )

    assert (4, {}, {}) == aws.removed()
    emptied = ["empty aside", "empty aside", "delete aside"]
    assert ["ingest 0", "delete stack", *emptied, "delete stream"] == aws.log
    assert set() == aws.there


@pytest.mark.parametrize("reserved", [None, 7])
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
    ],
)
def test_a_stack_that_survives_keeps_its_objects_and_runs_again(
    state: dict[str, Any], why: str, reserved: int | None
) -> None:
    """A missing right stops the deletion: no object is deleted, and each function has the concurrency that it had."""
    aws = a_stack(concurrency={"ingest": reserved}, worker=FUNCTION, **state)

    assert why in aws.failed()
    assert {"aside": 3} == aws.objects
    assert {"ingest": reserved, "worker": None} == aws.concurrency
    assert state.keys() != {"is_protected"} or [] == aws.log  # nothing was stopped either


def test_a_second_attempt_finishes_the_first() -> None:
    """The functions are gone already."""
    aws = a_stack(stubborn={"Role"})
    aws.failed()
    aws.stubborn.clear()

    assert (2, {}, {}) == aws.removed()
    assert set() == aws.there


@pytest.mark.parametrize(
    ("state", "why"),
    [
        ({"written": lambda one: one.objects.__setitem__("aside", 1)}, "something still writes to it"),
        ({"refused": {"aside"}}, "S3 did not delete k of aside: AccessDenied"),
    ],
)
def test_a_bucket_that_cannot_be_emptied_is_a_failure(state: dict[str, Any], why: str) -> None:
    """Somebody else writes to it, or its objects may not be deleted."""
    assert why in a_stack(retained={"Aside"}, **state).failed()


def test_what_is_left_and_what_cannot_be_checked_is_named() -> None:
    """Each resource is looked for by its id, whatever CloudFormation reports. Without the permission to look, it is not assumed gone."""
    assert (4, {"Role": "role"}, {}) == a_stack(retained={"Role"}).removed()
    count, left, unseen = a_stack(unreadable={"role"}).removed()

    assert (4, {}, ["Role"]) == (count, left, list(unseen))


def test_every_resource_type_is_looked_for() -> None:
    """A type without a check of its own disappears with a resource that has one. What prod retains is deleted."""
    types = {one["Type"] for one in transformed()["Resources"].values()}
    kept = {
        found["Type"]
        for found in Mode({"Stage": "prod"}).resources().values()
        if found.get("DeletionPolicy", "Delete") != "Delete"
    }

    assert set() == types - LOOKS.keys() - GO_WITH.keys()
    assert set() == {whole for whole in GO_WITH.values() if whole.startswith("AWS::") and whole not in LOOKS}
    assert kept - {"AWS::Lambda::Version"} == RETAINED.keys() | {BUCKET}  # versions go with their function


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
    aws: Any = a_stack(**state or {})
    functions: Any = {} if state is None else None
    monkeypatch.setattr("ops.stack.deployed", lambda *_: Stack("sluice-dev", {}, aws, functions=functions))
    monkeypatch.setattr("ops.commands.remove.SystemClock", ManualClock)
    line = ["remove", "--stack", "sluice-dev", *more]
    result = CliRunner(mix_stderr=False).invoke(main, line, input="n\n")

    assert code == result.exit_code
    assert said in f"{result.stdout}{result.stderr}"
    assert (code == 1) == ([] == aws.log)
