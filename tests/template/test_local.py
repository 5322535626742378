"""The local stack stands on the same things as a deployed one."""

from typing import Any

import pytest

from local import functions, resources
from local.resources import Resources
from tests.support.sam import FUNCTIONS, properties, template

MADE = Resources(endpoint="http://127.0.0.1:1", queue_url="http://127.0.0.1:1/queue")
# What is elsewhere, and so different, on another machine.
PLACES = {"STAGE", "TD_IMPORT_ENDPOINT", "TD_API_ENDPOINT"}


def _default(value: Any) -> Any:
    """Return a variable's value where it is a literal or a parameter's default, else None."""
    match value:
        case {"Ref": name} if name in template()["Parameters"]:
            return str(template()["Parameters"][name]["Default"])
        case str():
            return value
    return None


def test_the_local_stack_runs_the_functions_of_the_template() -> None:
    """None is missing, none is added."""
    assert set(FUNCTIONS) == functions.FUNCTIONS.keys()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_runs_locally_within_its_limits(name: str) -> None:
    """Handler, time-out and memory are the template's."""
    function, deployed = functions.FUNCTIONS[name], properties(name)

    assert (deployed["Handler"], deployed["Timeout"], deployed["MemorySize"]) == (
        function.handler,
        function.timeout,
        function.memory,
    )


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_is_set_locally_as_when_deployed(name: str) -> None:
    """It has the template's variables, with the values that its parameters have by default."""
    variables = functions.variables(functions.FUNCTIONS[name], MADE, "http://127.0.0.1:1", {})
    deployed = properties(name)["Environment"]["Variables"]
    fixed = {key: _default(value) for key, value in deployed.items() if key not in PLACES}

    assert deployed.keys() == variables.keys()
    assert {} == {
        key: (value, variables[key])
        for key, value in fixed.items()
        if value is not None and value != variables[key]
    }


def test_queue_and_ledger_are_the_same_locally() -> None:
    """The queue's times and the table's keys are the template's."""
    queue, ledger = properties("OverflowQueue"), properties("Ledger")

    assert {name: str(queue[name]) for name in resources.QUEUE} == resources.QUEUE
    assert {name: ledger[name] for name in resources.LEDGER} == resources.LEDGER
