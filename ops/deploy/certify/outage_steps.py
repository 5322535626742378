"""The steps in which a part of the stage fails or changes while events arrive."""

from base64 import b64encode
from typing import Any
from uuid import uuid4

import msgpack

from ops import screen
from ops.commands import dead, redrive, status
from ops.deploy.certify.health_steps import diagnoses, faults
from ops.deploy.certify.run_books import settled
from ops.deploy.certify.stage import TABLE, DeployedStage
from ops.deploy.certify.step import StepFinding
from ops.deploy.certify.trouble import deployed_with, new_api_key, without_redis
from ops.failure import Failure
from shared.envelope import Envelope, TableRows


def key(stage: DeployedStage) -> StepFinding:
    """Replace the API key by an invalid one, and restore it."""
    with new_api_key(stage):
        evidence = _held(stage, "key", "the API key was invalid")
        said = faults(stage, diagnoses(stage, lambda faulty: "td_key_refused" in faulty))
        if "td_key_refused" not in said:
            raise Failure("`sluice doctor` does not report that Treasure Data rejects the API key")
    return _after(
        stage, "key", evidence | {"doctor said": said["td_key_refused"]}, "the API key was restored"
    )


def redis(stage: DeployedStage) -> StepFinding:
    """Cut off Redis from functions with empty memory, and reconnect it."""
    with without_redis(stage):
        evidence = _held(stage, "redis", "Redis was cut off")
    return _after(stage, "redis", evidence, "Redis was back")


def parameter(stage: DeployedStage) -> StepFinding:
    """Deploy another LogLevel and then the old one, while events arrive; check which version answers."""
    other = "WARN" if stage.stack.parameters["LogLevel"] == "INFO" else "INFO"
    client, ingest = stage.stack.client("lambda"), stage.stack.outputs["IngestFunction"]

    def version() -> str:
        return str(client.get_alias(FunctionName=ingest, Name="live")["FunctionVersion"])

    sent: list[str] = []

    def send() -> None:
        stage.send(f"deploy-{len(sent)}")
        sent.append(stage.event_id(f"deploy-{len(sent)}"))

    before, began = version(), stage.clock.now()
    with deployed_with(stage, "LogLevel", other, waiting=send):
        seconds, after = stage.clock.now() - began, version()
        first = stage.send("after-deploy").seconds
        refused = stage.api.request("POST", "/v1/events", "[]", {"x-write-key": "no.such.key"}).status
    if before == after:
        raise Failure(f"after the deploy, version {before} of the ingest still answers")
    stage.timings["deploy of a parameter"] = f"{seconds:.0f} s"
    stage.timings["first response after a deploy"] = f"{first * 1000:.0f} ms"
    stage.wait_for([*sent, stage.event_id("after-deploy")])
    return StepFinding(
        f"{screen.plural(len(sent), 'event')} during a deploy of LogLevel={other}, all answered and in Treasure Data.",
        {"version": f"{before} to {after}", "seconds": seconds, "a forged key got": refused},
    )


def overflow(stage: DeployedStage) -> StepFinding:
    """Put an envelope on the overflow queue twice, as if the stream had rejected it and SQS delivered it twice."""
    event_id, now = stage.event_id("overflowed"), stage.clock.now()
    row = msgpack.packb({"time": int(now), "event_id": event_id})
    rows = (TableRows(TABLE, 1, row),)
    envelope = Envelope(stage.account, "", int(now * 1000), str(uuid4()), 0, rows)
    values = {"partition_key": f"{stage.account}/0", "refused": "true"}
    sqs, outputs = stage.stack.client("sqs"), stage.stack.outputs
    sqs.send_message(QueueUrl=outputs["OverflowNoticesUrl"], MessageBody="the overflow queue is used")
    for _ in range(2):
        sqs.send_message(
            QueueUrl=outputs["OverflowQueueUrl"],
            MessageBody=b64encode(envelope.encode()).decode(),
            MessageAttributes={
                name: {"DataType": "String", "StringValue": text} for name, text in values.items()
            },
            DelaySeconds=0,
        )
    stage.accept(TABLE, event_id)
    seconds = stage.wait_for([event_id])
    stage.timings["rows by the overflow queue"] = f"{seconds:.0f} s"
    settled(stage)
    if (count := stage.counts()[event_id]) != 1:
        raise Failure(f"an envelope that was on the overflow queue twice became {count} rows")
    return StepFinding(
        "An envelope that was on the overflow queue twice became 1 row.",
        {"row after s": seconds, "request": envelope.request_id},
    )


def _held(stage: DeployedStage, case: str, what: str) -> dict[str, Any]:
    """Send an event while something is broken; return evidence that it is answered and held, neither lost nor settled."""
    answer = stage.send(case)
    stage.clock.sleep(stage.pace.hold)
    if stage.counts()[stage.event_id(case)]:
        raise Failure(f"the row is in Treasure Data although {what}, so the outage had no effect")
    waiting = stage.operate(status.command)
    found = stage.operate(dead.list_, "--account", stage.account, "--table", TABLE)
    if found:
        raise Failure(f"rows became dead while {what}: {found[0]['reason']}")
    return {
        "answered": f"{answer.status} in {answer.seconds * 1000:.0f} ms",
        "status said": waiting["verdict"],
    }


def _after(stage: DeployedStage, case: str, evidence: dict[str, Any], what: str) -> StepFinding:
    stage.operate(redrive.command)  # otherwise the sender would take up to a minute
    seconds = stage.wait_for([stage.event_id(case)])
    stage.timings[f"rows after {what}"] = f"{seconds:.0f} s"
    return StepFinding(
        f"The API kept answering, and the row was held and delivered {seconds:.0f} s after {what}.", evidence
    )
