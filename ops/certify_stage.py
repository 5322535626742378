"""The deployed stage that a certification works on: sends to it, reads rows back, and operates it as its owner would."""

import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from operator import not_
from typing import Any
from urllib.parse import urlsplit

import click
import requests

from ops import accounts
from ops.certify_restore import Repairs
from ops.certify_run import CertifyRun
from ops.failure import INTERRUPTED, Failure
from ops.keys import signing_secrets
from ops.stack import Stack
from ops.stream import Border, StreamReader
from ops.td_query import TreasureDataQueries
from shared import envelope, write_key
from shared.clock import Clock
from shared.errors import EnvelopeError

TABLE = "sluice_certify"
"""The table that most rows go to."""
OUR_PREFIX = "sluice_"
"""How the tables and accounts of Sluice's own checks begin."""

_HTTP_SECONDS = 30.0
_READ_SECONDS = 60.0
_TRAFFIC_SECONDS = 3600.0
_DAY_SECONDS = 86_400


@dataclass(frozen=True, slots=True)
class Pace:
    """How long things take, in seconds.

    Attributes:
        poll: between questions.
        row: until a row must be in Treasure Data. Lambda backs off for minutes, and queries see rows minutes after an import.
        hold: for which something stays broken, so that the worker has tried more than once.
        idle: for which nothing is sent, so that idle connections are closed on their way.
        settle: until a second copy of a row would have been seen.
        deploy_poll: between looks at a deploy.
        metrics: until metrics and log lines must be in CloudWatch.
    """

    poll: float = 10.0
    row: float = 1800.0
    hold: float = 90.0
    idle: float = 420.0
    settle: float = 60.0
    deploy_poll: float = 5.0
    metrics: float = 600.0

    def until[Found](
        self,
        look: Callable[[], Found],
        is_right: Callable[[Found], bool],
        clock: Clock,
        seconds: float,
    ) -> Found:
        """Return the first result of a look that is right, or the last one. It looks once more when the time is up.

        Args:
            look: is called again and again, twice at least.
            is_right: tells whether a result is what is waited for.
            clock: waits.
            seconds: that it may take.
        """
        end, is_last = clock.now() + seconds, False
        while not is_right(found := look()) and not is_last:
            is_last = clock.now() >= end
            clock.sleep(self.poll)
        return found


ON_AWS = Pace()
EMULATED = Pace(poll=0.1, row=45.0, hold=1.5, idle=0.5, settle=0.0, deploy_poll=0.3, metrics=5.0)


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """What the API answered.

    Attributes:
        status: its status.
        code: Sluice's error code, empty without one.
        body: its body.
        seconds: until it was there.
    """

    status: int
    code: str
    body: bytes
    seconds: float


class DeployedStage:
    """One run on one stage.

    Args:
        stack: the stack.
        run: keeps what was accepted and measured.
        account: whose keys are used.
        database: where its rows go.
        queries: reads rows back.
        session: carries requests to the API.
        endpoint: where the API is reached instead of at its own address; empty on AWS.
        repairs: restores what steps break.
        clock: paces everything.
        pace: how long things take.
    """

    def __init__(
        self,
        *,
        stack: Stack,
        run: CertifyRun,
        account: str,
        database: str,
        queries: TreasureDataQueries,
        session: requests.Session,
        endpoint: str,
        repairs: Repairs,
        clock: Clock,
        pace: Pace,
    ) -> None:
        self.stack = stack
        self.run = run.name
        self.began = run.began
        self.account = account
        self.database = database
        self.repairs = repairs
        self.clock = clock
        self.pace = pace
        self.parameters = stack.parameters
        self.accepted = run.accepted
        self.timings = run.timings
        self._queries = queries
        self._session = session
        self._endpoint = endpoint
        self._signing: dict[str, str] = {}

    @property
    def is_emulated(self) -> bool:
        """Whether this is an emulator instead of AWS."""
        return bool(self._endpoint)

    def client(self, service: str) -> Any:
        """Return a client of one of AWS's services."""
        return self.stack.client(service)

    def key(self) -> str:
        """Return a write key of the account."""
        self._signing = self._signing or signing_secrets(self.stack)
        secret_id = next(reversed(self._signing))
        return write_key.sign(self.account, secret_id, self._signing[secret_id])

    def event_id(self, case: str) -> str:
        """Return the id of an event of this run."""
        return f"{self.run}-{case}"

    def request(
        self, method: str, target: str, body: bytes | str | None = None, headers: Mapping[str, str] = {}
    ) -> HttpAnswer:
        """Send a request to the API.

        Raises:
            Failure: there was no answer.
        """
        api = self.stack.outputs["ApiUrl"]
        sent = {**headers, "Host": urlsplit(api).netloc}
        data = body.encode() if isinstance(body, str) else body
        began = self.clock.now()
        try:
            answer = self._session.request(
                method,
                f"{self._endpoint or api}{target}",
                data=data,
                headers=sent,
                timeout=_HTTP_SECONDS,
                allow_redirects=False,
                verify=self._session.verify,  # or variables of the environment would win
            )
        except requests.RequestException as error:
            raise Failure(f"{api} gave no answer: {type(error).__name__}") from error
        return HttpAnswer(
            answer.status_code,
            answer.headers.get("x-sluice-error", ""),
            answer.content,
            self.clock.now() - began,
        )

    def send(self, case: str, table: str = TABLE) -> HttpAnswer:
        """Have the API accept one event.

        Raises:
            Failure: it was not accepted.
        """
        event = {"table": table, "event_id": self.event_id(case)}
        answer = self.request(
            "POST", "/v1/events", json.dumps({"events": [event]}), {"x-write-key": self.key()}
        )
        if answer.status != 200:
            raise Failure(f"the API answered {answer.status} {answer.code} to an event")
        self.accepted.requests += 1
        self.accepted.add(table, self.event_id(case))
        return answer

    def counts(self, table: str = TABLE) -> Counter[str]:
        """Return how many rows of each event of this run Treasure Data has."""
        begin, end = int(self.began) - _DAY_SECONDS, int(self.clock.now()) + _DAY_SECONDS
        # A run's id has neither quotes nor wildcards.
        query = (
            f'SELECT event_id, COUNT(1) FROM "{table}" WHERE TD_TIME_RANGE(time, {begin}, {end}) '  # noqa: S608 -- see above
            f"AND event_id LIKE '{self.run}-%' GROUP BY event_id"
        )
        found = self._queries.rows(query)
        return Counter({str(event_id): int(count) for event_id, count in found or ()})

    def wait_for(self, event_ids: Iterable[str], table: str = TABLE) -> float:
        """Return after how many seconds Treasure Data had a row of each event.

        Raises:
            Failure: it does not have them all in time.
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
        """Return the first result of a look that is right, or the last one.

        Args:
            look: is called again and again, twice at least.
            is_right: tells whether a result is what is waited for.
            seconds: that it may take. Default: until a row must be in Treasure Data.
        """
        return self.pace.until(look, is_right, self.clock, self.pace.row if seconds is None else seconds)

    def operate(self, command: click.Command, *words: str) -> Any:
        """Run one of the commands on the stack with --json, and return what it prints.

        Raises:
            Failure: it failed.
            KeyboardInterrupt: Ctrl-C has stopped it.
        """
        printed = io.StringIO()
        with redirect_stdout(printed), redirect_stderr(io.StringIO()):
            code = command.main([*words, "--json"], standalone_mode=False, obj=self.stack)
        if code == INTERRUPTED:
            raise KeyboardInterrupt
        return json.loads(printed.getvalue())

    def administer(self, **event: Any) -> dict[str, Any]:
        """Have the administration's function do something; if it fails, once more: Redis may have been slow for a moment.

        Raises:
            Failure: it says what is wrong.
        """
        try:
            return self.stack.administer(**event)
        except Failure:
            self.clock.sleep(self.pace.poll)
            return self.stack.administer(**event)

    def restart(self, output: str) -> None:
        """Restart a function, with nothing in its memory, until the repair `sandboxes`. Use inside `breaking`."""
        client, name = self.client("lambda"), self.stack.outputs[output]
        variables = client.get_function_configuration(FunctionName=name)["Environment"]["Variables"]
        client.update_function_configuration(
            FunctionName=name, Environment={"Variables": variables | {RESTARTED: self.run}}
        )
        wait_until_updated(client, name, self.pace)


def wait_until_updated(lambdas: Any, function: str, pace: Pace) -> None:
    """Return when a function's update is in force."""
    lambdas.get_waiter("function_updated_v2").wait(
        FunctionName=function, WaiterConfig={"Delay": pace.deploy_poll}
    )


RESTARTED = "SLUICE_CERTIFIED_BY"
"""A variable that no function reads: Lambda starts new instances when it changes."""


def foreign_traffic(stack: Stack, clock: Clock) -> str:
    """Return whose records are on the stream that no check of Sluice has sent within the last hour; empty if there are none."""
    stream = StreamReader(stack.shards(), clock)
    since = clock.now() - _TRAFFIC_SECONDS
    for shard in stream.shards():
        began = clock.now()
        for page in stream.read(shard, Border(at=since), Border()):
            for record in page:
                if sender := _foreign(record["Data"]):
                    return sender
            if clock.now() - began > _READ_SECONDS:
                return "somebody: the stream has too much of an hour to read it"
    return ""


def _foreign(data: bytes) -> str:
    """Return whom a record is of, unless it is of a check."""
    if data.startswith(b"{"):
        try:
            name = str(json.loads(data).get("account", "nobody"))
        except ValueError:
            return "a record that is not an envelope"
        return "" if name.startswith(OUR_PREFIX) else f"the account {name}"
    try:
        found = envelope.decode(data)
    except EnvelopeError:
        return "a record that is not an envelope"
    is_ours = all(one.table.startswith(OUR_PREFIX) for one in found.tables)
    return "" if is_ours else f"the account {found.account}"


def account_of(stack: Stack, named: str | None) -> tuple[str, str]:
    """Return the account whose keys a run uses, and its database: the named one, or the first active one.

    Raises:
        Failure: there is none.
    """
    known, _ = accounts.known(stack)
    names: Sequence[str] = [
        name for name, one in sorted(known.items()) if one.status == "active" and named in (None, name)
    ]
    if not names:
        raise Failure(
            f"there is no active account{f' {named}' if named else ''} to send events of: `sluice accounts apply accounts.yaml`"
        )
    return names[0], known[names[0]].database
