"""What the doctor says about the event source: a mapping changed by hand, a second mapping, another stream."""

from typing import Any

import pytest

from doubles.clock import START
from ops.stream.event_source import mapping_faults, unknown_shards
from tests.support.delivery import Delivery, envelope, row

ARN = "arn:aws:lambda:us-east-1:123456789012:function:worker"
AS_IN_TEMPLATE: dict[str, Any] = {
    "UUID": "one",
    "State": "Enabled",
    "FunctionArn": ARN,
    "MaximumRetryAttempts": -1,
    "MaximumRecordAgeInSeconds": -1,
    "FunctionResponseTypes": ["ReportBatchItemFailures"],
    "ParallelizationFactor": 1,
    "BisectBatchOnFunctionError": False,
    "TumblingWindowInSeconds": 0,
}


def test_the_templates_mapping_has_no_fault() -> None:
    """It may be listed twice, and other functions may read the stream with other settings. An alias of the function is no other one."""
    other = AS_IN_TEMPLATE | {"UUID": "two", "FunctionArn": f"{ARN}s", "ParallelizationFactor": 10}
    second = AS_IN_TEMPLATE | {"UUID": "two", "FunctionArn": f"{ARN}:live"}

    assert [] == list(mapping_faults([AS_IN_TEMPLATE, AS_IN_TEMPLATE, other], "worker"))
    said = ["2 event source mappings instead of one"]
    assert said == list(mapping_faults([AS_IN_TEMPLATE, second], "worker"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MaximumRetryAttempts", 3),
        ("MaximumRecordAgeInSeconds", 3600),
        ("FunctionResponseTypes", []),
        ("ParallelizationFactor", 2),
        ("FilterCriteria", {"Filters": [{"Pattern": "{}"}]}),
        ("TumblingWindowInSeconds", 30),
        ("BisectBatchOnFunctionError", True),
        ("State", "Disabled"),
    ],
)
def test_a_changed_setting_is_a_fault(name: str, value: Any) -> None:
    """The fault names the value."""
    [fault] = mapping_faults([AS_IN_TEMPLATE | {name: value}], "worker")

    assert str(value) in fault.replace("None", "[]")


def test_a_stream_that_the_ledger_does_not_know_is_reported() -> None:
    """Its records are old, and none of them was ever planned."""
    made = Delivery()
    made.map(shop="shop_db")
    made.put(envelope("shop", {"views": [row("e1")]}))
    shards = made.wiring.shards

    assert [] == list(unknown_shards(shards, made.ledger, START + 60))
    assert ["shardId-000000000000"] == list(unknown_shards(shards, made.ledger, START + 7200))
    made.deliver()
    assert [] == list(unknown_shards(shards, made.ledger, START + 7200))
