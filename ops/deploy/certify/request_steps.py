"""The steps that send requests to the API: each dialect, compressed bodies, and repeated batches."""

import gzip
import json
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlencode

from ops import screen
from ops.deploy.certify.stage import TABLE, DeployedStage
from ops.deploy.certify.step import StepFinding, Untried
from ops.failure import Failure


@dataclass(frozen=True, slots=True)
class Dialect:
    """A request that sends one event in some dialect; the target is its path and query."""

    name: str
    method: str
    target: str
    body: bytes | str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


def dialects(account: str, key: str, event_id: Callable[[str], str]) -> Iterator[Dialect]:
    """Yield one request in each dialect, with a write key of an account. `event_id` returns the event's id for a dialect's name."""
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
"""Headers of requests with compressed bodies. The HTTP API would corrupt bodies with a text type by passing them on as text, unless
it also considers the encoding or the bytes."""


def compressed(key: str, event_id: Callable[[str], str]) -> Iterator[Dialect]:
    """Yield requests with compressed bodies, one for each member of COMPRESSED."""
    target = f"/v1/events?{urlencode({'k': key, 't': TABLE})}"
    for name, headers in COMPRESSED.items():
        body = gzip.compress(json.dumps({"event_id": event_id(name), "dialect": name}).encode())
        yield Dialect(name, "POST", target, body, headers)


def _send_all(stage: DeployedStage, found: Iterable[Dialect]) -> StepFinding:
    """Send requests, and check that each became one row."""
    answers, events = {}, []
    for one in found:
        answer = stage.api.request(one.method, one.target, one.body, one.headers)
        answers[one.name] = f"{answer.status} {answer.code}".strip()
        if answer.status == 200:
            stage.accept(TABLE, stage.event_id(one.name))
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


def each_dialect(stage: DeployedStage) -> StepFinding:
    """Send an event in each dialect."""
    found = _send_all(stage, dialects(stage.account, stage.key, stage.event_id))
    stage.timings["time to row"] = found.evidence["read back after"]
    return found


def gzip_bodies(stage: DeployedStage) -> StepFinding:
    """Send compressed bodies of each content type."""
    found = [*compressed(stage.key, stage.event_id)]
    if not stage.is_emulated:
        return _send_all(stage, found)
    _send_all(stage, found[:1])
    raise Untried(
        f"the emulator passes on {', '.join(one.name for one in found[1:])} as text; only gzip was tested"
    )


def repeated(stage: DeployedStage) -> StepFinding:
    """Send the same batch three times with one id."""
    event = {"table": TABLE, "event_id": stage.event_id("repeated")}
    headers = {"x-write-key": stage.key, "idempotency-key": stage.event_id("batch")[-64:]}
    for _ in range(3):
        answer = stage.api.request("POST", "/v1/events", json.dumps([event]), headers)
        if answer.status != 200:
            raise Failure(f"the API answered {answer.status} {answer.code}")
    stage.accept(TABLE, stage.event_id("repeated"))
    stage.send("after-repeated")  # from the same sender, so it follows them on the shard
    stage.wait_for([stage.event_id("repeated"), stage.event_id("after-repeated")])
    stage.clock.sleep(stage.pace.settle)
    count = stage.counts()[stage.event_id("repeated")]
    if count != 1:
        raise Failure(f"a batch that was sent three times with one id became {count} rows")
    return StepFinding("3 requests with one batch id, 1 row.", {"event": stage.event_id("repeated")})
