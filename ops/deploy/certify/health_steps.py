"""The steps that check the stage's health: the doctor, the cache, and how soon queries see a row."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from uuid import uuid4

from ops.commands import doctor
from ops.deploy.certify.stage import DeployedStage
from ops.deploy.certify.step import StepFinding
from ops.failure import Failure
from ops.state.measurement import Measurement, measured


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
    """Measure how soon a query sees an import, and compare it with what the worker assumes."""
    mark, first_ask = uuid4().hex[:12], min(5.0, stage.pace.poll)
    measurement = Measurement(
        stage.administer, stage.clock, stage.database, mark, lambda _: None, first_ask=first_ask
    )
    found = measurement.run(())
    delay = measured(found, stage.administer(do="check")["assumed"])[0]
    if delay.state != "ok":
        raise Failure(delay.said)
    stage.run.timings["visible latency of an import"] = f"{found.hidden:.0f} to {found.shown:.0f} s"
    return StepFinding(f"{delay.said}.")


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
    stage.run.timings["Redis, first contact"] = f"{redis['seconds']:.2f} s"
    return StepFinding(
        f"Redis answers a new connection with RESP version 2, after {redis['seconds']:.2f} s (the functions allow 3 s).",
        {
            "accounts": len(redis["accounts"]),
            "seconds": redis["seconds"],
            "seconds on an open connection": again.get("seconds"),
        },
    )
