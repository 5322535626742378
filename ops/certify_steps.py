"""The steps of a certification: what each proves, and how.

A step returns what it found. It raises Failure if what it proves is not so, Untried or Impossible if it cannot tell.
"""

import gzip
import json
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import not_
from statistics import median, quantiles
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

from ops import certify_assumptions as assumptions
from ops import dead, doctor, redrive, replay, screen, status
from ops.certify_stage import TABLE, DeployedStage
from ops.certify_step import CertifyStep, StepFinding, Untried
from ops.certify_trouble import new_api_key, without_redis
from ops.change_set import ChangeSet
from ops.failure import Failure
from ops.measure import Measurement
from shared.accounts import Account

FORCED_TABLE = f"{TABLE}_forced"
"""The table whose row is sent a second time."""

_REQUESTS = 40
_SERVICE_ID = "sluice-certify"


@dataclass(frozen=True, slots=True)
class Dialect:
    """A way in which clients send one event.

    Attributes:
        name: of it.
        method: of the request.
        target: path and query.
        body: of the request.
        headers: of the request.
    """

    name: str
    method: str
    target: str
    body: bytes | str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


def dialects(account: str, key: str, event_id: Callable[[str], str]) -> Iterator[Dialect]:
    """Yield one request in each dialect; its event has the id of the dialect's name.

    Args:
        account: whose.
        key: its write key.
        event_id: returns an event's id by a name.
    """
    own = {"x-write-key": key}
    td = {"x-td-write-key": key}
    place = f"{account}/{TABLE}"

    def event(name: str) -> dict[str, str]:
        return {"event_id": event_id(name), "dialect": name}

    def text(name: str) -> str:
        return json.dumps(event(name))

    def in_url(name: str, **more: str) -> str:
        return urlencode({**more, **event(name)})

    yield Dialect("pixel", "GET", f"/pixel.gif?{in_url('pixel', k=key, t=TABLE)}")
    yield Dialect("link-ping", "POST", f"/pixel.gif?{in_url('link-ping', k=key, t=TABLE)}", "PING")
    batch = json.dumps({"table": TABLE, "events": [event("batch")]})
    yield Dialect("batch", "POST", "/v1/events", batch, {"authorization": f"Bearer {key}"})
    array = json.dumps([{"table": TABLE, **event("array")}])
    yield Dialect("array", "POST", "/v1/events", array, own)
    beacon = {"content-type": "text/plain;charset=UTF-8"}
    yield Dialect("beacon", "POST", f"/v1/events?{urlencode({'k': key, 't': TABLE})}", text("beacon"), beacon)
    form = {"content-type": "application/x-www-form-urlencoded", **own}
    yield Dialect("form", "POST", f"/v1/events?t={TABLE}", in_url("form"), form)
    in_body = json.dumps({"write_key": key, "table": TABLE, "events": [event("key-in-body")]})
    yield Dialect("key-in-body", "POST", "/v1/events", in_body)
    yield Dialect("td-sdk", "POST", f"/{place}", json.dumps({"events": [event("td-sdk")]}), td)
    yield Dialect("td-js-post", "POST", f"/js/v3/event/{place}", text("td-js-post"), td)
    data = b64encode(text("td-js-get").encode()).decode()
    yield Dialect("td-js-get", "GET", f"/js/v3/event/{place}?{urlencode({'api_key': key, 'data': data})}")
    yield Dialect("postback", "POST", f"/postback/v3/event/{place}?td_write_key={key}", text("postback"))
    yield Dialect(
        "postback-get", "GET", f"/postback/v3/event/{place}?{in_url('postback-get', td_write_key=key)}"
    )
    for system in ("ios", "android"):
        mobile = json.dumps({f"{account}.{TABLE}": [event(system)]})
        yield Dialect(system, "POST", f"/{system}/v3/event", mobile, td)


COMPRESSED: Mapping[str, Mapping[str, str]] = {
    "gzip": {"content-encoding": "gzip", "content-type": "application/octet-stream"},
    "gzip-json": {"content-encoding": "gzip", "content-type": "application/json"},
    "gzip-text": {"content-encoding": "gzip", "content-type": "text/plain"},
    "gzip-beacon": {"content-type": "text/plain;charset=UTF-8"},
}
"""Headers of requests with compressed bodies. The HTTP API hands over those of text types as text, which would destroy them, unless it
looks at the encoding or at the bytes as well."""


def compressed(key: str, event_id: Callable[[str], str]) -> Iterator[Dialect]:
    """Yield requests with compressed bodies, as COMPRESSED has them."""
    target = f"/v1/events?{urlencode({'k': key, 't': TABLE})}"
    for name, headers in COMPRESSED.items():
        body = gzip.compress(json.dumps({"event_id": event_id(name), "dialect": name}).encode())
        yield Dialect(name, "POST", target, body, headers)


def _send_all(stage: DeployedStage, found: Iterable[Dialect]) -> StepFinding:
    """Send, and read back: one row each."""
    answers, events = {}, []
    for one in found:
        answer = stage.request(one.method, one.target, one.body, one.headers)
        answers[one.name] = f"{answer.status} {answer.code}".strip()
        if answer.status == 200:
            stage.accepted.requests += 1
            stage.accepted.add(TABLE, stage.event_id(one.name))
            events.append(stage.event_id(one.name))
    refused = {name: said for name, said in answers.items() if said != "200"}
    if refused:
        raise Failure(f"the API refused {refused}")
    seconds = stage.wait_for(events)
    counts = stage.counts()
    doubled = {one: counts[one] for one in events if counts[one] != 1}
    if doubled:
        raise Failure(f"not one row each: {doubled}")
    return StepFinding(
        f"{len(events)} requests, one row each.",
        {"requests": list(answers), "read back after": screen.lasting(seconds)},
    )


def _dialects(stage: DeployedStage) -> StepFinding:
    return _send_all(stage, dialects(stage.account, stage.key(), stage.event_id))


def _gzip(stage: DeployedStage) -> StepFinding:
    found = [*compressed(stage.key(), stage.event_id)]
    if not stage.is_emulated:
        return _send_all(stage, found)
    _send_all(stage, found[:1])
    raise Untried(
        f"the emulator hands over {', '.join(one.name for one in found[1:])} as text; only octets were tried"
    )


def _doctor(stage: DeployedStage) -> StepFinding:
    found = _diagnoses(stage, lambda faults: not faults)
    if faults := _faults(stage, found):
        raise Failure("; ".join(f"{what}: {said}" for what, said in faults.items()))
    return StepFinding("No fault.", {one["what"]: one["said"] or one["state"] for one in found})


def _diagnoses(
    stage: DeployedStage, is_right: Callable[[Mapping[str, str]], bool]
) -> Sequence[Mapping[str, str]]:
    """Return what the doctor finds; if its faults are not those that are right, what it finds at a second look."""
    return stage.until(
        lambda: stage.operate(doctor.command, "--no-event", "--account", stage.account)["findings"],
        lambda found: is_right(_faults(stage, found)),
        seconds=0,
    )


def _faults(stage: DeployedStage, found: Iterable[Mapping[str, str]]) -> dict[str, str]:
    # An emulator's API has an address that no name server knows.
    local = ("API", "write key") if stage.is_emulated else ()
    return {one["what"]: one["said"] for one in found if one["state"] == "fault" and one["what"] not in local}


def _repeated(stage: DeployedStage) -> StepFinding:
    """Send the same batch three times under one id."""
    event = {"table": TABLE, "event_id": stage.event_id("repeated")}
    headers = {"x-write-key": stage.key(), "idempotency-key": stage.event_id("batch")[-64:]}
    for _ in range(3):
        answer = stage.request("POST", "/v1/events", json.dumps([event]), headers)
        if answer.status != 200:
            raise Failure(f"the API answered {answer.status} {answer.code}")
        stage.accepted.requests += 1
    stage.accepted.add(TABLE, stage.event_id("repeated"))
    stage.send("after-repeated")  # of the same sender, so behind them
    stage.wait_for([stage.event_id("repeated"), stage.event_id("after-repeated")])
    stage.clock.sleep(stage.pace.settle)
    count = stage.counts()[stage.event_id("repeated")]
    if count != 1:
        raise Failure(f"a batch that was sent three times under one id became {count} rows")
    return StepFinding("3 requests under one batch id, 1 row.", {"event": stage.event_id("repeated")})


def _response_time(stage: DeployedStage) -> StepFinding:
    """Measure what a visitor waits for, from here, with connections that stay open."""
    seconds = [stage.send(f"warm-{number}").seconds * 1000 for number in range(_REQUESTS)]
    half, most = median(seconds), quantiles(seconds, n=20)[-1]
    stage.timings["response, median"] = f"{half:.0f} ms"
    stage.timings["response, 95 %"] = f"{most:.0f} ms"
    stage.timings["response, slowest"] = f"{max(seconds):.0f} ms"
    return StepFinding(
        f"{_REQUESTS} requests: {half:.0f} ms in the median, {most:.0f} ms at 95 %.",
        {"median ms": half, "p95 ms": most, "slowest ms": max(seconds)},
    )


def _time_to_row(stage: DeployedStage) -> StepFinding:
    """Measure from the answer until a query finds the row."""
    stage.send("time-to-row")
    seconds = stage.wait_for([stage.event_id("time-to-row")])
    stage.timings["time to row"] = f"{seconds:.1f} s"
    return StepFinding(f"A query found the row {seconds:.1f} s after the answer.", {"seconds": seconds})


def _visibility(stage: DeployedStage) -> StepFinding:
    """Measure how soon a query sees an import, beside what the worker assumes."""
    check = stage.administer(do="check")
    assumed = check["assumed"]["query_delay_minutes"] * 60
    measurement = Measurement(
        stage.administer,
        stage.clock,
        stage.database,
        uuid4().hex[:12],
        lambda _: None,
        first_ask=min(5.0, stage.pace.poll),
    )
    found = measurement.run(())
    if found.shown is None:
        raise Failure(f"a row is not shown {screen.lasting(found.hidden)} after its import")
    stage.timings["visible latency of an import"] = f"{found.hidden:.0f} to {found.shown:.0f} s"
    if found.shown > assumed:
        raise Failure(
            f"queries see rows after {found.shown:.0f} s, and the worker assumes {assumed} s: raise TdQueryDelayMinutes"
        )
    return StepFinding(
        f"Queries see rows {found.hidden:.0f} to {found.shown:.0f} s after an import; the worker assumes {assumed} s."
    )


def _resp(stage: DeployedStage) -> StepFinding:
    """Read accounts through the functions' own client, by a connection that is new."""
    with stage.repairs.breaking("sandboxes", output="AdminFunction"):
        stage.restart("AdminFunction")
        redis = stage.until(
            lambda: stage.administer(do="check")["redis"], lambda redis: "error" not in redis, seconds=0
        )
    if "error" in redis:
        raise Failure(str(redis["message"]))
    return StepFinding(
        "Redis answers a new connection with RESP version 2.",
        {"accounts": len(redis["accounts"]), "seconds": redis["seconds"]},
    )


def _held(stage: DeployedStage, case: str, what: str) -> dict[str, Any]:
    """Send an event while something is broken; return the evidence that it is answered, held, and neither lost nor settled."""
    answer = stage.send(case)
    stage.clock.sleep(stage.pace.hold)
    if stage.counts()[stage.event_id(case)]:
        raise Failure(f"the row is in Treasure Data although {what}: nothing was broken")
    waiting = stage.operate(status.command)
    dead_letters = stage.operate(dead.list_, "--account", stage.account, "--table", TABLE)
    if dead_letters:
        raise Failure(f"rows became dead letters while {what}: {dead_letters[0]['reason']}")
    return {
        "answered": f"{answer.status} in {answer.seconds * 1000:.0f} ms",
        "status said": waiting["verdict"],
    }


def _after(stage: DeployedStage, case: str, evidence: dict[str, Any], what: str) -> StepFinding:
    seconds = stage.wait_for([stage.event_id(case)])
    stage.timings[f"rows after {what}"] = f"{seconds:.0f} s"
    return StepFinding(
        f"The API answered meanwhile, the row was held, and delivered {seconds:.0f} s after {what}.", evidence
    )


def _key(stage: DeployedStage) -> StepFinding:
    """Replace the API key by one that Treasure Data does not know, and put it back."""
    with new_api_key(stage):
        evidence = _held(stage, "key", "the API key is revoked")
        said = _faults(stage, _diagnoses(stage, lambda faults: "Treasure Data" in faults))
        if "Treasure Data" not in said:
            raise Failure("`sluice doctor` does not name the API key that Treasure Data refuses")
    return _after(stage, "key", evidence | {"doctor said": said["Treasure Data"]}, "the API key was restored")


def _redis(stage: DeployedStage) -> StepFinding:
    """Cut Redis off from a worker that has nothing in memory, and let it in again."""
    with without_redis(stage):
        evidence = _held(stage, "redis", "Redis is cut off")
    return _after(stage, "redis", evidence, "Redis was back")


def _since(stage: DeployedStage) -> str:
    return screen.utc(int(stage.began) - 1)


def _replay(stage: DeployedStage) -> StepFinding:
    """Replay the whole run."""
    stage.send("replayed")
    stage.wait_for([stage.event_id("replayed")])
    _settled(stage)
    said = stage.operate(replay.command, "--from", _since(stage))
    if not said["complete"]:
        raise Failure(f"the replay stopped: {said['stopped']}")
    if said["rows"]["sent"]:
        raise Failure(f"a replay sent {said['rows']['sent']} rows that were delivered")
    stage.clock.sleep(stage.pace.settle)
    counts = stage.counts()
    doubled = {one: count for one, count in counts.items() if count != stage.accepted.copies[TABLE][one]}
    if doubled:
        raise Failure(f"a replay doubled rows: {doubled}")
    return StepFinding(
        f"{said['records']} records read again, no row sent twice.",
        {"records": said["records"]} | said["rows"],
    )


def _force(stage: DeployedStage) -> StepFinding:
    """Send a table's row again by force, twice under one tag."""
    began = screen.utc(int(stage.clock.now() - stage.pace.settle) - 1)  # by another clock than the stream's
    stage.send("forced", FORCED_TABLE)
    stage.wait_for([stage.event_id("forced")], FORCED_TABLE)
    words = ["--force", "--tag", stage.run.lower(), "--account", stage.account, "--table", FORCED_TABLE]
    first = stage.operate(replay.command, *words, "--from", began)
    second = stage.operate(replay.command, *words, "--from", began)
    stage.accepted.add(FORCED_TABLE, stage.event_id("forced"))
    sent = (first["rows"]["sent"], second["rows"]["sent"])
    if sent != (1, 0):
        raise Failure(f"two forced replays under one tag sent {sent[0]} and {sent[1]} rows, not 1 and 0")
    stage.clock.sleep(stage.pace.settle)
    count = stage.until(
        lambda: stage.counts(FORCED_TABLE)[stage.event_id("forced")], lambda count: count >= 2
    )
    if count != 2:
        raise Failure(f"a forced replay left {count} rows, not 2")
    return StepFinding(
        "A forced replay sent 1 row again, a second one under its tag none.", {"tag": stage.run.lower()}
    )


def _redrive(stage: DeployedStage) -> StepFinding:
    """Put a record of an unknown account on the stream, map the account, and redrive its dead letter."""
    account = f"{TABLE}_{uuid4().hex[:8]}"
    redriven = stage.event_id(f"redriven-{account}")
    event = {"table": TABLE, "event_id": redriven, "time": int(stage.clock.now())}
    stage.client("kinesis").put_record(
        StreamName=stage.stack.outputs["StreamName"],
        PartitionKey=f"{account}/0",
        Data=json.dumps({"account": account, "events": [event]}).encode(),
    )
    stage.send("neighbour")
    seconds = stage.wait_for([stage.event_id("neighbour")])
    letters = stage.until(lambda: stage.operate(dead.list_, "--account", account))
    if not letters:
        raise Failure("the record of an unknown account did not become a dead letter")
    kinds = [word for kind in ("dead", "parked", "doubt") for word in ("--kind", kind)]
    with stage.repairs.breaking("account", name=account):
        stage.administer(do="change", account=account, fields=Account(stage.database).to_fields())
        # A run keeps what it cannot send for the moment, and the scheduled run may send it before the next one.
        said = stage.until(
            lambda: stage.operate(redrive.command, *kinds, "--account", account),
            lambda said: said["delivered"] == said["selected"],
        )
    if said["delivered"] != said["selected"]:
        raise Failure(f"the redrive does not deliver the row ({letters[0]['reason']}): {said}")
    stage.accepted.add(TABLE, redriven)
    stage.wait_for([redriven])
    if (count := stage.counts()[redriven]) != 1:
        raise Failure(f"a dead letter of one row became {count}")
    return StepFinding(
        "A dead letter became a row, and its neighbour did not wait for it.",
        {"dead letter": letters[0]["id"], "reason": letters[0]["reason"], "neighbour's row after s": seconds},
    )


def _parameter(stage: DeployedStage) -> StepFinding:
    """Deploy another LogLevel and the old one again, while events arrive; look at the version that answers."""
    level = stage.parameters["LogLevel"]
    other = "WARN" if level == "INFO" else "INFO"
    client, ingest = stage.client("lambda"), stage.stack.outputs["IngestFunction"]

    def version() -> str:
        return str(client.get_alias(FunctionName=ingest, Name="live")["FunctionVersion"])

    sent: list[str] = []

    def send() -> None:
        stage.send(f"deploy-{len(sent)}")
        sent.append(stage.event_id(f"deploy-{len(sent)}"))

    change = ChangeSet(stage.client("cloudformation"), stage.stack.name, stage.clock, stage.pace.deploy_poll)
    before, began = version(), stage.clock.now()
    with stage.repairs.breaking("parameter", name="LogLevel", value=level):
        change.deploy(f"{_SERVICE_ID}-{uuid4().hex[:8]}", {"LogLevel": other}, waiting=send)
        seconds, after = stage.clock.now() - began, version()
        first = stage.send("after-deploy").seconds
        refused = stage.request("POST", "/v1/events", "[]", {"x-write-key": "no.such.key"}).status
    if before == after:
        raise Failure(f"after the deploy the ingest still answers with version {before}")
    stage.timings["deploy of a parameter"] = f"{seconds:.0f} s"
    stage.timings["first response after a deploy"] = f"{first * 1000:.0f} ms"
    stage.wait_for([*sent, stage.event_id("after-deploy")])
    return StepFinding(
        f"{screen.plural(len(sent), 'event')} during a deploy of LogLevel={other}, all answered and in Treasure Data.",
        {"version": f"{before} to {after}", "seconds": seconds, "a forged key got": refused},
    )


def _books(stage: DeployedStage) -> StepFinding:
    """Compare all that was accepted with Treasure Data, and with the ledger's own sums."""
    balance = _settled(stage)
    if wrong := stage.until(lambda: _differing(stage), not_):
        some = ", ".join(f"{one}: {said}" for one, said in list(wrong.items())[:5])
        raise Failure(
            f"Treasure Data does not have what was accepted: {len(wrong)} events differ, such as {some}"
        )
    ours = [one for one in balance["tables"] if one["table"].startswith(TABLE)]
    return StepFinding(
        f"{stage.accepted.requests} requests, {stage.accepted.rows()} rows expected, and exactly those are in Treasure Data.",
        {
            "received": sum(one["received"] for one in ours),
            "delivered": sum(one["delivered"] for one in ours),
            "spans": balance["spans"],
        },
    )


def _differing(stage: DeployedStage) -> dict[str, str]:
    """Return the events of which Treasure Data does not have as many rows as were accepted."""
    wrong: dict[str, str] = {}
    for table, copies in stage.accepted.copies.items():
        counts = stage.counts(table)
        wrong |= {one: f"{counts[one]} of {count}" for one, count in copies.items() if counts[one] != count}
        wrong |= {one: f"{count} unexpected" for one, count in counts.items() if one not in copies}
    return wrong


def _settled(stage: DeployedStage) -> dict[str, Any]:
    """Return the books of the run, with everything settled: a row can be in Treasure Data before the ledger says so.

    Raises:
        Failure: they do not balance, or something is not settled in time.
    """

    def is_settled(balance: Mapping[str, Any]) -> bool:
        in_flight = sum(one["in_flight"] for one in balance["tables"] if one["table"].startswith(TABLE))
        return balance["adds_up"] and not (
            balance["unread_records"] + balance["queued_envelopes"] + in_flight
        )

    balance: dict[str, Any] = stage.until(
        lambda: stage.operate(status.command, "--since", _since(stage))["balance"], is_settled
    )
    if not balance["adds_up"]:
        raise Failure("`sluice status --since` says that the books do not balance")
    if not is_settled(balance):
        raise Failure("records wait on the stream or in the queue still, or are being delivered")
    return balance


STEPS = (
    CertifyStep("doctor", "The stage is well before anything is tried.", _doctor),
    CertifyStep(
        "dialects", "An event of each dialect is accepted and becomes one row.", _dialects, promises=(1, 3)
    ),
    CertifyStep("gzip", "Compressed bodies arrive through the HTTP API as they were sent.", _gzip),
    CertifyStep("repeat", "A batch that is sent again under its id counts once.", _repeated, promises=(3,)),
    CertifyStep("response-time", "Responses take milliseconds.", _response_time, promises=(5,)),
    CertifyStep(
        "time-to-row", "How long an event takes from its response to a query's result.", _time_to_row
    ),
    CertifyStep("visibility", "Queries see an import as soon as the worker assumes.", _visibility),
    CertifyStep("resp", "The cache answers in RESP version 2, by a new connection.", _resp),
    CertifyStep(
        "key",
        "While Treasure Data rejects the API key, events are answered and held; then they are delivered.",
        _key,
        promises=(1, 2, 5, 7),
    ),
    CertifyStep(
        "redis",
        "While Redis is cut off, events are answered and held; then they are delivered.",
        _redis,
        promises=(1, 2, 5),
    ),
    CertifyStep("replay", "A replay of the whole run sends no row a second time.", _replay, promises=(3,)),
    CertifyStep("force", "A forced replay sends rows once per tag.", _force, promises=(3,)),
    CertifyStep(
        "redrive",
        "Rows of an unknown account delay nobody, and become rows once it is mapped.",
        _redrive,
        promises=(2, 4),
    ),
    CertifyStep(
        "parameter", "A parameter changes without downtime, and the new version answers.", _parameter, (1,)
    ),
    CertifyStep("idle", "Connections that were idle for minutes lose nothing.", assumptions.idle),
    CertifyStep(
        "cold-start",
        "How long a response takes that has to wait for an instance to start.",
        assumptions.cold_start,
    ),
    CertifyStep("metrics", "Metrics arrive, whatever the log level is.", assumptions.metrics),
    CertifyStep(
        "access-log", "Each line of the access log is JSON, whatever the path is.", assumptions.access_log
    ),
    CertifyStep("alarms", "CloudWatch evaluates the expression of each alarm.", assumptions.alarms),
    CertifyStep(
        "canary",
        "CodeDeploy has moved the alias, and the canary's alarm looks at its version.",
        assumptions.canary,
    ),
    CertifyStep(
        "books",
        "Treasure Data has exactly the rows that were accepted, and the ledger agrees.",
        _books,
        promises=(1, 2, 3, 6),
    ),
)
"""All steps, in their order."""

ASSUMPTIONS: Mapping[str, tuple[str, ...]] = {
    "Gzip bodies pass the HTTP API unchanged": ("gzip",),
    "The managed Redis speaks RESP version 2": ("resp",),
    "Idle connections are noticed and replaced": ("idle",),
    "Metric lines arrive whatever the log level": ("metrics",),
    "The access log is JSON for every path": ("access-log",),
    "CloudWatch evaluates the alarms' expressions": ("alarms",),
    "The canary looks at the new version alone": ("canary",),
    "Lambda redelivers what the worker holds": ("key", "redis"),
    "Queries see imports in TdQueryDelayMinutes": ("visibility",),
}
"""What only a real account can confirm, with the steps that try it."""
