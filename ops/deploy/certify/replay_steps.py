"""The steps that send rows again: replays of the stream, forced replays, and the redrive of a dead row."""

import json
from uuid import uuid4

from ops import screen
from ops.commands import dead, redrive, replay
from ops.deploy.certify.run_books import settled, since
from ops.deploy.certify.stage import TABLE, DeployedStage
from ops.deploy.certify.step import StepFinding
from ops.failure import Failure
from shared.accounts import Account

FORCED_TABLE = f"{TABLE}_forced"
"""The table for the row that is sent a second time."""


def replayed(stage: DeployedStage) -> StepFinding:
    """Replay the whole run."""
    stage.send("replayed")
    stage.wait_for([stage.event_id("replayed")])
    settled(stage)
    said = stage.operate(replay.command, "--from", since(stage))
    if not said["complete"]:
        raise Failure(f"the replay stopped: {said['stopped']}")
    if said["rows"]["sent"]:
        raise Failure(f"a replay sent {said['rows']['sent']} rows that were already delivered")
    _check_single(stage)
    return StepFinding(
        f"{said['records']} records reread, no row sent twice.", {"records": said["records"]} | said["rows"]
    )


def _check_single(stage: DeployedStage) -> None:
    """Check that a replay has not duplicated rows."""
    stage.clock.sleep(stage.pace.settle)
    counts = stage.counts()
    wrong = {one: count for one, count in counts.items() if count != stage.copies[TABLE][one]}
    if wrong:
        raise Failure(f"a replay duplicated rows: {wrong}")


def forced(stage: DeployedStage) -> StepFinding:
    """Force a replay of a table's row, twice under one tag."""
    began = screen.utc(int(stage.clock.now() - stage.pace.settle) - 1)  # the stream's clock may differ
    stage.send("forced", FORCED_TABLE)
    stage.wait_for([stage.event_id("forced")], FORCED_TABLE)
    stage.clock.sleep(stage.pace.settle + 1)
    words = [
        "--yes",
        "--force",
        "--tag",
        stage.run.lower(),
        "--account",
        stage.account,
        "--table",
        FORCED_TABLE,
        "--from",
        began,
        "--to",
        screen.utc(int(stage.clock.now())),
    ]
    first, second = (stage.operate(replay.command, *words) for _ in range(2))
    stage.accept(FORCED_TABLE, stage.event_id("forced"))
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
        "A forced replay sent 1 row again. A second one with the same tag sent none.",
        {"tag": stage.run.lower()},
    )


def redriven_letter(stage: DeployedStage) -> StepFinding:
    """Put a record of an unknown account on the stream, map the account, and redrive its dead row."""
    account = f"{TABLE}_{uuid4().hex[:8]}"
    redriven = stage.event_id(f"redriven-{account}")
    event = {"table": TABLE, "event_id": redriven, "time": int(stage.clock.now())}
    stage.stack.client("kinesis").put_record(
        StreamName=stage.stack.outputs["StreamName"],
        PartitionKey=f"{account}/0",
        Data=json.dumps({"account": account, "events": [event]}).encode(),
    )
    stage.send("neighbour")
    seconds = stage.wait_for([stage.event_id("neighbour")])
    found = stage.until(lambda: stage.operate(dead.list_, "--account", account))
    if not found:
        raise Failure("the record of an unknown account did not become a dead row")
    kinds = [word for kind in ("dead", "waiting", "again") for word in ("--kind", kind)]
    with stage.repairs.breaking("account", name=account):
        stage.administer(do="change", account=account, fields=Account(stage.database).to_fields())
        # A redrive may keep the row for now, and a scheduled redrive may send it before the next attempt.
        said = stage.until(
            lambda: stage.operate(redrive.command, *kinds, "--account", account),
            lambda said: said["delivered"] == said["selected"],
        )
    if said["delivered"] != said["selected"]:
        raise Failure(f"the redrive did not deliver the row ({found[0]['reason']}): {said}")
    stage.accept(TABLE, redriven)
    stage.wait_for([redriven])
    if (count := stage.counts()[redriven]) != 1:
        raise Failure(f"one dead row became {count} rows")
    return StepFinding(
        "A dead row was delivered, and its neighbour did not have to wait.",
        {"dead row": found[0]["id"], "reason": found[0]["reason"], "neighbour's row after s": seconds},
    )
