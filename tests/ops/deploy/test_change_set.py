"""A change set: what it asks of CloudFormation, and what it says of the end."""

from types import SimpleNamespace
from typing import Any

import pytest

from doubles.clock import ManualClock
from ops.deploy.certify.stage import EMULATED
from ops.deploy.certify.trouble import repairs_of
from ops.deploy.change_set import ChangeSet
from ops.failure import Failure
from tests.support.modelled import DEPLOYED, Modelled


def deploy(aws: Modelled, *earlier: Any, **parameters: str) -> None:
    """Deploy a change, named `c`, of the stack `sluice-dev`, perhaps with an earlier template's URL and what parameters that knows."""
    change = ChangeSet(aws("cloudformation"), "sluice-dev", ManualClock(), 0.001)
    change.deploy("c", parameters, *earlier)


def described(status: str, **parameters: str) -> dict[str, Any]:
    """Return the answers about a stack in this status."""
    given = [{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()]
    return DEPLOYED | {"DescribeStacks": {"Stacks": [{"StackStatus": status, "Parameters": given}]}}


def test_a_change_keeps_every_other_parameter_that_the_template_has() -> None:
    """It keeps the template, too, unless it is to an earlier version, which may lack one: CloudFormation would reject that."""
    aws = Modelled(described("UPDATE_COMPLETE", LogLevel="INFO", Stage="dev"))
    newer = Modelled(described("UPDATE_COMPLETE", Newer="on", Stage="dev"))
    kept = {"ParameterKey": "Stage", "UsePreviousValue": True}

    deploy(aws, LogLevel="WARN")
    asked = dict(aws.asked)["CreateChangeSet"]
    assert (True, "UPDATE") == (asked["UsePreviousTemplate"], asked["ChangeSetType"])
    assert [{"ParameterKey": "LogLevel", "ParameterValue": "WARN"}, kept] == asked["Parameters"]
    deploy(newer, "https://bucket.example/earlier", ["LogLevel", "Stage"])
    assert [kept] == dict(newer.asked)["CreateChangeSet"]["Parameters"]


def test_a_certification_restores_a_parameter_once_the_deploy_has_ended() -> None:
    """Ctrl-C may have stopped it during the deploy. CloudFormation rejects a change until it has cleaned up after the last one."""
    statuses = ("UPDATE_IN_PROGRESS", "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS", "UPDATE_COMPLETE")
    stacks = [described(one, LogLevel="WARN")["DescribeStacks"] for one in statuses]
    aws = Modelled(DEPLOYED | {"DescribeStacks": stacks})
    stack: Any = SimpleNamespace(client=aws, name="sluice-dev")
    repairs_of(stack, ManualClock(), EMULATED)["parameter"].restore({"name": "LogLevel", "value": "INFO"})

    asked = [name for name, _ in aws.asked]
    assert len(statuses) <= asked.index("CreateChangeSet")


def test_a_rolled_back_change_says_why() -> None:
    """The message names the first resource that failed, not one that failed in an earlier change."""
    members = ("LogicalResourceId", "ResourceStatusReason", "ClientRequestToken")
    failed = [("WorkerFunction", "cancelled", "c"), ("IngestFunction", "no such runtime", "c")]
    failed += [("Stream", "limit exceeded", "b")]
    events = [dict(zip(members, one, strict=True), ResourceStatus="UPDATE_FAILED") for one in failed]
    answers = described("UPDATE_ROLLBACK_COMPLETE") | {"DescribeStackEvents": {"StackEvents": events}}

    with pytest.raises(Failure, match="IngestFunction: no such runtime"):
        deploy(Modelled(answers))


@pytest.mark.parametrize("said", ["The submitted information didn't contain changes.", "no such thing"])
def test_a_change_without_effect_is_not_deployed(said: str) -> None:
    """CloudFormation reports an empty change set as failed, as it does a wrong one, whose reason the message has."""
    failed = {"DescribeChangeSet": {"Status": "FAILED", "StatusReason": said}, "DeleteChangeSet": {}}
    aws = Modelled(described("UPDATE_COMPLETE") | failed)
    if "didn't contain" in said:
        deploy(aws)
    else:
        with pytest.raises(Failure, match="rejects the change of sluice-dev: no such thing"):
            deploy(aws)
    assert "ExecuteChangeSet" not in dict(aws.asked)
