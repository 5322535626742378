"""`sluice certify` on a stack in an AWS emulator, from the first step to the report."""

import json
import re
from pathlib import Path

import pytest

from ops.deploy.certify.steps import STEPS
from tests.support.emulation import Stack

pytestmark = pytest.mark.xdist_group("deploy")

ONLY_AWS = {"gzip"} | {one.name for one in STEPS if one.lacks}
RESTARTED = ("WorkerFunction", "SenderFunction", "AdminFunction")


def test_every_step_that_works_on_an_emulator_passes(stack: Stack, tmp_path: Path) -> None:
    """The other steps are reported as not tried. Every promise passes, and the stack's settings are restored."""
    stack.map_account("shop")
    before = [stack.variables(name) for name in RESTARTED]
    code, said, errors = stack.certify("--account", "shop", "--despite-traffic", "--json", folder=tmp_path)
    report = json.loads(said)
    verdicts = {one["step"]: one["verdict"] for one in report["steps"]}
    failed = {one["step"]: one["said"] for one in report["steps"] if one["verdict"] == "failed"}
    page = next(tmp_path.glob("*.md")).read_text()

    assert {} == failed, errors
    assert {one.name: "not tried" if one.name in ONLY_AWS else "passed" for one in STEPS} == verdicts, said
    assert 0 == code, errors
    assert ["passed"] * 7 == [one["verdict"] for one in report["promises"]]
    assert [] == list(tmp_path.rglob("*.broken.json"))
    assert "This run used an emulator" in page
    assert before == [stack.variables(name) for name in RESTARTED]


def test_certify_refuses_a_stage_with_other_traffic(stack: Stack, tmp_path: Path) -> None:
    """It stops before it sends events or breaks anything."""
    assert 200 == stack.send_pixel("shop", "foreign_traffic", "/")[0]
    code, _, errors = stack.certify(folder=tmp_path)

    assert 1 == code
    assert re.search("received events of the account [a-z]+ in the last hour", errors)  # of any earlier test
    assert [] == list(tmp_path.iterdir())
    # Another test may put a wrong key, and a worker that starts for this row just then would keep that key for a minute.
    assert stack.destination.rows("shop", "foreign_traffic")
