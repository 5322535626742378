"""The books of a run: compares what was accepted with Treasure Data and with the ledger."""

from collections.abc import Mapping
from operator import not_
from typing import Any

from ops import screen
from ops.commands import status
from ops.deploy.certify.stage import TABLE, DeployedStage
from ops.deploy.certify.step import StepFinding
from ops.failure import Failure


def books(stage: DeployedStage) -> StepFinding:
    """Compare everything that was accepted with Treasure Data, and with the ledger's own sums."""
    balance = settled(stage)
    if wrong := stage.until(lambda: _differing(stage), not_):
        some = ", ".join(f"{one}: {said}" for one, said in list(wrong.items())[:5])
        raise Failure(
            f"Treasure Data does not have what was accepted: {len(wrong)} events differ, such as {some}"
        )
    ours = [one for one in balance["tables"] if one["table"].startswith(TABLE)]
    return StepFinding(
        f"{stage.accepted.requests} requests, {stage.accepted.rows()} rows expected, and Treasure Data has exactly these.",
        {
            "received": sum(one["received"] for one in ours),
            "delivered": sum(one["delivered"] for one in ours),
            "spans": balance["spans"],
        },
    )


def _differing(stage: DeployedStage) -> dict[str, str]:
    """Return the events whose number of rows in Treasure Data is wrong, each with a description."""
    wrong: dict[str, str] = {}
    for table, copies in stage.accepted.copies.items():
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
        raise Failure("the books do not balance: see `sluice status --since`")
    if not is_settled(balance):
        raise Failure("some records are still on the stream, in the queue or being delivered")
    return balance


def since(stage: DeployedStage) -> str:
    """Return when the run began, as an option's value."""
    return screen.utc(int(stage.began) - 1)
