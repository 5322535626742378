"""The local stack reads the same values from the template as AWS does."""

import pytest

from local.functions import FUNCTIONS, event_source, treasure_data_at, variables
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


@pytest.mark.parametrize("name", FUNCTIONS)
def test_variables_refer_to_the_local_resources(name: str) -> None:
    """A variable that refers to a resource or parameter has the local resource's name or the parameter's value."""
    deployed = sam.properties(name)["Environment"]["Variables"]
    found = variables(FUNCTIONS[name], RESOURCES, {"Stage": "here", **treasure_data_at("http://td")})
    by_reference = {str(value): found[key] for key, value in deployed.items() if key in found}

    assert "here" == by_reference["{'Ref': 'Stage'}"]
    assert RESOURCES.stream == by_reference["{'Ref': 'Stream'}"]
    if name == "ScaleFunction":
        return
    assert RESOURCES.queue_url == by_reference["{'Ref': 'OverflowQueue'}"]
    if name == "IngestFunction":
        assert RESOURCES.write_key_secret == by_reference["{'Fn::GetAtt': ['WriteKeySecret', 'Id']}"]
    else:
        assert RESOURCES.ledger_table == by_reference["{'Ref': 'Ledger'}"]
        assert {"http://td"} == {found["TD_API_ENDPOINT"], found["TD_IMPORT_ENDPOINT"]}
        assert {RESOURCES.redis_url_secret, RESOURCES.td_api_key_secret} <= set(found.values())


def test_the_local_event_source_matches_the_template() -> None:
    """It uses the template's batch size and response type."""
    source = event_source(FUNCTIONS["WorkerFunction"], "Stream", RESOURCES)

    assert RESOURCES.stream_arn == source["Stream"]
    assert sam.properties("WorkerFunctionStream")["BatchSize"] == source["BatchSize"]
    assert ["ReportBatchItemFailures"] == source["FunctionResponseTypes"]
