"""The local stack reads the same values from the template as AWS does."""

import pytest

from local.functions import FUNCTIONS, event_source, variables
from local.resources import Resources
from tests.support import sam
from tests.support.modes import Mode

RESOURCES = Resources(endpoint="http://127.0.0.1:1", queue_url="http://127.0.0.1:1/queue")


def test_every_function_is_found() -> None:
    """The local stack runs all functions of the transformed template."""
    assert sam.resources("AWS::Lambda::Function").keys() == FUNCTIONS.keys()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_has_the_limits_and_variables_of_a_deployed_one(name: str) -> None:
    """Handler, limits and variable names match the transformed template."""
    function, deployed = FUNCTIONS[name], sam.properties(name)

    assert deployed["Handler"] == function.handler
    assert deployed["Timeout"] == function.timeout
    assert deployed["MemorySize"] == function.memory
    named = Mode({}).properties(name)["Environment"]["Variables"]
    assert named.keys() == variables(function, RESOURCES, {}).keys()


def test_the_local_event_source_matches_the_template() -> None:
    """It uses the template's batch size and response type."""
    source = event_source(FUNCTIONS["WorkerFunction"], "Stream", RESOURCES)

    assert RESOURCES.stream_arn == source["Stream"]
    assert sam.properties("WorkerFunctionStream")["BatchSize"] == source["BatchSize"]
    assert ["ReportBatchItemFailures"] == source["FunctionResponseTypes"]
