"""`sluice certify`: how it draws conclusions from its steps, restores what it breaks, and removes a stack.

tests/deploy runs the whole command against a stack in an emulator.
"""

import json
import os
import signal
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgpack
import pytest
from botocore.exceptions import ClientError

from doubles.clock import ManualClock
from doubles.http_server import HttpServer
from doubles.treasure_data import API_KEY, TreasureData
from ops.deploy.certify import request_steps
from ops.deploy.certify.certification import Certification
from ops.deploy.certify.certification_report import (
    PROMISES,
    CertificationReport,
    StepReport,
    StepVerdict,
    conclude,
)
from ops.deploy.certify.opening import check_stage
from ops.deploy.certify.restore import Repairs
from ops.deploy.certify.run import CertifyRun
from ops.deploy.certify.stage import DeployedStage
from ops.deploy.certify.step import CertifyStep, Impossible, StepFinding, Untried
from ops.deploy.certify.steps import STEPS
from ops.deploy.certify.trouble import new_api_key, without_redis
from ops.deploy.td_client import TreasureDataQueries, td_client
from ops.failure import Failure
from ops.stack import Stack
from shared.clock import SystemClock
from worker.rows import compress

PASSED, FAILED = StepVerdict.PASSED, StepVerdict.FAILED
NOT_POSSIBLE, NOT_TRIED = StepVerdict.NOT_POSSIBLE, StepVerdict.NOT_TRIED


def reports(**verdicts: StepVerdict) -> dict[str, StepReport]:
    """Return reports of steps by their verdicts."""
    return {name: StepReport(name, verdict, f"{name} said") for name, verdict in verdicts.items()}


def denied(operation: str) -> ClientError:
    """Return the error that AWS answers with if the caller lacks a permission."""
    return ClientError({"Error": {"Code": "AccessDenied", "Message": "no."}}, operation)


@pytest.mark.parametrize(
    ("verdicts", "together"),
    [
        ({"a": PASSED, "b": PASSED}, PASSED),
        ({"a": PASSED, "b": FAILED}, FAILED),
        ({"a": NOT_TRIED, "b": FAILED}, FAILED),
        ({"a": PASSED, "b": NOT_TRIED}, NOT_TRIED),
        ({"a": NOT_TRIED, "b": NOT_POSSIBLE}, NOT_POSSIBLE),
        ({"a": PASSED}, NOT_TRIED),
    ],
)
def test_a_promise_passes_only_if_all_its_steps_pass(
    verdicts: dict[str, StepVerdict], together: StepVerdict
) -> None:
    """A failed step fails the promise; a step without a verdict leaves it open."""
    assert together == conclude("promise", ("a", "b"), reports(**verdicts)).verdict


def test_a_promise_without_steps_is_not_tried() -> None:
    """Without a step, nothing was proved."""
    assert NOT_TRIED == conclude("promise", (), {}).verdict


def test_a_conclusion_names_the_steps_that_failed() -> None:
    """It quotes what each of them said."""
    found = conclude("promise", ("a", "b"), reports(a=PASSED, b=FAILED))

    assert "b: b said" == found.said


def test_every_promise_has_steps() -> None:
    """Each step names the promises that it supports."""
    assert set(PROMISES) == {number for step in STEPS for number in step.promises}


def a_report(*steps: StepReport, where: str = "AWS") -> CertificationReport:
    """Return a report of steps."""
    found = {one.step: one for one in steps}
    return CertificationReport(
        stack="sluice-dev",
        region="eu-central-1",
        where=where,
        version="1.2.3",
        run="certify-1",
        began="2026-11-26T09:00:00Z",
        ended="2026-11-26T09:30:00Z",
        steps=steps,
        promises=tuple(
            conclude(name, [one.name for one in STEPS if number in one.promises], found)
            for number, name in PROMISES.items()
        ),
        timings={"time to row": "42.0 s"},
    )


def test_a_report_has_each_step_promise_and_measured_time() -> None:
    """Each is one line, with its verdict, its reason and the evidence."""
    steps = [StepReport(one.name, FAILED, "no\nwords", {"ids": ["a", "b"]}, 12.0) for one in STEPS]
    lines = a_report(*steps).markdown().splitlines()

    assert {f"- **{one.name}**: failed (12 s). no words ids: a, b." for one in STEPS} <= set(lines)
    assert "- 4. Accounts are isolated: **failed** (redrive: no words)" in lines
    assert "- time to row: 42.0 s" in lines


def test_a_report_from_an_emulator_says_so() -> None:
    """Nobody can mistake it for a certification on AWS."""
    assert "This run used an emulator" in a_report(where="https://127.0.0.1:4566").markdown()
    assert "emulator" not in a_report().markdown()


def test_a_report_can_be_written_as_json() -> None:
    """Verdicts are plain words."""
    document = json.loads(json.dumps(a_report(StepReport("books", FAILED, "no", {"rows": 1})).document()))

    assert document["failed"] is True
    assert ("failed", {"rows": 1}) == (document["steps"][0]["verdict"], document["steps"][0]["evidence"])


class Lamp:
    """Something to break, and its repair.

    Attributes:
        is_on: whether it is intact.
        failures: how many of the next repairs fail.
        during: called by each repair.
    """

    def __init__(self, failures: int = 0, during: Callable[[], None] = lambda: None) -> None:
        self.is_on = True
        self.failures = failures
        self.during = during
        self.restored: list[str] = []

    def restore(self, how: Mapping[str, str]) -> None:
        """Switch it on."""
        self.during()
        if self.failures:
            self.failures -= 1
            raise denied("SwitchOn")
        self.is_on = True
        self.restored.append(how["name"])

    def by_hand(self, how: Mapping[str, str]) -> str:
        """Return the command."""
        return f"switch on {how['name']}"


class Bench:
    """Repairs of lamps, in a folder."""

    def __init__(self, folder: Path, lamp: Lamp) -> None:
        self.file = folder / "broken.json"
        self.lamp = lamp
        self.said: list[str] = []
        self.clock = ManualClock()

    def repairs(self) -> Repairs:
        """Return the repairs as a new process reads them from disk."""
        return Repairs(self.file, {"lamp": self.lamp}, self.clock, self.said.append)


def break_and_end(bench: Bench, end: BaseException) -> None:
    """Break the lamp, then raise as a step may."""
    with bench.repairs().breaking("lamp", name="desk"):
        assert bench.file.exists()
        bench.lamp.is_on = False
        raise end


@pytest.mark.parametrize("end", [KeyboardInterrupt(), SystemExit(143), Failure("no"), RuntimeError()])
def test_repairs_run_however_a_step_ends(tmp_path: Path, end: BaseException) -> None:
    """After Ctrl-C, SIGTERM, a failure or a bug, the repair is made and nothing is left on disk."""
    bench = Bench(tmp_path, Lamp())
    with pytest.raises(type(end)):
        break_and_end(bench, end)

    assert bench.lamp.is_on
    assert not bench.file.exists()


def test_the_next_run_restores_what_a_killed_run_broke(tmp_path: Path) -> None:
    """A repair is on disk before anything is broken; the last thing broken is restored first."""
    bench = Bench(tmp_path, Lamp())
    killed = bench.repairs()
    outer = killed.breaking("lamp", name="first")
    inner = killed.breaking("lamp", name="second")
    outer.__enter__()
    inner.__enter__()
    bench.lamp.is_on = False

    bench.repairs().restore_all()
    assert (["second", "first"], True) == (bench.lamp.restored, bench.lamp.is_on)
    assert not bench.file.exists()


def test_a_failed_repair_is_retried(tmp_path: Path) -> None:
    """AWS may throttle the call, or a new permission may take effect late."""
    bench = Bench(tmp_path, Lamp(failures=3))
    with bench.repairs().breaking("lamp", name="desk"):
        bench.lamp.is_on = False

    assert bench.lamp.is_on


def test_a_repair_that_keeps_failing_names_the_command_to_run(tmp_path: Path) -> None:
    """The repair stays on disk, so that the next run tries again."""
    bench = Bench(tmp_path, Lamp(failures=99))
    with (
        pytest.raises(Failure, match=r"NOT RESTORED: lamp .*`switch on desk`"),
        bench.repairs().breaking("lamp", name="desk"),
    ):
        bench.lamp.is_on = False
    bench.lamp.failures = 0

    bench.repairs().restore_all()
    assert bench.lamp.is_on


def test_ctrl_c_does_not_stop_a_repair(tmp_path: Path) -> None:
    """It prints that the repair is still running, and continues."""
    bench = Bench(tmp_path, Lamp(during=lambda: os.kill(os.getpid(), signal.SIGINT)))
    with bench.repairs().breaking("lamp", name="desk"):
        bench.lamp.is_on = False

    assert bench.lamp.is_on
    assert "still restoring what was broken, please wait" in bench.said
    assert signal.default_int_handler == signal.getsignal(signal.SIGINT)


class Untouched:
    """A stage that the steps of these tests never use."""

    def __init__(self, run: CertifyRun | None = None) -> None:
        self.clock = ManualClock()
        self.run = run


def a_step(name: str, outcome: BaseException | StepFinding) -> CertifyStep:
    """Return a step with this outcome."""

    def run(_stage: DeployedStage) -> StepFinding:
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    return CertifyStep(name, "proves something", run)


def carried_out(*steps: CertifyStep, run: CertifyRun | None = None) -> Certification:
    """Carry out steps that need no stage."""
    stage: Any = Untouched(run or CertifyRun.new(1_800_000_000))
    certification = Certification(stage, steps, hidden=True)
    certification.carry_out([one.name for one in steps])
    return certification


@pytest.mark.parametrize(
    ("outcome", "verdict"),
    [
        (StepFinding("well", {"n": 1}), PASSED),
        (Failure("wrong"), FAILED),
        (Untried("the emulator cannot"), NOT_TRIED),
        (Impossible("a shared secret"), NOT_POSSIBLE),
        (denied("ModifyUserGroup"), NOT_POSSIBLE),
        (ClientError({"Error": {"Code": "InternalError"}}, "GetAlias"), FAILED),
        (KeyError("a bug"), FAILED),
        (KeyboardInterrupt(), NOT_TRIED),
    ],
)
def test_a_step_has_a_verdict_however_it_ends(
    outcome: BaseException | StepFinding, verdict: StepVerdict
) -> None:
    """A step that could not run is not a failure of the stage."""
    run = CertifyRun.new(1_800_000_000)
    carried_out(a_step("only", outcome), run=run)

    assert verdict == run.reports["only"].verdict


def test_after_ctrl_c_nothing_else_is_tried() -> None:
    """Steps that are already done keep their verdicts."""
    run = CertifyRun.new(1_800_000_000)
    steps = [
        a_step("first", StepFinding("well")),
        a_step("second", KeyboardInterrupt()),
        a_step("third", Failure("never")),
    ]
    certification = carried_out(*steps, run=run)

    assert certification.is_interrupted
    assert [PASSED, NOT_TRIED, NOT_TRIED] == [one.verdict for one in run.reports.values()]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_interrupts_a_step(number: signal.Signals) -> None:
    """SIGTERM and SIGHUP act like Ctrl-C, so that the step restores what it broke."""

    def run(_stage: DeployedStage) -> StepFinding:
        signal.raise_signal(number)
        return StepFinding("not heard")

    assert carried_out(CertifyStep("only", "proves something", run)).is_interrupted


@pytest.mark.parametrize(
    ("breaking", "parameter"), [(new_api_key, "TdApiKeySecretArn"), (without_redis, "RedisUrlSecretArn")]
)
def test_a_shared_secret_is_left_alone(breaking: Any, parameter: str) -> None:
    """A secret outside the stack makes the step impossible."""
    stage: Any = Untouched()
    stage.stack = SimpleNamespace(parameters={parameter: "arn:aws:secretsmanager:…:secret:shared"})

    with pytest.raises(Impossible, match="in a secret outside the stack"), breaking(stage):
        raise AssertionError


@pytest.mark.parametrize(
    ("name", "stage", "even_prod", "refused"),
    [
        ("sluice-prod", "dev", False, True),
        ("ours", "prod", False, True),
        ("sluice-production", "stg", False, True),
        ("products", "dev", False, False),
        ("prod", "prod", True, False),
    ],
)
def test_a_stage_called_prod_is_refused(name: str, stage: str, even_prod: bool, refused: bool) -> None:
    """The parameter or the stack's name decides, before any call to AWS. A name may contain the letters."""
    session: Any = None
    stack = Stack(name, {}, session, parameters={"Stage": stage})
    with pytest.raises(Failure, match="--even-prod") if refused else nullcontext():
        check_stage(stack, ManualClock(), even_prod=even_prod, despite_traffic=True)


def test_a_query_reads_rows_back() -> None:
    """A table that does not exist yet has no rows; a key without permission to query is an error."""
    core = TreasureData()
    with HttpServer(core.handle) as server:

        def counts(key: str) -> Counter[str]:
            queries = TreasureDataQueries(td_client(server.url, server.url, key), SystemClock(), "shop")
            return queries.counts("views", "run-", 0, 2_000_000_000)

        assert {} == counts(API_KEY)
        core.create("shop", "views")
        assert {} == counts(API_KEY)
        rows = b"".join(msgpack.packb({"time": 1_800_000_000, "event_id": one}) for one in ("run-1", "x"))
        td_client(server.url, server.url, API_KEY).send("shop", "views", "0" * 32, compress(rows), 10)
        assert {"run-1": 1} == counts(API_KEY)
        with pytest.raises(Failure, match="may not query"):
            counts("1/unknown")


def test_dialect_names_are_unique() -> None:
    """Each name is part of an event's id."""
    found = list(request_steps.dialects("shop", "key", lambda name: f"run-{name}"))

    assert len(found) == len({one.name for one in found})
    assert all("run-" in f"{one.target}{one.body!r}" or "data=" in one.target for one in found)


def test_step_names_are_unique() -> None:
    """`--only` selects steps by name."""
    assert len(STEPS) == len({one.name for one in STEPS})
