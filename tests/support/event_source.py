"""Lambda's event source mappings."""

from typing import Any

STREAM_ARN = "arn:aws:kinesis:us-east-1:123456789012:stream/s"


def worker_mapping(function: str) -> dict[str, Any]:
    """Return the worker's event source mapping as Lambda shows it."""
    return {
        "UUID": "0f5e1c4a",
        "FunctionArn": f"arn:aws:lambda:us-east-1:123456789012:function:{function}",
        "EventSourceArn": "arn:aws:kinesis:us-east-1:123456789012:stream/events",
        "State": "Enabled",
        "MaximumRetryAttempts": -1,
        "MaximumRecordAgeInSeconds": -1,
        "BisectBatchOnFunctionError": False,
        "ParallelizationFactor": 1,
        "FunctionResponseTypes": ["ReportBatchItemFailures"],
        "LastProcessingResult": "OK",
    }
