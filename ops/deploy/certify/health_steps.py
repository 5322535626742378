"""The steps that check the stage's health: the doctor, the cache, and Treasure Data's undocumented limits."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Any

import msgpack

from ops import screen
from ops.commands import doctor
from ops.deploy.certify.stage import DeployedStage
from ops.deploy.certify.step import Impossible, StepFinding, Untried
from ops.failure import Failure
from worker.deadline import Deadline
from worker.rows import compress
from worker.states import DEFAULT_MEMORY_SECONDS, Event, Presence

_MEASURE_TABLE = "sluice_measure"
_SEND_SECONDS = 15.0
_ASK_SECONDS = 40.0
_IMPORTED = "imported at"
"""The evidence of when an id was first used, UNIX seconds."""


def well(stage: DeployedStage) -> StepFinding:
    """Run `sluice doctor`."""
    found = diagnoses(stage, lambda faulty: not faulty)
    if faulty := faults(stage, found):
        raise Failure("; ".join(faulty.values()))
    return StepFinding("No fault.", {one["what"]: one["said"] or one["state"] for one in found})


def diagnoses(
    stage: DeployedStage, is_right: Callable[[Mapping[str, str]], bool]
) -> Sequence[Mapping[str, str]]:
    """Return the doctor's findings. If its faults are not the expected ones, run it once more and return those."""
    return stage.until(
        lambda: stage.operate(doctor.command, "--no-event", "--account", stage.account)["findings"],
        lambda found: is_right(faults(stage, found)),
        seconds=0,
    )


def faults(stage: DeployedStage, found: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Return the faults among the doctor's findings: their messages by name."""
    # An emulator's API has an address that DNS cannot resolve.
    local = ("API", "write key") if stage.is_emulated else ()
    return {
        one["fault"] or one["what"]: f"{one['what']}: {one['said']}"
        for one in found
        if one["state"] == "fault" and one["what"] not in local
    }


def visibility(stage: DeployedStage) -> StepFinding:
    """Import a row, measure how soon a query sees it, and compare that with what the worker assumes."""
    began = _imported(stage, "first", "first")
    is_seen = stage.until(lambda: _is_shown(stage, "first"))
    seconds = stage.clock.now() - began
    delay = 60 * stage.administer(do="check")["assumed"]["query_delay_minutes"]
    said = f"Queries {'see' if is_seen else 'did not see'} a new row after {screen.lasting(seconds)}; the worker waits {screen.lasting(delay)}"
    if not is_seen or seconds > delay:
        raise Failure(f"{said}: raise TdQueryDelayMinutes")
    stage.timings["visible latency of an import"] = f"{seconds:.0f} s"
    return StepFinding(f"{said}.", {_IMPORTED: began})


def memory(stage: DeployedStage) -> StepFinding:
    """Repeat the id of the step `visibility` once it is as old as the worker relies on. No query must see the second row."""
    before = stage.reports.get("visibility")
    if before is None or _IMPORTED not in before.evidence:
        raise Untried("the step `visibility` sends the first row")
    relied = 60 * stage.administer(do="check")["assumed"]["memory_minutes"]
    if not stage.is_emulated:
        stage.clock.sleep(max(0.0, before.evidence[_IMPORTED] + relied - stage.clock.now()))
    age = screen.lasting(_imported(stage, "second", "first") - before.evidence[_IMPORTED])
    _imported(stage, "third", "third")  # once it is seen, the second one would be
    if not stage.until(lambda: _is_shown(stage, "third")):
        raise Failure("queries did not see a new row in time")
    stage.clock.sleep(stage.pace.settle)
    is_new = stage.until(lambda: _is_shown(stage, "second"), lambda shown: shown is not None)
    if is_new is not False:
        when = " while no rows wait" if relied > DEFAULT_MEMORY_SECONDS else ""
        said = f"has forgotten an id after {age}: lower TdMemoryMinutes{when}, or rows may be duplicated"
        raise Failure(f"Treasure Data {said if is_new else 'did not answer a query in time'}")
    return StepFinding(
        f"Treasure Data remembers an id for {age}; the worker relies on {screen.lasting(relied)}."
    )


def _imported(stage: DeployedStage, name: str, of_id: str) -> float:
    """Import a row under an id; return when, UNIX seconds."""
    td, database = stage.queries.client, stage.database
    unique_id = sha256(f"sluice measures by {stage.run}-{of_id}".encode()).hexdigest()[:32]
    arguments = (
        database,
        _MEASURE_TABLE,
        unique_id,
        compress(msgpack.packb(_row(stage, name))),
        _SEND_SECONDS,
    )
    outcome = td.send(*arguments)
    if outcome.lacks_table:
        if td.create_table(database, _MEASURE_TABLE, _SEND_SECONDS).lacks_table:
            td.create_database(database, _SEND_SECONDS)
            td.create_table(database, _MEASURE_TABLE, _SEND_SECONDS)
        outcome = td.send(*arguments)
    if outcome.event is not Event.ACCEPTED:
        raise Failure(f"Treasure Data did not accept a test row ({outcome.reason})")
    return stage.clock.now()


def _is_shown(stage: DeployedStage, name: str) -> bool | None:
    """Return whether a query, as the worker runs it, sees a row; None if that cannot be told now."""
    deadline = Deadline(stage.clock, stage.clock.now() + _ASK_SECONDS)
    rows = [[_row(stage, name)]]
    [presence] = stage.queries.client.ask(stage.database, _MEASURE_TABLE, rows, deadline)
    if presence is Presence.UNASKABLE:
        raise Impossible("the API key may not query")
    return None if presence is Presence.UNDECIDED else presence is Presence.PRESENT


def _row(stage: DeployedStage, name: str) -> dict[str, Any]:
    time = int(stage.began)
    return {"time": time, "event_id": f"sluice-measure-{stage.run}-{name}", "received_at": time * 1000}


def resp(stage: DeployedStage) -> StepFinding:
    """Read accounts through the functions' own client, over a new connection."""
    with stage.repairs.breaking("sandboxes", output="AdminFunction"):
        stage.restart("AdminFunction")
        redis = stage.until(
            lambda: stage.administer(do="check")["redis"], lambda redis: "error" not in redis, seconds=0
        )
        again = stage.administer(do="check")["redis"]
    if "error" in redis:
        raise Failure(str(redis["message"]))
    stage.timings["Redis, first contact"] = f"{redis['seconds']:.2f} s"
    return StepFinding(
        f"Redis answers a new connection with RESP version 2, after {redis['seconds']:.2f} s (the functions allow 3 s).",
        {
            "accounts": len(redis["accounts"]),
            "seconds": redis["seconds"],
            "seconds on an open connection": again.get("seconds"),
        },
    )
