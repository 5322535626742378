"""What a team gets once its stack works."""

from typing import Any

import boto3
import pytest
from click.testing import CliRunner

from ops.deploy import handover
from ops.stack import Stack

REGION = "eu-central-1"


def stack_of(stage: str) -> Stack:
    """Return a stack of a stage."""
    session = boto3.Session(aws_access_key_id="key", aws_secret_access_key="secret", region_name=REGION)
    return Stack(f"sluice-{stage}", {}, session, parameters={"Stage": stage})


def offered(stage: str, answer: str) -> str:
    """Answer the offer of a certification, and return what was asked."""
    with CliRunner(mix_stderr=False).isolation(input=answer) as (_, errors, *_more):
        handover.offer_certification(stack_of(stage))
        asked: Any = errors
        return str(asked.getvalue().decode())


def test_a_certification_is_offered_but_not_run_unless_wanted() -> None:
    """It takes an hour, so the default is no."""
    assert "Test every promise on this stage now?" in offered("dev", "\n")


def test_no_certification_is_offered_for_prod() -> None:
    """It would replace the API key and cut off Redis."""
    assert "" == offered("prod", "")


@pytest.mark.parametrize("parameters", [{}, {"Network": "external"}])
def test_the_cost_is_shown_idle_expected_and_at_worst(parameters: dict[str, str]) -> None:
    """The parameters count: without the managed Redis, a stack without traffic costs less."""
    found = handover.monthly_cost(parameters, REGION)
    default = handover.monthly_cost({}, REGION)

    assert found is not None
    assert default is not None
    assert found["idle"] < found["expected"] < found["worst"]
    assert ("Network" in parameters) == (found["idle"] < default["idle"])
    assert f"${found['idle']:,.0f} a month without traffic" in handover.cost_line(parameters, REGION)


def test_a_region_without_prices_is_said_so() -> None:
    """The line names the command that shows another region's."""
    assert handover.monthly_cost({}, "mars-1") is None
    assert "`sluice cost --events 10M --region us-east-1`" in handover.cost_line({}, "mars-1")


def test_the_removal_names_stack_and_region() -> None:
    """It can be copied."""
    assert f"sluice remove --stack sluice-dev --region {REGION}" == handover.removal(stack_of("dev"))
