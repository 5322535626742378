"""What the doctor says about the event source: a mapping changed by hand, a second mapping, another stream."""

from typing import Any

import pytest

from doubles.clock import START
from ops.stream.event_source import mapping_faults, unknown_shards
from ops.stream.readable_shards import ReadableShards
from tests.support.delivery import STREAM, envelope, row, shops
from tests.support.event_source import worker_mapping

MAPPING = worker_mapping("worker") | {"TumblingWindowInSeconds": 0}
ARN = MAPPING["FunctionArn"]


def test_the_templates_mapping_has_no_fault() -> None:
    """It may be listed twice, and other functions may read the stream with other settings. An alias of the function is no other one."""
    other = MAPPING | {"UUID": "two", "FunctionArn": f"{ARN}s", "ParallelizationFactor": 10}
    second = MAPPING | {"UUID": "two", "FunctionArn": f"{ARN}:live"}

    assert [] == list(mapping_faults([MAPPING, MAPPING, other], "worker"))
    assert ["2 event source mappings instead of one"] == list(mapping_faults([MAPPING, second], "worker"))


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
    [fault] = mapping_faults([MAPPING | {name: value}], "worker")

    assert str(value) in fault.replace("None", "[]")


def test_a_stream_that_the_ledger_does_not_know_is_reported() -> None:
    """Its records are old, and none of them was ever planned."""
    made = shops(envelope("shop", {"views": [row("e1")]}))
    shards = ReadableShards(made.kinesis, STREAM, made.clock)

    assert [] == list(unknown_shards(shards, made.ledger, START + 60))
    assert ["shardId-000000000000"] == list(unknown_shards(shards, made.ledger, START + 7200))
    made.deliver()
    assert [] == list(unknown_shards(shards, made.ledger, START + 7200))
