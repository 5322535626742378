"""What a team gets once its stack works."""

from typing import Any

import boto3
import pytest
from click.testing import CliRunner

from ops.deploy import handover
from ops.stack import Stack


@pytest.mark.parametrize(("stage", "said"), [("dev", "Test every promise on this stage now?"), ("prod", "")])
def test_a_certification_is_offered_but_not_run_unless_wanted(stage: str, said: str) -> None:
    """It takes an hour, so the default is no. In prod, it would replace the API key and cut off Redis."""
    session = boto3.Session("key", "secret", region_name="eu-central-1")
    with CliRunner(mix_stderr=False).isolation(input="\n") as (_, errors, *_more):
        handover.offer_certification(Stack(f"sluice-{stage}", {}, session, parameters={"Stage": stage}))
        asked: Any = errors

        assert said in asked.getvalue().decode()
        assert (not said) == (asked.getvalue() == b"")
