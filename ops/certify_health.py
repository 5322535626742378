"""The steps that ask the stage how it is: the doctor, the cache, and how soon Treasure Data's queries see a row."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from uuid import uuid4

from ops import doctor, screen
from ops.certify_stage import DeployedStage
from ops.certify_step import StepFinding
from ops.failure import Failure
from ops.measure import Measurement


def well(stage: DeployedStage) -> StepFinding:
    """Have the doctor look."""
    found = diagnoses(stage, lambda faulty: not faulty)
    if faulty := faults(stage, found):
        raise Failure("; ".join(f"{what}: {said}" for what, said in faulty.items()))
    return StepFinding("No fault.", {one["what"]: one["said"] or one["state"] for one in found})


def diagnoses(
    stage: DeployedStage, is_right: Callable[[Mapping[str, str]], bool]
) -> Sequence[Mapping[str, str]]:
    """Return what the doctor finds; if its faults are not those that are right, what it finds at a second look."""
    return stage.until(
        lambda: stage.operate(doctor.command, "--no-event", "--account", stage.account)["findings"],
        lambda found: is_right(faults(stage, found)),
        seconds=0,
    )


def faults(stage: DeployedStage, found: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Return what is at fault, with what the doctor says of it."""
    # An emulator's API has an address that no name server knows.
    local = ("API", "write key") if stage.is_emulated else ()
    return {one["what"]: one["said"] for one in found if one["state"] == "fault" and one["what"] not in local}


def visibility(stage: DeployedStage) -> StepFinding:
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


def resp(stage: DeployedStage) -> StepFinding:
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
