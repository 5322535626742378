"""Checks of a stack, from the outside in: whether each part that delivery needs is there and answers."""

import time
from collections.abc import Callable, Iterator
from dataclasses import KW_ONLY, dataclass, field, replace
from email.utils import parsedate_to_datetime
from typing import Any

import requests

from ops import screen
from ops.books.ledger_repair import is_restored
from ops.failure import FORESEEN, Failure, explained, is_down, is_gone
from ops.help_page import DEPLOY
from ops.known_accounts import parsed
from ops.signing_secrets import newest_key, signing_secrets
from ops.stack import Stack, advised
from ops.state.causes import log_of, restored_cause, td_cause
from ops.state.finding import Finding, fault, ok, unknown, warning
from ops.stream.event_source import mapping_faults, unknown_shards
from ops.template import sluice_template
from shared.accounts import Account
from shared.errors import UnavailableError
from shared.queue_counts import queue_counts

TEST_TABLE = "sluice_doctor"
"""The table that the test event goes to."""
_HOLDING = {"stream", "ledger", "bucket"}
"""Without any of them, records stay on the stream or in the overflow queue."""
_PASSES = "No action needed, unless it lasts: AWS' health page may say more."
_HTTP_SECONDS = 10
_CLOCK_SECONDS = 30.0
_NAMED = 5
_PENDING = "PendingConfirmation"
_ACCOUNT_CODES = ("unknown_account", "disabled_account", "revoked_key")
"""Why the ingest refuses a key with a valid signature: the edge policy, which it reads every minute."""


@dataclass
class Checks:
    """Checks a stack.

    Without an account that supplies the write key, the first active one does. To try a key, the ingest logs a request as refused.

    Attributes:
        account: the account in use, known after `findings`.
        key: its write key, likewise.
        assumed: the limits of Treasure Data that the worker assumes, in minutes, likewise.
    """

    stack: Stack
    account: str | None = None
    _: KW_ONLY
    tries_key: bool = True
    key: str = ""
    assumed: dict[str, int] = field(default_factory=dict)
    _accounts: dict[str, Account] = field(default_factory=dict, init=False)
    _missing: list[str] | None = field(default=None, init=False)
    _has_table: bool = field(default=False, init=False)
    _without_account: str = field(default="it is unknown which accounts there are", init=False)

    def __post_init__(self) -> None:
        self._url = self.stack.outputs["ApiUrl"]
        self._http = self.stack.http()

    def findings(self) -> Iterator[Finding]:
        """Run the checks, and yield their results."""
        checks: dict[str, Callable[[], Iterator[Finding]]] = {
            "API": self._api,
            "stream": self._stream,
            "worker": self._worker,
            "mapping": self._mapping,
            "schedules": self._schedules,
            "functions": self._inside,
            "columns": self._columns,
            "write key": self._write_key,
            "ledger": self._ledger,
            "bucket": self._bucket,
            "queue": self._queue,
            "alarms": self._alarms,
        }
        for what, check in checks.items():
            try:
                yield from check()
            except FORESEEN as error:
                said = explained(error).message
                if is_down(error) and what in _HOLDING:
                    yield Finding(what, said, _PASSES, "holding", f"{what}_failing")
                    continue
                is_own = is_gone(error) and not isinstance(error, UnavailableError)  # of another check
                yield fault(what, said, fault=f"{what}_gone") if is_own else unknown(what, said)
            except Failure as failure:
                yield fault(what, failure.message, fault=f"{what.replace(' ', '_')}_failing")

    def against_event(self) -> Finding | None:
        """Return why no test event must be sent, known after `findings`: it would create a database; None if one may be sent."""
        found = self._accounts.get(self.account or "")
        if found is None:
            return unknown("test event", f"not sent: {self._without_account}")
        if self._has_table or (self._missing is not None and found.database not in self._missing):
            return None
        cause = (
            "Treasure Data has no database" if self._missing else "Treasure Data does not list the database"
        )
        said = f"not sent: {cause} {found.database} of {self.account}, and the event would create it"
        advice = f"Create it there if the name is right; otherwise correct it, `sluice accounts apply accounts.yaml {self.stack.option}`."
        return unknown("test event", said, advice)

    def _api(self) -> Iterator[Finding]:
        log, started = log_of("IngestFunction", self.stack.option), time.time()
        try:
            answer = self._http.get(f"{self._url}/health", timeout=_HTTP_SECONDS)
        except requests.RequestException as error:
            said = f"{self._url}/health did not respond ({type(error).__name__})"
            yield fault(
                "API",
                said,
                f"Check the region and your network: `curl -i {self._url}/health`.",
                fault="api_away",
            )
            return
        if answer.status_code != 200:
            yield fault(
                "API", f"{self._url}/health answered {_got(answer)}", f"See {log}.", fault="api_failing"
            )
        else:
            yield ok("API", f"{self._url} answers in {(time.time() - started) * 1000:.0f} ms")
        if "Date" in answer.headers:
            skew = abs(parsedate_to_datetime(answer.headers["Date"]).timestamp() - time.time())
            said = f"this machine's clock is off by {screen.lasting(skew)}"
            is_off = skew > _CLOCK_SECONDS
            yield (
                fault("clock", said, "Set it, or AWS rejects its requests.", fault="clock")
                if is_off
                else ok("clock")
            )

    def _stream(self) -> Iterator[Finding]:
        kinesis, name = self.stack.client("kinesis"), self.stack.outputs["StreamName"]
        summary = kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]
        if summary["StreamStatus"] not in ("ACTIVE", "UPDATING"):
            said = f"{name} is {summary['StreamStatus']}"
            advice = f"`aws kinesis describe-stream-summary --stream-name {name}` says when that is over."
            yield fault("stream", said, advice, fault="stream_inactive")
        else:
            shards, hours = summary["OpenShardCount"], summary["RetentionPeriodHours"]
            yield ok("stream", f"{screen.plural(shards, 'open shard')}, keeps records for {hours} h")

    def _worker(self) -> Iterator[Finding]:
        unplanned = list(unknown_shards(self.stack.shards(), self.stack.ledger(), time.time()))
        if unplanned:
            said = (
                f"the ledger has no spans of {', '.join(unplanned)}, although the oldest records there are more than an hour old: "
                "the worker is not running, or the stream was deleted and recreated"
            )
            yield fault(
                "worker", said, f"See {log_of('WorkerFunction', self.stack.option)}.", fault="worker_off"
            )

    def _mapping(self) -> Iterator[Finding]:
        if self.stack.is_local:
            yield unknown("mapping", "not checked: the local stack has its own event source")
            return
        client, function = self.stack.client("lambda"), self.stack.outputs["WorkerFunction"]
        found = client.list_event_source_mappings(FunctionName=function)["EventSourceMappings"]
        for stream in {mapping["EventSourceArn"] for mapping in found}:  # to aliases of the function, too
            found += client.list_event_source_mappings(EventSourceArn=stream)["EventSourceMappings"]
        wrong = list(mapping_faults(found, function))
        if wrong:
            yield fault("mapping", "; ".join(wrong), f"{DEPLOY} reverts manual changes.", fault="mapping")
        else:
            last = next(mapping.get("LastProcessingResult", "?") for mapping in found)
            yield ok("mapping", f"enabled; last: {last}")

    def _schedules(self) -> Iterator[Finding]:
        """Check the rules that run functions on schedule. Where a long name of a stack is cut in theirs, they are not found."""
        if self.stack.is_local:
            return
        client, prefix = self.stack.client("events"), f"{self.stack.name}-"
        pages = client.get_paginator("list_rules").paginate(NamePrefix=prefix)
        rules = {rule["Name"]: rule["State"] for page in pages for rule in page["Rules"]}
        named = {name.removeprefix(prefix).rpartition("-")[0]: name for name in rules}
        wanted = sluice_template().schedules(self.stack.parameters)
        for one in wanted & named.keys():
            if rules[named[one]] == "DISABLED":
                advice = f"`aws events enable-rule --name {named[one]} --region {self.stack.session.region_name}` enables it."
                yield fault(
                    "schedules", f"the rule {one} is disabled", advice, fault="schedule_off", about=one
                )
        if missing := sorted(wanted - named.keys()):
            yield unknown("schedules", f"no rule is called {', '.join(missing)}")

    def _inside(self) -> Iterator[Finding]:
        """Check Redis and Treasure Data from the functions' network."""
        answer = self.stack.administer(do="check")
        redis = answer["redis"]
        if "error" in redis:
            yield fault("Redis", *advised(redis), fault=redis["error"])
        elif redis["applied_at"] is None:
            advice = f"Run `sluice accounts apply accounts.yaml {self.stack.option}`."
            yield fault("Redis", "Redis is empty, so all rows wait in S3", advice, fault="redis_empty")
        else:
            known = parsed(redis)
            self._accounts = known.accounts
            is_damaged = self.account in known.damaged
            self._without_account = (
                f"{self.account} is damaged" if is_damaged else "there is no active account"
            )
            count = screen.plural(len(self._accounts), "account")
            yield ok("Redis", f"{count}, applied {known.applied_at}")
            if known.damaged:
                names, more = list(known.damaged)[:_NAMED], len(known.damaged) - _NAMED
                count = screen.plural(len(known.damaged), "account is", "accounts are")
                said = f"{count} damaged: {', '.join(names)}{f' and {more:,} more' if more > 0 else ''}"
                option = self.stack.option
                advice = f"`sluice accounts apply accounts.yaml {option}` repairs what the file has; `sluice accounts list {option}` says more."
                yield fault("accounts", said, advice, fault="invalid_account")
            active = sorted(name for name, one in self._accounts.items() if one.status == "active")
            self.account = self.account or (active[0] if active else None)
        yield from self._treasure_data(answer["treasure_data"])
        self.assumed = answer.get("assumed", {})

    def _treasure_data(self, said: dict[str, Any]) -> Iterator[Finding]:
        host, status, error = said.get("host", "Treasure Data"), said.get("status", 0), said.get("error", "")
        reason = f"http_{status}" if status else error or "timeout"
        cause = td_cause(reason, "", self.stack.option)
        if said["knows_key"]:
            yield ok("Treasure Data", f"{host} answered {status} to the API key")
        elif cause.fault == "td_failing" and not status:
            network = "with Network=existing, that the subnets reach the internet"
            advice = f"{cause.said}. If it lasts, check TdSite (or TdApiEndpoint) and, {network}"
            yield replace(cause, what="Treasure Data", said=f"{host}: {advice}")
        else:
            yield replace(cause, what="Treasure Data")
        databases = said.get("databases", {})
        for database, why in databases.items():
            if why:
                cause = td_cause(why, database, self.stack.option)
                named = cause.said if database in cause.said else f"{database}: {cause.said}"
                yield replace(cause, what="import permission", said=named, about=database)
        working = [database for database, why in databases.items() if not why]
        if working:
            yield ok("import permission", f"to {', '.join(working)}")
        self._missing = said.get("missing")
        if self._missing:
            names = ", ".join(self._missing)
            if len(self._missing) == 1:
                lacks = (
                    f"Treasure Data has no database {names} yet. The first rows create it; check the name."
                )
            else:
                lacks = f"Treasure Data has no databases {names} yet. The first rows create them; check the names."
            yield warning("databases", lacks)
        if said.get("may_query") is False:
            why = "the API key may not query: the parameter UnaskableDoubt decides about rows that Treasure Data may have"
            yield unknown("query permission", why)
        elif said.get("may_query"):
            yield ok("query permission", "Treasure Data can be queried for rows")

    def _columns(self) -> Iterator[Finding]:
        """Check that the table of earlier test events shows the columns by which rows are queried."""
        if self.account is None:
            return
        shown = self.stack.administer(do="columns", account=self.account, table=TEST_TABLE)["shown"]
        self._has_table = shown is not None
        if shown:
            yield ok("columns", f"{TEST_TABLE} shows event_id")
        elif shown is None:
            yield unknown("columns", f"the table {TEST_TABLE} does not exist yet, or could not be queried")
        else:
            said = (
                f"{TEST_TABLE} does not show event_id: run this again ten minutes after the first test event. If it still does "
                "not, turn on schema detection; otherwise you have to decide yourself about rows that Treasure Data may have"
            )
            yield unknown("columns", said)

    def _write_key(self) -> Iterator[Finding]:
        if not self.tries_key:
            return
        signing = signing_secrets(self.stack)
        if self.account is None:
            yield unknown("write key", f"not checked: {self._without_account}")
            return
        found = self._accounts.get(self.account)
        self.key = newest_key(self.account, signing, found.revoked_key_ids if found else ())
        key_id = self.key.split(".")[1]
        try:
            answer = self._http.post(
                f"{self._url}/v1/events",
                json={"events": []},
                headers={"x-write-key": self.key},
                timeout=_HTTP_SECONDS,
            )
        except requests.RequestException:
            yield unknown("write key", "not checked: the API does not respond")
            return
        said = f"{self._url} answered {_got(answer)} to the key {key_id} of {self.account}"
        if answer.status_code in (200, 400):  # 400: the key is accepted, the body has no event
            yield ok("write key", f"the key {key_id} of {self.account} is accepted")
        elif answer.status_code == 401:
            advice = f"A new secret takes effect within five minutes; then `sluice keys verify KEY {self.stack.option}`."
            yield fault("write key", said, advice, fault="write_key_refused")
        elif answer.headers.get("x-sluice-error") in _ACCOUNT_CODES:
            advice = f"A change of an account takes effect within a minute. `sluice accounts show {self.account} {self.stack.option}` shows it."
            yield fault("write key", said, advice, fault="write_key_refused")
        elif answer.status_code < 500:
            yield fault("write key", said, fault="write_key_refused")
        else:
            advice = f"See {log_of('IngestFunction', self.stack.option)}."
            yield fault("write key", said, advice, fault="api_failing")

    def _ledger(self) -> Iterator[Finding]:
        name = self.stack.outputs["LedgerTable"]
        table = self.stack.client("dynamodb").describe_table(TableName=name)["Table"]
        if table["TableStatus"] not in ("ACTIVE", "UPDATING"):
            advice = f"`aws dynamodb describe-table --table-name {name}` says when that is over."
            yield fault("ledger", f"{name} is {table['TableStatus']}", advice, fault="ledger_inactive")
        elif is_restored(self.stack.ledger(), self.stack.objects()):
            yield replace(restored_cause(self.stack.option), what="ledger")
        else:
            yield ok("ledger", f"{table.get('ItemCount', 0):,} items when last counted")

    def _bucket(self) -> Iterator[Finding]:
        self.stack.client("s3").head_bucket(Bucket=self.stack.outputs["DataBucket"])
        yield ok("bucket")

    def _queue(self) -> Iterator[Finding]:
        shown, _ = queue_counts(self.stack.client("sqs"), self.stack.outputs["OverflowQueueUrl"])
        yield ok("queue", screen.plural(shown, "envelope"))

    def _alarms(self) -> Iterator[Finding]:
        if self.stack.is_local:
            return
        pages = self.stack.client("cloudwatch").get_paginator("describe_alarms").paginate(StateValue="ALARM")
        names = [alarm["AlarmName"] for page in pages for alarm in page["MetricAlarms"]]
        ours = [name for name in names if sluice_template().names_alarm(self.stack.name, name)]
        for name in ours:
            kind = name.removeprefix(f"{self.stack.name}-")
            advice = "docs/operations.md#alarms says what to do."
            yield fault("alarms", f"the alarm {kind} is on", advice, fault="alarm", about=kind)
        if not ours:
            yield ok("alarms", "none")
        topic = self.stack.outputs.get("AlarmTopic")
        if topic is None:
            yield warning(
                "alarm recipients", "nobody is told of an alarm: set AlarmEmail or AlarmTopicArn, and deploy"
            )
            return
        sns = self.stack.client("sns")
        told = sns.get_paginator("list_subscriptions_by_topic").paginate(TopicArn=topic)
        if all(one["SubscriptionArn"] == _PENDING for page in told for one in page["Subscriptions"]):
            said = "nobody is told of an alarm: open AWS's message in the mailbox of AlarmEmail and confirm, or subscribe to the topic"
            yield warning("alarm recipients", said)


def _got(answer: requests.Response) -> str:
    """Return a response's status, with the ingest's error code if it has one."""
    code = answer.headers.get("x-sluice-error")
    return f"{answer.status_code} {answer.reason}{f' ({code})' if code else ''}"
