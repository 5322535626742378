"""`sluice certify`: its conclusions, what it restores and removes; tests/deploy runs the whole command in an emulator."""

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

from doubles.aws_errors import client_error
from doubles.clock import ManualClock
from doubles.http_server import HttpServer
from doubles.treasure_data import API_KEY, TreasureData
from ops.deploy.certify import request_steps
from ops.deploy.certify.certification import carry_out
from ops.deploy.certify.certification_report import (
    PROMISES,
    CertificationReport,
    StepReport,
    StepVerdict,
    conclude,
)
from ops.deploy.certify.opening import check_stage
from ops.deploy.certify.restore import Repair, Repairs
from ops.deploy.certify.stage import DeployedStage
from ops.deploy.certify.step import CertifyStep, Impossible, StepFinding, Untried
from ops.deploy.certify.steps import STEPS
from ops.deploy.td_client import TreasureDataQueries, td_client
from ops.failure import Failure
from ops.stack import Stack
from shared.clock import SystemClock
from worker.rows import compress

PASSED, FAILED = StepVerdict.PASSED, StepVerdict.FAILED
NOT_POSSIBLE, NOT_TRIED = StepVerdict.NOT_POSSIBLE, StepVerdict.NOT_TRIED


@pytest.mark.parametrize(
    ("verdicts", "together", "said"),
    [
        ({"a": PASSED, "b": PASSED}, PASSED, ""),
        ({"a": PASSED, "b": FAILED}, FAILED, "b: b said"),
        ({"a": NOT_TRIED, "b": FAILED}, FAILED, "b: b said"),
        ({"a": PASSED, "b": NOT_TRIED}, NOT_TRIED, "b: b said"),
        ({"a": NOT_TRIED, "b": NOT_POSSIBLE}, NOT_POSSIBLE, "b: b said"),
        ({"a": PASSED, "b": None}, NOT_TRIED, "b: not selected"),
        ({}, NOT_TRIED, "no step"),
    ],
)
def test_a_promise_passes_only_if_all_its_steps_pass(
    verdicts: dict[str, StepVerdict | None], together: StepVerdict, said: str
) -> None:
    """A failed step fails the promise; a step without a verdict leaves it open. The conclusion quotes them."""
    reports = {name: StepReport(name, one, f"{name} said") for name, one in verdicts.items() if one}
    found = conclude("promise", tuple(verdicts), reports)

    assert (together, said) == (found.verdict, found.said)


def a_report(where: str = "AWS") -> CertificationReport:
    """Return a report in which every step has failed."""
    steps = {one.name: StepReport(one.name, FAILED, "no\nwords", {"ids": ["a", "b"]}, 12.0) for one in STEPS}
    return CertificationReport(
        stack="sluice-dev",
        region="eu-central-1",
        where=where,
        version="1.2.3",
        run="certify-1",
        began="2026-11-26T09:00:00Z",
        ended="2026-11-26T09:30:00Z",
        steps=tuple(steps.values()),
        promises=tuple(
            conclude(name, [one.name for one in STEPS if number in one.promises], steps)
            for number, name in PROMISES.items()
        ),
        timings={"time to row": "42.0 s"},
    )


def test_a_report_has_each_step_promise_and_measured_time() -> None:
    """Each is one line, with its verdict, its reason and the evidence. Nobody mistakes a run in an emulator for one on AWS."""
    report = a_report()
    lines = report.markdown().splitlines()
    document = json.loads(json.dumps(report.document()))

    assert {f"- **{one.name}**: failed (12 s). no words ids: a, b." for one in STEPS} <= set(lines)
    assert "- 4. Accounts are isolated: **failed** (redrive: no words)" in lines
    assert "- time to row: 42.0 s" in lines
    assert "emulator" not in report.markdown()
    assert "This run used an emulator" in a_report("https://127.0.0.1:4566").markdown()
    assert (True, "failed") == (document["failed"], document["steps"][0]["verdict"])
    assert {"ids": ["a", "b"]} == document["steps"][0]["evidence"]


class Bench:
    """Lamps to break, in a folder. So many of the next repairs fail; each calls `during`."""

    def __init__(self, folder: Path, failures: int = 0, during: Callable[[], None] = lambda: None) -> None:
        self.file = folder / "broken.json"
        self.is_on = True
        self.failures = failures
        self.during = during
        self.restored: list[str] = []

    def repairs(self) -> Repairs:
        """Return the repairs as a new process reads them from disk."""
        lamp = Repair(self._restore, lambda how: f"switch on {how['name']}")
        return Repairs(self.file, {"lamp": lamp}, ManualClock(), "--stack sluice-dev")

    def _restore(self, how: Mapping[str, str]) -> None:
        self.during()
        if self.failures:
            self.failures -= 1
            raise client_error("AccessDenied", "SwitchOn")
        self.is_on = True
        self.restored.append(how["name"])

    def break_one(self, end: BaseException | None = None) -> None:
        """Break a lamp, then end as a step may."""
        with self.repairs().breaking("lamp", name="desk"):
            assert self.file.exists()
            self.is_on = False
            if end is not None:
                raise end


@pytest.mark.parametrize("end", [KeyboardInterrupt(), SystemExit(143), Failure("no"), RuntimeError()])
def test_repairs_run_however_a_step_ends(tmp_path: Path, end: BaseException) -> None:
    """After Ctrl-C, SIGTERM, a failure or a bug, and if AWS throttles the repair: nothing is left broken, or on disk."""
    bench = Bench(tmp_path, failures=3)
    with pytest.raises(type(end)):
        bench.break_one(end)

    assert bench.is_on
    assert not bench.file.exists()


def test_the_next_run_restores_what_is_broken(tmp_path: Path) -> None:
    """By a repair that keeps failing, which names the command to run, and by a run that is killed: the last thing broken comes first."""
    bench = Bench(tmp_path, failures=99)
    with pytest.raises(Failure, match=r"NOT RESTORED: lamp .*`switch on desk`"):
        bench.break_one()
    bench.failures = 0
    killed = bench.repairs()
    opened = [killed.breaking("lamp", name=name) for name in ("first", "second")]
    for one in opened:
        one.__enter__()

    bench.repairs().restore_all()
    assert (["second", "first", "desk"], True) == (bench.restored, bench.is_on)
    assert not bench.file.exists()


def test_ctrl_c_does_not_stop_a_repair(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It prints that the repair is still running, and continues."""
    bench = Bench(tmp_path, during=lambda: os.kill(os.getpid(), signal.SIGINT))
    bench.break_one()

    assert bench.is_on
    assert "still restoring what was broken, please wait" in capsys.readouterr().err
    assert signal.default_int_handler == signal.getsignal(signal.SIGINT)


@pytest.mark.parametrize(
    ("outcome", "verdict"),
    [
        (StepFinding("well", {"n": 1}), PASSED),
        (Failure("wrong"), FAILED),
        (Untried("the emulator cannot"), NOT_TRIED),
        (Impossible("a shared secret"), NOT_POSSIBLE),
        (client_error("AccessDenied", "ModifyUserGroup"), NOT_POSSIBLE),
        (client_error("InternalError", "GetAlias"), FAILED),
        (KeyError("a bug"), FAILED),
        (KeyboardInterrupt(), NOT_TRIED),
        *((one, NOT_TRIED) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)),
    ],
)
def test_a_step_has_a_verdict_however_it_ends(
    outcome: BaseException | StepFinding | signal.Signals, verdict: StepVerdict
) -> None:
    """A step that could not run is not a failure of the stage. After Ctrl-C or a signal nothing else is tried."""

    def second(_stage: DeployedStage) -> StepFinding:
        if isinstance(outcome, StepFinding):
            return outcome
        if isinstance(outcome, BaseException):
            raise outcome
        signal.raise_signal(outcome)
        return StepFinding("not heard")

    def third(_stage: DeployedStage) -> StepFinding:
        raise Failure("no")

    stage: Any = SimpleNamespace(clock=ManualClock(), reports={})
    outcomes = {"first": lambda _: StepFinding("well"), "second": second, "third": third}
    steps = [CertifyStep(name, "proves something", one) for name, one in outcomes.items()]
    is_interrupted = isinstance(outcome, signal.Signals | KeyboardInterrupt)

    assert is_interrupted == carry_out(stage, steps, hidden=True)
    last = NOT_TRIED if is_interrupted else FAILED
    assert [PASSED, verdict, last] == [one.verdict for one in stage.reports.values()]


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


def test_steps_and_dialects_have_names_of_their_own() -> None:
    """`--only` selects steps by name, each promise has some, and a dialect's name is part of its event's id."""
    found = list(request_steps.dialects("shop", "key", lambda name: f"run-{name}"))

    assert set(PROMISES) == {number for step in STEPS for number in step.promises}
    assert len(STEPS) == len({one.name for one in STEPS})
    assert len(found) == len({one.name for one in found})
    assert all("run-" in f"{one.target}{one.body!r}" or "data=" in one.target for one in found)
