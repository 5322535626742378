"""The deployed stage under certification: sends events to it, reads rows back, and operates it as its owner would."""

import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from operator import not_
from typing import TYPE_CHECKING, Any

import click

from ops import known_accounts
from ops.deploy.certify.certification_report import StepReport
from ops.deploy.certify.restore import Repairs
from ops.deploy.stack_api import HttpAnswer, StackApi
from ops.deploy.td_client import TreasureDataQueries
from ops.failure import INTERRUPTED, Failure
from ops.stack import Stack
from ops.stream.reader import RangeEnd, StreamReader
from shared.accounts import Account
from shared.clock import Clock
from worker.record import NOBODY, START, decode

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient

TABLE = "sluice_certify"
"""The table that most rows go to."""
OUR_PREFIX = "sluice_"
"""The prefix of the tables of Sluice's own checks."""

_READ_SECONDS = 60.0
_TRAFFIC_SECONDS = 3600.0
_DAY_SECONDS = 86_400


@dataclass(frozen=True, slots=True)
class Pace:
    """Intervals and time limits, in seconds.

    Attributes:
        row: limit for a row to be in Treasure Data. Lambda backs off for minutes, and queries see rows minutes after an import.
        hold: how long something stays broken, so that the worker tries more than once.
        idle: how long to send nothing, so that idle connections are closed somewhere on the way.
        settle: how long to wait until a second copy of a row would be visible.
        metrics: limit for metrics and log lines to be in CloudWatch.
    """

    poll: float = 10.0
    row: float = 1800.0
    hold: float = 90.0
    idle: float = 420.0
    settle: float = 60.0
    deploy_poll: float = 5.0
    metrics: float = 600.0

    def until[Found](
        self, look: Callable[[], Found], is_right: Callable[[Found], bool], clock: Clock, seconds: float
    ) -> Found:
        """Poll until a result is right, or once more after the time limit in seconds; return the last result.

        Unless the first result is right, it looks at least twice.
        """
        end, is_last = clock.now() + seconds, False
        while not is_right(found := look()) and not is_last:
            is_last = clock.now() >= end
            clock.sleep(self.poll)
        return found


ON_AWS = Pace()
EMULATED = Pace(poll=0.1, row=45.0, hold=1.5, idle=0.5, settle=0.0, deploy_poll=0.3, metrics=5.0)


@dataclass
class DeployedStage:
    """One run on one stage: sends events of an account, reads its rows back (`queries`), and restores what steps break (`repairs`).

    Attributes:
        run: its name, with which all its event ids begin.
        reports: by step, in the order in which the steps ran.
        copies: the numbers of rows that Treasure Data must have, by table and event id.
    """

    stack: Stack
    run: str
    account: str
    database: str
    key: str
    queries: TreasureDataQueries
    api: StackApi
    is_emulated: bool
    repairs: Repairs
    clock: Clock
    pace: Pace
    reports: dict[str, StepReport] = field(default_factory=dict)
    copies: dict[str, Counter[str]] = field(default_factory=dict)
    timings: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.began = self.clock.now()

    def accept(self, table: str, event_id: str) -> None:
        """Expect one more copy of a row."""
        self.copies.setdefault(table, Counter())[event_id] += 1

    def event_id(self, case: str) -> str:
        """Return the id of an event of this run."""
        return f"{self.run}-{case}"

    def send(self, case: str, table: str = TABLE) -> HttpAnswer:
        """Send one event, which the API must accept.

        Raises:
            Failure: the API did not accept it.
        """
        event = {"table": table, "event_id": self.event_id(case)}
        answer = self.api.request("POST", "/v1/events", json.dumps([event]), {"x-write-key": self.key})
        if answer.status != 200:
            raise Failure(f"the API answered {answer.status} {answer.code} to an event")
        self.accept(table, self.event_id(case))
        return answer

    def counts(self, table: str = TABLE) -> Counter[str]:
        """Return the number of rows in Treasure Data, by event of this run."""
        begin, end = int(self.began) - _DAY_SECONDS, int(self.clock.now()) + _DAY_SECONDS
        return self.queries.counts(table, f"{self.run}-", begin, end)

    def wait_for(self, event_ids: Iterable[str], table: str = TABLE) -> float:
        """Wait until Treasure Data has a row of each event, and return how long it took, in seconds.

        Raises:
            Failure: some are missing after the time limit.
        """
        began, wanted = self.clock.now(), set(event_ids)
        if missing := self.until(lambda: wanted - self.counts(table).keys(), not_):
            named = ", ".join(sorted(missing)[:5])
            raise Failure(
                f"{len(missing)} of {len(wanted)} rows are not in {self.database}.{table} after "
                f"{self.pace.row:.0f} s: {named}"
            )
        return self.clock.now() - began

    def until[Found](
        self,
        look: Callable[[], Found],
        is_right: Callable[[Found], bool] = bool,
        seconds: float | None = None,
    ) -> Found:
        """Poll until a result is right, or some seconds are over: by default, those for a row to arrive. See `Pace.until`."""
        return self.pace.until(look, is_right, self.clock, self.pace.row if seconds is None else seconds)

    def operate(self, command: click.Command, *words: str) -> Any:
        """Run a command on the stack with --json, and return what it prints.

        Raises:
            Failure: it failed.
            KeyboardInterrupt: Ctrl-C stopped it.
        """
        printed = io.StringIO()
        with redirect_stdout(printed), redirect_stderr(io.StringIO()):
            code = command.main([*words, "--json"], standalone_mode=False, obj=self.stack)
        if code == INTERRUPTED:
            raise KeyboardInterrupt
        return json.loads(printed.getvalue())

    def administer(self, **event: Any) -> dict[str, Any]:
        """Invoke AdminFunction. If it reports an error, try once more, because Redis may have been slow for a moment.

        Raises:
            Failure: it reports an error again.
        """
        try:
            return self.stack.administer(**event)
        except Failure:
            self.clock.sleep(self.pace.poll)
            return self.stack.administer(**event)

    def restart(self, output: str) -> None:
        """Restart a function with empty memory, by a variable that the repair `sandboxes` removes. Use inside `breaking`."""
        client, name = self.stack.client("lambda"), self.stack.outputs[output]
        variables = client.get_function_configuration(FunctionName=name)["Environment"]["Variables"]
        client.update_function_configuration(
            FunctionName=name, Environment={"Variables": variables | {RESTARTED: self.run}}
        )
        wait_until_updated(client, name, self.pace)


def wait_until_updated(lambdas: "LambdaClient", function: str, pace: Pace) -> None:
    """Wait until a function's update has taken effect."""
    lambdas.get_waiter("function_updated_v2").wait(
        FunctionName=function,
        WaiterConfig={"Delay": pace.deploy_poll},  # type: ignore[typeddict-item]  # botocore accepts fractions
    )


RESTARTED = "SLUICE_CERTIFIED_BY"
"""A variable that no function reads: Lambda starts new instances when it changes."""


def foreign_traffic(stack: Stack, clock: Clock) -> str:
    """Return the sender of a record from the last hour that is not from Sluice's own checks; empty if there is none."""
    stream = StreamReader(stack.shards(), clock)
    since = clock.now() - _TRAFFIC_SECONDS
    for shard in stream.shards():
        began = clock.now()
        for page in stream.read(shard, RangeEnd(at=since), RangeEnd()):
            for record in page:
                if sender := _foreign(record["Data"]):
                    return sender
            if clock.now() - began > _READ_SECONDS:
                return "an unknown sender (the hour has too many records to read them all)"
    return ""


def _foreign(data: bytes) -> str:
    """Return the sender of a record; empty if it is one of Sluice's checks."""
    found = decode(data, "", START, 0.0)
    if all(table.startswith(OUR_PREFIX) for table, *_ in found.blocks):
        return ""
    return "somebody unknown" if found.account == NOBODY else f"the account {found.account}"


def account_of(stack: Stack, named: str | None) -> tuple[str, Account]:
    """Return the account whose keys a run uses, with its name: the named one, or the first active one.

    Raises:
        Failure: there is no such active account.
    """
    known = known_accounts.known(stack).accounts
    names: Sequence[str] = [
        name for name, one in sorted(known.items()) if one.status == "active" and named in (None, name)
    ]
    if not names:
        raise Failure(
            f"there is no active account{f' {named}' if named else ''} to send events for: run `sluice accounts apply accounts.yaml {stack.option}`"
        )
    return names[0], known[names[0]]
