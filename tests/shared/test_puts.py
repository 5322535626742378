"""Calls to the stream are as large as Kinesis allows, and a response proves only what it says."""

from typing import Any

import pytest
from botocore.exceptions import ClientError

from doubles.aws_errors import client_error
from shared.puts import Fate, batches, put


def test_a_call_stays_within_the_limits_of_kinesis() -> None:
    """A call has at most 500 envelopes and 5 MiB; a larger envelope gets its own call."""
    large = [3 << 20, 3 << 20, 6 << 20, 1]

    assert [500, 1] == [len(batch) for batch in batches([10] * 501, int)]
    assert [1, 1, 1, 1] == [len(batch) for batch in batches(large, int)]
    assert [] == list(batches([], int))


class Answering:
    """A client that gives every call the same response."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def put_records(self, **_request: Any) -> Any:
        """Return the response or raise it."""
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    put_record = put_records


THROTTLING = {"ErrorCode": "ProvisionedThroughputExceededException"}


@pytest.mark.parametrize(
    ("answer", "fates", "code"),
    [
        ({"Records": [{"SequenceNumber": "1"}] * 2}, [Fate.ACKNOWLEDGED] * 2, ""),
        (
            {"Records": [{"SequenceNumber": "1"}, THROTTLING]},
            [Fate.ACKNOWLEDGED, Fate.REFUSED],
            "ProvisionedThroughputExceededException",
        ),
        ({"Records": [{"SequenceNumber": "1"}]}, [Fate.DOUBTFUL] * 2, "InvalidResponse"),
        ({"Records": [{"SequenceNumber": "1"}, {}]}, [Fate.ACKNOWLEDGED, Fate.DOUBTFUL], "InvalidResponse"),
        ({"Records": None}, [Fate.DOUBTFUL] * 2, "InvalidResponse"),
        ({"Records": [None, "1"]}, [Fate.DOUBTFUL] * 2, "InvalidResponse"),
        (client_error("Throttling", "PutRecords"), [Fate.REFUSED] * 2, "Throttling"),
        (client_error("Throttling", "PutRecords", status=503), [Fate.DOUBTFUL] * 2, "Throttling"),
        (ClientError({"Error": {"Code": "Throttling"}}, "PutRecords"), [Fate.DOUBTFUL] * 2, "Throttling"),
    ],
)
def test_each_entry_has_a_fate(answer: Any, fates: list[Fate], code: str) -> None:
    """A response with another number of entries, or without any, proves nothing."""
    entries = [{"Data": b"", "PartitionKey": "shop/1"}] * 2

    assert (fates, code) == put(Answering(answer), "events", entries)
