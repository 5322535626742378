"""The steps that send rows again: replays of the stream and the archive, forced replays, and the redrive of a dead letter."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import override
from uuid import uuid4

from ops import screen
from ops.books.replayed import Planned
from ops.commands import dead, redrive, replay
from ops.deploy.certify.run_books import settled, since
from ops.deploy.certify.stage import TABLE, DeployedStage
from ops.deploy.certify.step import Impossible, StepFinding
from ops.failure import Failure
from ops.stream import replayer
from ops.stream.history import StreamHistory
from ops.stream.reader import RangeEnd, ShardRecords
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
        f"{said['records']} records reread, no row sent twice.",
        {"records": said["records"]} | said["rows"],
    )


def _check_single(stage: DeployedStage) -> None:
    """Check that a replay has not duplicated rows.

    Raises:
        Failure: it has.
    """
    stage.clock.sleep(stage.pace.settle)
    counts = stage.counts()
    wrong = {one: count for one, count in counts.items() if count != stage.accepted.copies[TABLE][one]}
    if wrong:
        raise Failure(f"a replay duplicated rows: {wrong}")


class _ArchiveOnly(StreamHistory):
    """Reads everything from the archive, even what the stream still has, and collects the data."""

    read_data = b""

    @override
    def pieces(self, shard: str, start: RangeEnd, end: RangeEnd) -> Iterator[ShardRecords]:
        """See StreamReader."""
        for piece in self._archived(self.chain(shard), start, end):
            self.read_data += b"".join(record["Data"] for record in piece.records)
            yield piece


def archived(stage: DeployedStage) -> StepFinding:
    """Check that the archive has everything that was accepted, and replay the run from it."""
    stack, clock = stage.stack, stage.clock
    if not stack.archive_days:
        raise Impossible("ArchiveDays is 0, so this stage has no archive")
    stage.send("archived")
    stage.wait_for([stage.event_id("archived")])
    if missing := settled(stage)["unarchived_spans"]:
        raise Failure(f"{screen.plural(missing, 'settled span')} without an object in the archive")
    history = _ArchiveOnly(
        stack.shards(), stack.outputs["StreamName"], stack.archive(), stack.archive_days, clock
    )
    stretch = replayer.Stretch(RangeEnd(at=stage.began - stage.pace.settle - 1), RangeEnd())
    planned = Planned(stack.ledger())
    replaying = replayer.Replay(history, lambda event: stack.invoke("WorkerFunction", event), clock, planned)
    shards = history.names(stretch.start, stretch.end)
    try:
        done = [replaying.shard(shard, stretch, lambda _: None) for shard in shards]
    except replayer.HoldsError as error:
        raise Failure(f"the replay from the archive stopped: {error}") from error
    accepted = [one for copies in stage.accepted.copies.values() for one in copies]
    if lost := [one for one in accepted if one.encode() not in history.read_data]:
        raise Failure(f"the archive does not have {len(lost)} of {len(accepted)} events, such as {lost[0]}")
    found = planned.replayed(sum(one.rows for one in done))
    if found.sent:
        raise Failure(f"a replay from the archive sent {found.sent} rows that were already delivered")
    _check_single(stage)
    records = sum(one.records for one in done)
    return StepFinding(
        f"The archive has every event of the run. {records} records reread from it, no row sent twice.",
        {"records": records} | asdict(found),
    )


def forced(stage: DeployedStage) -> StepFinding:
    """Force a replay of a table's row, twice under one tag."""
    began = screen.utc(int(stage.clock.now() - stage.pace.settle) - 1)  # the stream's clock may differ
    stage.send("forced", FORCED_TABLE)
    stage.wait_for([stage.event_id("forced")], FORCED_TABLE)
    words = [
        "--yes",
        "--force",
        "--tag",
        stage.run.lower(),
        "--account",
        stage.account,
        "--table",
        FORCED_TABLE,
    ]
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
        "A forced replay sent 1 row again. A second one with the same tag sent none.",
        {"tag": stage.run.lower()},
    )


def redriven_letter(stage: DeployedStage) -> StepFinding:
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
    letters = stage.until(lambda: stage.operate(dead.list_.command, "--account", account))
    if not letters:
        raise Failure("the record of an unknown account did not become a dead letter")
    kinds = [word for kind in ("dead", "parked", "doubt") for word in ("--kind", kind)]
    with stage.repairs.breaking("account", name=account):
        stage.administer(do="change", account=account, fields=Account(stage.database).to_fields())
        # A redrive may keep the row for now, and a scheduled redrive may send it before the next attempt.
        said = stage.until(
            lambda: stage.operate(redrive.command, *kinds, "--account", account),
            lambda said: said["delivered"] == said["selected"],
        )
    if said["delivered"] != said["selected"]:
        raise Failure(f"the redrive did not deliver the row ({letters[0]['reason']}): {said}")
    stage.accepted.add(TABLE, redriven)
    stage.wait_for([redriven])
    if (count := stage.counts()[redriven]) != 1:
        raise Failure(f"a dead letter with one row became {count} rows")
    return StepFinding(
        "A dead letter became a row, and its neighbour did not have to wait.",
        {"dead letter": letters[0]["id"], "reason": letters[0]["reason"], "neighbour's row after s": seconds},
    )
