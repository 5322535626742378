"""Checks of a stack from the outside in."""

import time
from collections.abc import Callable, Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import Any
from uuid import uuid4

import requests

from ops import screen
from ops.diagnosis.check_result import CheckResult, fault, ok, unknown, warning
from ops.diagnosis.measurement import Measured
from ops.diagnosis.recipients import why_nobody_is_told
from ops.failure import FORESEEN, Failure, explained
from ops.signing_secrets import signing_secrets
from ops.stack import Stack
from ops.stream.event_source import mapping_faults, unknown_shards
from ops.template import sluice_template
from shared import write_key
from worker.chain import ChainId
from worker.delivery import ASIDE
from worker.record import Number, number
from worker.shards import Position
from worker.span import Span

TEST_TABLE = "sluice_doctor"
"""The table that the test event goes to."""
_HTTP_SECONDS = 10
_CLOCK_SECONDS = 30.0
_FOUND_SECONDS = 60.0
_LEAST_MEMORY_MINUTES = 16  # template.yaml's MinValue


def _got(answer: requests.Response) -> str:
    """Return a response's status, with the ingest's error code if it has one."""
    code = answer.headers.get("x-sluice-error")
    return f"{answer.status_code} {answer.reason}{f' ({code})' if code else ''}"


class Doctor:
    """Checks a stack.

    Args:
        stack: the stack.
        account: the account that supplies the write key and receives the test event. None: the first active one.

    Attributes:
        account: the account in use, known after `findings`.
        assumed: the limits of Treasure Data that the worker assumes, in minutes, known after `findings`.
    """

    def __init__(self, stack: Stack, account: str | None = None) -> None:
        self._stack = stack
        self._url = stack.outputs["ApiUrl"]
        self.account = account
        self.assumed: dict[str, int] = {}
        self._key = ""

    def findings(self) -> Iterator[CheckResult]:
        """Run the checks from the outside in, and yield their results."""
        checks: tuple[Callable[[], Iterator[CheckResult]], ...] = (
            self._api,
            self._stream,
            self._mapping,
            self._inside,
            self._columns,
            self._write_key,
            self._ledger,
            self._bucket,
            self._queue,
            self._alarms,
        )
        for check in checks:
            what = check.__name__.lstrip("_").replace("_", " ")
            try:
                yield from check()
            except FORESEEN as error:
                yield unknown(what, explained(error).message)
            except requests.RequestException as error:
                yield fault(what, f"{self._url} did not respond ({type(error).__name__})")
            except Failure as failure:
                yield fault(what, failure.message)

    def _api(self) -> Iterator[CheckResult]:
        started = time.time()
        try:
            answer = requests.get(f"{self._url}/health", timeout=_HTTP_SECONDS)
        except requests.RequestException as error:
            yield fault(
                "API",
                f"{self._url}/health did not respond ({type(error).__name__}): check the region and your network",
            )
            return
        seconds = time.time() - started
        if answer.status_code != 200:
            yield fault("API", f"{self._url}/health answered {_got(answer)}: see the ingest's log")
        else:
            yield ok("API", f"{self._url} answers in {seconds * 1000:.0f} ms")
        if "Date" in answer.headers:
            skew = abs(parsedate_to_datetime(answer.headers["Date"]).timestamp() - time.time())
            if skew > _CLOCK_SECONDS:
                yield fault(
                    "clock",
                    f"this machine's clock is off by {screen.lasting(skew)}: set it, or AWS rejects its requests",
                )
            else:
                yield ok("clock")

    def _stream(self) -> Iterator[CheckResult]:
        kinesis, name = self._stack.client("kinesis"), self._stack.outputs["StreamName"]
        summary = kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]
        if summary["StreamStatus"] not in ("ACTIVE", "UPDATING"):
            yield fault("stream", f"{name} is {summary['StreamStatus']}")
        else:
            shards, hours = summary["OpenShardCount"], summary["RetentionPeriodHours"]
            yield ok("stream", f"{screen.plural(shards, 'open shard')}, keeps records for {hours} h")
        unplanned = list(unknown_shards(self._stack.shards(), self._stack.ledger(), time.time()))
        if unplanned:
            yield fault(
                "stream",
                f"the ledger has no spans of {', '.join(unplanned)}, although the oldest records there are more than an hour old:"
                " the worker is not running, or the stream was deleted and recreated",
            )

    def _mapping(self) -> Iterator[CheckResult]:
        if self._stack.is_local:
            yield unknown("mapping", "not checked: the local stack has its own event source")
            return
        client, function = self._stack.client("lambda"), self._stack.outputs["WorkerFunction"]
        found = client.list_event_source_mappings(FunctionName=function)["EventSourceMappings"]
        for stream in {mapping["EventSourceArn"] for mapping in found}:  # to aliases of the function, too
            found += client.list_event_source_mappings(EventSourceArn=stream)["EventSourceMappings"]
        wrong = list(mapping_faults(found, function))
        if wrong:
            yield fault("mapping", f"{'; '.join(wrong)}. `sam deploy` reverts manual changes")
        else:
            last = next(mapping.get("LastProcessingResult", "?") for mapping in found)
            yield ok("mapping", f"enabled; last: {last}")

    def _inside(self) -> Iterator[CheckResult]:
        """Check Redis and Treasure Data from the functions' network."""
        answer = self._stack.administer(do="check")
        redis = answer["redis"]
        if "error" in redis:
            yield fault("Redis", redis["message"])
        elif redis["applied_at"] is None:
            yield fault(
                "Redis",
                "it is empty, so the worker holds: run `sluice accounts apply accounts.yaml`",
            )
        else:
            accounts = redis["accounts"]
            yield ok("Redis", f"{screen.plural(len(accounts), 'account')}, applied {redis['applied_at']}")
            active = sorted(name for name, fields in accounts.items() if fields["status"] == "active")
            self.account = self.account or (active[0] if active else None)
        yield from _treasure_data(answer["treasure_data"])
        self.assumed = answer.get("assumed", {})

    def _columns(self) -> Iterator[CheckResult]:
        """Check that the table of earlier test events shows the columns by which rows in doubt are queried."""
        if self.account is None:
            return
        shown = self._stack.administer(do="columns", account=self.account, table=TEST_TABLE)["shown"]
        if shown:
            yield ok("columns", f"{TEST_TABLE} shows event_id")
        elif shown is None:
            yield unknown("columns", f"the table {TEST_TABLE} does not exist yet, or could not be queried")
        else:
            yield unknown(
                "columns",
                f"{TEST_TABLE} does not show event_id: run this again ten minutes after the first test event. If it still does "
                "not, turn on schema detection; otherwise you have to decide about rows in doubt yourself",
            )

    def _write_key(self) -> Iterator[CheckResult]:
        signing = signing_secrets(self._stack)
        if self.account is None:
            yield unknown("write key", "not checked: there is no active account")
            return
        secret_id = next(reversed(signing))
        self._key = write_key.sign(self.account, secret_id, signing[secret_id])
        answer = requests.post(
            f"{self._url}/v1/events",
            json={"events": []},
            headers={"x-write-key": self._key},
            timeout=_HTTP_SECONDS,
        )
        if answer.status_code in (401, 403):
            yield fault(
                "write key",
                f"{self._url} answered {_got(answer)} to a key of {self.account} under the secret {secret_id}. A new secret takes "
                "effect within five minutes",
            )
        elif answer.status_code not in (200, 400):  # 400: the key is accepted, the body has no event
            yield fault("write key", f"{self._url} answered {_got(answer)}: see the ingest's log")
        else:
            yield ok("write key", f"a key of {self.account} under the secret {secret_id} is accepted")

    def _ledger(self) -> Iterator[CheckResult]:
        name = self._stack.outputs["LedgerTable"]
        table = self._stack.client("dynamodb").describe_table(TableName=name)["Table"]
        if table["TableStatus"] not in ("ACTIVE", "UPDATING"):
            yield fault("ledger", f"{name} is {table['TableStatus']}")
        else:
            yield ok("ledger", f"{table.get('ItemCount', 0):,} items when last counted")

    def _bucket(self) -> Iterator[CheckResult]:
        self._stack.client("s3").head_bucket(Bucket=self._stack.outputs["AsideBucket"])
        yield ok("bucket")

    def _queue(self) -> Iterator[CheckResult]:
        attributes = self._stack.client("sqs").get_queue_attributes(
            QueueUrl=self._stack.outputs["OverflowQueueUrl"], AttributeNames=["ApproximateNumberOfMessages"]
        )["Attributes"]
        yield ok("queue", screen.plural(int(attributes["ApproximateNumberOfMessages"]), "envelope"))

    def _alarms(self) -> Iterator[CheckResult]:
        if self._stack.is_local:
            return
        pages = self._stack.client("cloudwatch").get_paginator("describe_alarms").paginate(StateValue="ALARM")
        names = [alarm["AlarmName"] for page in pages for alarm in page["MetricAlarms"]]
        ours = [name for name in names if sluice_template().names_alarm(self._stack.name, name)]
        if ours:
            yield fault("alarms", f"{', '.join(ours)}: docs/operations.md explains each")
        else:
            yield ok("alarms", "none")
        if why := why_nobody_is_told(self._stack):
            yield warning("alarm recipients", why)

    def send_test_event(self) -> CheckResult:
        """Send one test event, and wait until the ledger has settled it."""
        mark = f"sluice-doctor-{uuid4()}"
        event = {"table": TEST_TABLE, "event_id": mark}
        try:
            answer = requests.post(
                f"{self._url}/v1/events",
                json={"events": [event]},
                headers={"x-write-key": self._key},
                timeout=_HTTP_SECONDS,
            )
        except requests.RequestException as error:
            return fault("test event", f"it could not be sent: {type(error).__name__}")
        if answer.status_code != 200:
            return fault("test event", f"{self._url} answered {_got(answer)}: {answer.text[:200]}")
        started = time.time()
        place = None
        while time.time() - started < _FOUND_SECONDS:
            place = place or self._find(mark, started - _CLOCK_SECONDS, started + _FOUND_SECONDS)
            span = None if place is None else self._settled(*place)
            if span is not None:
                return _canary(span, time.time() - started, self._stack.option)
            time.sleep(1)
        return fault(
            "test event",
            f"accepted, but not settled after {_FOUND_SECONDS:.0f} s: `sluice status {self._stack.option}` shows why",
        )

    def _find(self, mark: str, since: float, until: float) -> tuple[ChainId, Number] | None:
        """Return where the test event is on the stream: its shard's chain and its record's number."""
        stream = self._stack.shards()
        for shard in stream.all():
            for page in stream.pages(shard.shard_id, Position(moment=since), until):
                for record in () if page is None else page.records:
                    if mark.encode() in record["Data"]:
                        return stream.chain(shard.shard_id), number(record["SequenceNumber"])
                if page is None or page.at_tip:
                    break
        return None

    def _settled(self, chain: ChainId, number: Number) -> Span | None:
        """Return the span of the test event once it is settled."""
        span = self._stack.ledger().locate(chain, number)
        return span if isinstance(span, Span) and span.done else None


def _canary(span: Span, seconds: float, option: str) -> CheckResult:
    """Return the result of the test event: it passes only if the event was delivered."""
    aside = [
        entry for key, entry in span.entries.items() if key.group.table == TEST_TABLE and entry.state in ASIDE
    ]
    if not aside:
        return ok("test event", f"delivered (according to the ledger) after {seconds:.1f} s")
    state, reason = aside[0].state.value.replace("_", " "), aside[0].reason
    return fault(
        "test event",
        f"accepted, but set aside after {seconds:.1f} s ({state}: {reason}): `sluice status {option}` shows what to do",
    )


def _treasure_data(said: dict[str, Any]) -> Iterator[CheckResult]:
    host, status, error = said.get("host", "Treasure Data"), said.get("status", 0), said.get("error", "")
    got = (
        f"{host} answered {status} to the API key"
        if status
        else f"{host} did not respond ({error or 'unknown'})"
    )
    if error == "SecretUnavailableError":
        advice = "there is no API key: store one with `sluice setup`"
        yield fault("Treasure Data", advice)
    elif said["knows_key"]:
        yield ok("Treasure Data", got)
    elif status == 401:
        advice = "store a valid one with `sluice setup --td-key-file FILE`"
        yield fault("Treasure Data", f"{got}: it rejects the key; {advice}")
    elif status:
        yield fault("Treasure Data", f"{got}: it is failing, or TdSite (or TdApiEndpoint) is wrong")
    else:
        advice = (
            "check TdSite (or TdApiEndpoint) and, with Network=existing, that the subnets reach the internet"
        )
        yield fault("Treasure Data", f"{got}: {advice}")
    if said.get("may_write") is False:
        yield fault(
            "import permission",
            f"the API key may not write to {said['database']}: give its user permission to import data",
        )
    elif said.get("may_write"):
        yield ok("import permission", f"to {said['database']}")
    if said.get("may_query") is False:
        yield unknown(
            "query permission",
            "the API key may not query: the parameter UnaskableDoubt decides about rows in doubt",
        )
    elif said.get("may_query"):
        yield ok("query permission", "Treasure Data can be queried for rows in doubt")


def measured(found: Measured, assumed: Mapping[str, int]) -> list[CheckResult]:
    """Compare a measurement with the limits of Treasure Data that the worker assumes, in minutes."""
    delay, memory = assumed["query_delay_minutes"] * 60, assumed["memory_minutes"] * 60
    hidden, remembered = screen.lasting(found.hidden), screen.lasting(found.remembered)
    waits = f"the worker waits {screen.lasting(delay)}"
    if found.shown is not None:
        said = f"queries show new rows after {hidden} to {screen.lasting(found.shown)}; {waits}"
        late = found.shown > delay
    else:
        said, late = f"queries did not show a new row within {hidden}; {waits}", found.hidden > delay
    state = "fault" if late else "unknown" if found.shown is None else "ok"
    said = f"{said}: raise TdQueryDelayMinutes" if late else said
    findings = [CheckResult("query delay", said, state=state)]
    if found.forgotten is not None and found.forgotten <= memory:
        minutes = int(found.remembered // 60)
        advice = f"set TdMemoryMinutes to {minutes} and run `sam deploy`, or rows may be duplicated"
        if minutes < _LEAST_MEMORY_MINUTES:
            advice = f"set TdMemoryMinutes to {_LEAST_MEMORY_MINUTES}, its minimum; a late retry may still duplicate rows"
        relied = f"the worker relies on {screen.lasting(memory)}"
        said = f"Treasure Data forgets an id within {screen.lasting(found.forgotten)}, but {relied}: {advice}"
        return [*findings, fault("id memory", said)]
    until = "" if found.forgotten is None else f" and forgets it within {screen.lasting(found.forgotten)}"
    said = f"Treasure Data remembers an id for {remembered}{until}; the worker relies on {screen.lasting(memory)}"
    return [
        *findings,
        CheckResult("id memory", said, state="ok" if found.remembered >= memory else "unknown"),
    ]
