"""What a team gets once its stack works."""

from typing import Any

import boto3
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
