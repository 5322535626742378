"""The settings of a mapping."""

from typing import Any

import pytest

from doubles.event_source import Mapping
from tests.support.event_source import STREAM_ARN


def test_defaults_are_those_of_lambda() -> None:
    """Without a word a mapping takes 100 records, waits for none, retries without end and heeds no report."""
    mapping = Mapping(event_source_arn=STREAM_ARN, starting_position="LATEST")

    assert (mapping.batch_size, mapping.maximum_batching_window_seconds) == (100, 0)
    assert (mapping.maximum_retry_attempts, mapping.maximum_record_age_seconds) == (-1, -1)
    assert (mapping.bisect_batch_on_function_error, mapping.report_batch_item_failures) == (False, False)
    assert (mapping.stream_name, mapping.region) == ("s", "us-east-1")


@pytest.mark.parametrize(
    "settings",
    [
        {"batch_size": 0},
        {"batch_size": 10_001},
        {"maximum_batching_window_seconds": 301},
        {"maximum_retry_attempts": -2},
        {"maximum_retry_attempts": 10_001},
        {"maximum_record_age_seconds": 0},
        {"maximum_record_age_seconds": 59},
        {"maximum_record_age_seconds": 604_801},
        {"parallelization_factor": 2},
        {"starting_position": "OLDEST"},
        {"starting_position": "AT_TIMESTAMP"},
        {"starting_position_timestamp": 1.0},
    ],
)
def test_what_lambda_refuses_is_refused(settings: dict[str, Any]) -> None:
    """A value outside Lambda's ranges, or a factor above 1, is an error that names the setting."""
    settings = {"event_source_arn": STREAM_ARN, "starting_position": "TRIM_HORIZON"} | settings

    with pytest.raises(ValueError, match="|".join(settings)):
        Mapping(**settings)


def test_a_mapping_is_read_from_the_template() -> None:
    """The properties of a template's event make the same mapping; what only wires it is left to the caller."""
    properties = {
        "Stream": {"Fn::GetAtt": ["Stream", "Arn"]},
        "StartingPosition": "TRIM_HORIZON",
        "BatchSize": 1000,
        "MaximumBatchingWindowInSeconds": 2,
        "MaximumRetryAttempts": -1,
        "MaximumRecordAgeInSeconds": -1,
        "BisectBatchOnFunctionError": False,
        "ParallelizationFactor": 1,
        "FunctionResponseTypes": ["ReportBatchItemFailures"],
        "DestinationConfig": {"OnFailure": {"Destination": "arn"}},
    }

    mapping = Mapping.from_properties(properties, event_source_arn=STREAM_ARN)

    assert mapping == Mapping(
        event_source_arn=STREAM_ARN,
        starting_position="TRIM_HORIZON",
        batch_size=1000,
        maximum_batching_window_seconds=2,
        report_batch_item_failures=True,
    )


@pytest.mark.parametrize("name", ["TumblingWindowInSeconds", "FilterCriteria", "Batchsize"])
def test_a_property_that_is_not_doubled_is_refused(name: str) -> None:
    """A template's property that would be ignored is an error."""
    with pytest.raises(ValueError, match=name):
        Mapping.from_properties({"StartingPosition": "LATEST", name: 1}, event_source_arn=STREAM_ARN)
