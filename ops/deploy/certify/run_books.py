"""The books of a run: compares what was accepted with Treasure Data and with the ledger."""

from collections.abc import Mapping
from operator import not_
from typing import Any

from ops import screen
from ops.books import planned_spans
from ops.commands import status
from ops.deploy.certify.stage import TABLE, DeployedStage
from ops.deploy.certify.step import StepFinding
from ops.failure import Failure


def books(stage: DeployedStage) -> StepFinding:
    """Compare everything that was accepted with Treasure Data, with S3, and with the ledger's own sums."""
    balance = settled(stage)
    if wrong := stage.until(lambda: _differing(stage), not_):
        some = ", ".join(f"{one}: {said}" for one, said in list(wrong.items())[:5])
        raise Failure(
            f"Treasure Data does not have what was accepted: {len(wrong)} events differ, such as {some}"
        )
    spans = _check_s3(stage)
    ours = [one for one in balance["tables"] if one["table"].startswith(TABLE)]
    rows = sum(one.total() for one in stage.copies.values())
    return StepFinding(
        f"{rows} rows expected, and Treasure Data has exactly these.",
        {
            "received": sum(one["received"] for one in ours),
            "delivered": sum(one["delivered"] for one in ours),
            "spans": spans,
        },
    )


def _check_s3(stage: DeployedStage) -> int:
    """Check that S3 has every event of the run, and return in how many spans."""
    objects, margin = stage.stack.objects(), stage.pace.settle + 1
    begin, end = stage.began - margin, stage.clock.now() + margin
    read, spans = b"", 0
    for span in planned_spans.spans(stage.stack.ledger(), objects, begin, end):
        ours = [
            key
            for key in span.chunks
            if (key.account == stage.account or key.account.startswith(TABLE)) and not key.group.is_rejected
        ]
        read += b"".join(objects.payload(span, key) for key in ours)
        spans += bool(ours)
    accepted = [one for copies in stage.copies.values() for one in copies]
    if lost := [one for one in accepted if one.encode() not in read]:
        raise Failure(f"S3 does not have {len(lost)} of {len(accepted)} events, such as {lost[0]}")
    return spans


def _differing(stage: DeployedStage) -> dict[str, str]:
    """Return the events whose number of rows in Treasure Data is wrong, each with a description."""
    wrong: dict[str, str] = {}
    for table, copies in stage.copies.items():
        counts = stage.counts(table)
        wrong |= {one: f"{counts[one]} of {count}" for one, count in copies.items() if counts[one] != count}
        wrong |= {one: f"{count} unexpected" for one, count in counts.items() if one not in copies}
    return wrong


def settled(stage: DeployedStage) -> dict[str, Any]:
    """Wait until everything is settled, and return the books of the run. A row may be in Treasure Data before the ledger says so.

    Raises:
        Failure: they do not balance, or something is not settled in time.
    """

    def is_settled(balance: Mapping[str, Any]) -> bool:
        in_flight = sum(one["in_flight"] for one in balance["tables"] if one["table"].startswith(TABLE))
        return balance["adds_up"] and not (
            balance["unread_records"] + balance["queued_envelopes"] + in_flight
        )

    balance: dict[str, Any] = stage.until(
        lambda: stage.operate(status.command, "--since", since(stage))["balance"], is_settled
    )
    if not balance["adds_up"]:
        raise Failure(
            f"the books do not balance: see `sluice status {stage.stack.option} --since {since(stage)}`"
        )
    if not is_settled(balance):
        raise Failure("some records are still on the stream, in the queue or being delivered")
    return balance


def since(stage: DeployedStage) -> str:
    """Return when the run began, as an option's value."""
    return screen.utc(int(stage.began) - 1)
